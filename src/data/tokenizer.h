/* Tokenizers: text to token ids and back. A tokenizer is one const table; src/data/tokenizer.c lists them all. */
#ifndef PSK_TOKENIZER_H
#define PSK_TOKENIZER_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct psk_tokenizer psk_tokenizer;
struct psk_tokenizer {
    const char *name; /* in shards and tokenizer.json */
    int64_t vocab_size;
    int32_t end_of_text;

    /* tokens[0 .. *count) of text; at most one token a byte, so tokens has room for `bytes`. The text may be a piece of
     * a longer one: then the tokenizer must not depend on where it was cut. */
    psk_status (*encode)(const psk_tokenizer *tokenizer, const unsigned char *text, int64_t bytes, int32_t *tokens,
                         int64_t *count);

    /* The bytes of one token (at most `capacity` to text), *size their number; end-of-text has none.
     * Errors: ARGUMENT for a token outside the vocabulary or a buffer that is too small. */
    psk_status (*decode)(const psk_tokenizer *tokenizer, int32_t token, char *text, size_t capacity, size_t *size);
};

/* "bytes": ids 0-255 are bytes, 256 is end-of-text. Errors: ARGUMENT listing the names. */
psk_status psk_tokenizer_find(const char *name, const psk_tokenizer **out);

/* tokenizer.json: {"tokenizer": name, "vocab_size": V, "end_of_text": id}. Read checks that they belong together. */
psk_status psk_tokenizer_write(const psk_tokenizer *tokenizer, const char *path);
psk_status psk_tokenizer_read(const char *path, const psk_tokenizer **out);

#endif
