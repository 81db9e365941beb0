/* The tokenizer "bytes": ids 0-255 are bytes, 256 is end-of-text. */
#include "base/json.h"
#include "base/memory.h"
#include "data/tokenizer_kinds.h"

#include <stdio.h>

#define BYTES_END_OF_TEXT 256

static psk_status bytes_append(const psk_tokenizer *tokenizer, const char *text, size_t size, psk_tokens *tokens) {
    (void)tokenizer;
    PSK_TRY(psk_tokens_reserve(tokens, (int64_t)size));
    for (size_t i = 0; i < size; i++)
        tokens->ids[tokens->count++] = (unsigned char)text[i];
    return PSK_OK;
}

static psk_status bytes_save(const psk_tokenizer *tokenizer, const char *folder) {
    return psk_tokenizer_save_facts(tokenizer, folder);
}

static void bytes_free(psk_tokenizer *tokenizer) {
    psk_free(tokenizer->text);
    psk_free(tokenizer->starts);
    psk_free(tokenizer);
}

static const psk_tokenizer_kind bytes_kind = {bytes_append, bytes_save, bytes_free};

psk_status psk_tokenizer_bytes(psk_tokenizer **out) {
    psk_status status;
    psk_tokenizer *tokenizer;
    *out = NULL;
    PSK_TRY(psk_alloc_zero(sizeof *tokenizer, "a tokenizer", (void **)&tokenizer));
    tokenizer->kind = &bytes_kind;
    snprintf(tokenizer->name, sizeof tokenizer->name, PSK_BYTES_NAME);
    tokenizer->vocab_size = PSK_BYTES_VOCAB;
    tokenizer->end_of_text = BYTES_END_OF_TEXT;
    PSK_TRY_GOTO(status, psk_tokenizer_make_texts(tokenizer, BYTES_END_OF_TEXT), failed);
    for (int i = 0; i < PSK_BYTES_VOCAB; i++) {
        if (i < BYTES_END_OF_TEXT)
            tokenizer->text[i] = (char)i;
        tokenizer->starts[i] = i;
    }
    tokenizer->starts[PSK_BYTES_VOCAB] = BYTES_END_OF_TEXT;
    *out = tokenizer;
    return PSK_OK;
failed:
    psk_tokenizer_free(tokenizer);
    return status;
}
