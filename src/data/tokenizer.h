/* Tokenizers: text to token ids and back. polysketch.h says what a user sees; here is what the kinds share.
 *
 * A kind (bytes, BPE, SentencePiece) is a struct that begins with psk_tokenizer, and one function that loads it. */
#ifndef PSK_TOKENIZER_H
#define PSK_TOKENIZER_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PSK_TOKENIZER_NAME_SIZE 32 /* with the 0 at its end; as in shards */

/* Tokens as they are appended; all zero is an empty list. */
typedef struct psk_tokens {
    int32_t *ids; /* released by psk_free */
    int64_t count, capacity;
} psk_tokens;

/* Room for `more` further ids. */
psk_status psk_tokens_reserve(psk_tokens *tokens, int64_t more);

typedef struct psk_tokenizer_kind {
    psk_status (*append)(const psk_tokenizer *tokenizer, const char *text, size_t size,
                         psk_tokens *tokens); /* as psk_tokenizer_append */
    psk_status (*save)(const psk_tokenizer *tokenizer, const char *folder);
    void (*free)(psk_tokenizer *tokenizer);
} psk_tokenizer_kind;

struct psk_tokenizer {
    const psk_tokenizer_kind *kind;
    char name[PSK_TOKENIZER_NAME_SIZE];
    int64_t vocab_size;
    int32_t end_of_text; /* -1: none */
    bool adds_space;     /* encoding puts a space before each text, decoding takes it away */
    char *text;          /* of all tokens, one after the other */
    int64_t *starts;     /* vocab_size + 1 numbers: token i is text[starts[i] ... starts[i + 1] - 1] */
};

/* psk_tokenizer_encode, behind what is in `tokens`. */
psk_status psk_tokenizer_append(const psk_tokenizer *tokenizer, const char *text, size_t size, psk_tokens *tokens);

/* The file that psk_tokenizer_save writes last, and what SentencePiece has besides. */
#define PSK_TOKENIZER_FILE "tokenizer.json"
#define PSK_MODEL_FILE     "tokenizer.model"

#endif
