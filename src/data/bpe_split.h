/* GPT-2's way of cutting a text into the pieces within which tokens are made (Radford et al. 2019; the pattern stands
 * in bpe_split.c). Bytes that are not UTF-8 are pieces of one byte each. */
#ifndef PSK_BPE_SPLIT_H
#define PSK_BPE_SPLIT_H

#include "data/tokenizer.h"

/* The compiled pattern: shared by threads. */
typedef struct psk_splitter psk_splitter;
psk_status psk_splitter_create(psk_splitter **out);
void psk_splitter_free(psk_splitter *splitter);

/* One text being cut, by one thread. */
typedef struct psk_split {
    const psk_splitter *splitter;
    void *match;
    const char *text;
    size_t size;
    size_t next;      /* where the next piece begins */
    size_t valid_end; /* text[next ... valid_end - 1] is UTF-8 */
} psk_split;

/* *match: what one thread needs for any number of splits. */
psk_status psk_split_match_create(const psk_splitter *splitter, void **match);
void psk_split_match_free(void *match);

/* The piece from split->next on, which is moved behind it; false at the end of the text. */
psk_status psk_split_next(psk_split *split, const char **piece, size_t *size, bool *found);

#endif
