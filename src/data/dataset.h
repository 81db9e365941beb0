/* One split ("train" or "valid") of a folder made by psk_prepare, as one sequence of tokens. */
#ifndef PSK_DATASET_H
#define PSK_DATASET_H

#include "data/shard.h"

typedef struct psk_dataset {
    psk_tokenizer *tokenizer;
    psk_shard *shards;
    int64_t *starts; /* shards + 1 numbers: index of each shard's first token; the last is `tokens` */
    int64_t count;   /* shards; 0: the folder has no such split */
    int64_t tokens;
    uint64_t fingerprint; /* of all shards' sizes and checksums, in order */
} psk_dataset;

/* Opens and checks train-00000.psk, train-00001.psk, ... whole. A split without shards is no error (count 0): the
 * caller knows whether it needs it. Errors: FILE, FORMAT naming the file: a shard that is damaged, missing from the
 * sequence or made by another tokenizer; a folder whose preparation did not end (no tokenizer.json). */
psk_status psk_dataset_open(const char *folder, const char *split, psk_dataset *out);
void psk_dataset_close(psk_dataset *dataset); /* accepts an empty one */

/* tokens[i] = token (first + i) mod dataset->tokens for i < count: the sequence closed to a ring (every document ends
 * with end-of-text, so the seam is like any other). dataset->tokens >= 1, first >= 0. */
psk_status psk_dataset_read(const psk_dataset *dataset, int64_t first, int64_t count, int32_t *tokens);

/* Name of a shard file, "train-00007.psk". */
#define PSK_SHARD_NAME_SIZE 64
void psk_shard_name(const char *split, int64_t index, char name[PSK_SHARD_NAME_SIZE]);

#endif
