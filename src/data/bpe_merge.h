/* Byte-pair merges (Sennrich et al. 2016): in a row of tokens, the neighbours whose pair has the lowest rank become
 * one, of several such pairs the leftmost, until no pair is left that has a rank. */
#ifndef PSK_BPE_MERGE_H
#define PSK_BPE_MERGE_H

#include "data/tokenizer.h"

typedef struct psk_merge {
    int32_t left, right, merged; /* token ids, >= 0 */
} psk_merge;

/* From a pair to its rank and what it becomes; shared by threads. */
typedef struct psk_merge_table psk_merge_table;

/* Rank i is merges[i]. *repeated: the first entry whose pair stands before it too, -1 if none does; such a table is not
 * to be used. */
psk_status psk_merge_table_create(const psk_merge *merges, int64_t count, psk_merge_table **out, int64_t *repeated);
void psk_merge_table_free(psk_merge_table *table);

/* What one thread merges in; all zero at first, grows as needed. */
typedef struct psk_merge_space {
    void *block; /* released by psk_free */
    int64_t capacity;
} psk_merge_space;

/* Merges ids[0 ... *count - 1] in place. Time: n log n. */
psk_status psk_merge_ids(const psk_merge_table *table, psk_merge_space *space, int32_t *ids, int64_t *count);

#endif
