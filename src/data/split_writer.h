/* One split of a data folder being written: its tokens cut into shards. */
#ifndef PSK_SPLIT_WRITER_H
#define PSK_SPLIT_WRITER_H

#include "data/shard.h"

#include <stdbool.h>

typedef struct psk_split_writer {
    const char *name, *folder; /* "train", "valid" */
    const psk_tokenizer *tokenizer;
    int64_t shard_tokens;    /* limit of a shard */
    int64_t tokens;          /* so far, of all shards */
    psk_shard_writer *shard; /* the one under way, NULL: none */
    bool completed;          /* a shard since the last sync */
    bool failed;             /* a write: the files may lack tokens that were appended before */
} psk_split_writer;

/* Makes the files of the split hold its first writer->tokens tokens, and goes on from there; later shards go. */
psk_status psk_split_writer_open(psk_split_writer *writer);
/* Appends the first *taken of count >= 1 tokens: at most as many as complete a shard, after which writer->shard is
 * NULL.
 */
psk_status psk_split_writer_append(psk_split_writer *writer, const int32_t *tokens, int64_t count, int64_t *taken);
psk_status psk_split_writer_sync(psk_split_writer *writer);  /* all is on the disk; FILE ever after a failed write */
psk_status psk_split_writer_close(psk_split_writer *writer); /* completes the last shard */
void psk_split_writer_suspend(psk_split_writer *writer);     /* leaves it unfinished; accepts a closed one */
int64_t psk_split_writer_shards(const psk_split_writer *writer);

#endif
