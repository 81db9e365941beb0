/* A shard: tokens in a binary file, memory-mapped for reading, checksummed. docs/formats.md has the same table.
 *
 *     offset  bytes  field (numbers little-endian, unsigned)
 *          0      8  "PSKSHARD"
 *          8      4  version, 1
 *         12      4  size of this header, 128
 *         16      4  bytes a token, 2 or 4
 *         20      4  vocab_size: every token is below it
 *         24      8  tokens
 *         32      8  documents: how many tokens are end-of-text
 *         40      4  end-of-text
 *         44      4  0
 *         48     32  name of the tokenizer, filled up with 0
 *         80     32  0
 *        112      8  XXH3-64 of all tokens' bytes
 *        120      8  XXH3-64 of the 120 bytes before
 *        128      -  the tokens, to the end of the file
 */
#ifndef PSK_SHARD_H
#define PSK_SHARD_H

#include "base/files.h"
#include "data/tokenizer.h"

typedef struct psk_shard {
    psk_shard_info info;
    int32_t end_of_text;
    char *path;
    psk_mapping mapping;
} psk_shard;

typedef enum {
    PSK_SHARD_HEADER, /* the header and the size of the file */
    PSK_SHARD_WHOLE   /* also the checksum, every token below vocab_size, the number of documents */
} psk_shard_check;

/* Errors: FILE; FORMAT naming file, field, value and what is expected. *out is empty after an error. */
psk_status psk_shard_open(const char *path, psk_shard_check check, psk_shard *out);
void psk_shard_close(psk_shard *shard); /* accepts an empty one */

/* tokens[0 .. count) = those from `first`, which lie in the shard. FORMAT for one that is not below vocab_size. */
psk_status psk_shard_read(const psk_shard *shard, int64_t first, int64_t count, int32_t *tokens);

/* Writing: sequential, to PATH.partial, which is synced and renamed when the shard is whole. After an error only
 * abandon and suspend are left: the file may lack tokens of any call before, and a sync would not notice. */
typedef struct psk_shard_writer psk_shard_writer;
psk_status psk_shard_writer_open(const char *path, const psk_tokenizer *tokenizer, psk_shard_writer **out);
psk_status psk_shard_writer_append(psk_shard_writer *writer, const int32_t *tokens, int64_t count);
int64_t psk_shard_writer_tokens(const psk_shard_writer *writer); /* so far */
psk_status psk_shard_writer_sync(psk_shard_writer *writer);      /* what was appended is on the disk */
psk_status psk_shard_writer_close(psk_shard_writer *writer);     /* frees writer, whatever the outcome */
void psk_shard_writer_abandon(psk_shard_writer *writer);         /* removes PATH.partial; accepts NULL */
void psk_shard_writer_suspend(psk_shard_writer *writer);         /* leaves PATH.partial; accepts NULL */

/* Goes on with PATH.partial, or with PATH, after the first `tokens` of it; what follows them is cut off. Errors: FILE,
 * FORMAT if so many are not there. */
psk_status psk_shard_writer_resume(const char *path, const psk_tokenizer *tokenizer, int64_t tokens,
                                   psk_shard_writer **out);

/* Removes PATH and PATH.partial, if they are there. */
psk_status psk_shard_remove(const char *path);

#endif
