/* The first 128 bytes of a shard, for shard.c and shard_writer.c; shard.h says what they are. */
#ifndef PSK_SHARD_HEADER_H
#define PSK_SHARD_HEADER_H

#include "data/little_endian.h"

#define PSK_SHARD_MAGIC       "PSKSHARD"
#define PSK_SHARD_VERSION     1
#define PSK_SHARD_HEADER_SIZE 128
#define PSK_SHARD_HASHED_SIZE 120 /* of the header: all but its own checksum */
#define PSK_SHARD_NAME_OFFSET 48  /* of the tokenizer's name, PSK_TOKENIZER_NAME_SIZE bytes */

/* The numbers of the header: field, offset, bytes. Zero fields are written and must be zero when read. */
#define PSK_SHARD_FIELDS(X)                                                                                            \
    X(version, 8, 4)                                                                                                   \
    X(header_size, 12, 4)                                                                                              \
    X(token_bytes, 16, 4)                                                                                              \
    X(vocab_size, 20, 4)                                                                                               \
    X(tokens, 24, 8)                                                                                                   \
    X(documents, 32, 8)                                                                                                \
    X(end_of_text, 40, 4)                                                                                              \
    X(reserved0, 44, 4)                                                                                                \
    X(reserved1, 80, 8)                                                                                                \
    X(reserved2, 88, 8)                                                                                                \
    X(reserved3, 96, 8)                                                                                                \
    X(reserved4, 104, 8)                                                                                               \
    X(checksum, 112, 8)                                                                                                \
    X(header_checksum, 120, 8)

typedef struct psk_shard_header {
#define PSK_FIELD(name, offset, bytes) uint64_t name;
    PSK_SHARD_FIELDS(PSK_FIELD)
#undef PSK_FIELD
} psk_shard_header;

#endif
