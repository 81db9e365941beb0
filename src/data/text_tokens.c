#include "data/text_tokens.h"

#include "base/memory.h"
#include "data/block_encoder.h"

#include <string.h>

typedef struct text_source {
    psk_prepare_options options;
    psk_input_list inputs;
    psk_text_reader *reader;
    psk_block block;
    psk_encoded_block encoded; /* the block */
} text_source;

static psk_status append(psk_tokens *tokens, const psk_tokens *more) {
    if (more->count == 0)
        return PSK_OK;
    PSK_TRY(psk_tokens_reserve(tokens, more->count));
    memcpy(tokens->ids + tokens->count, more->ids, (size_t)more->count * sizeof *more->ids);
    tokens->count += more->count;
    return PSK_OK;
}

static psk_status append_blocks(text_source *source, const psk_tokenizer *tokenizer, psk_tokens *tokens) {
    bool end;
    PSK_TRY(psk_input_list_make(&source->options, &source->inputs));
    PSK_TRY(psk_text_reader_open(&source->options, &source->inputs, (psk_position){.document = -1}, &source->reader));
    for (;;) {
        PSK_TRY(psk_text_reader_next(source->reader, &source->block, &end));
        if (end)
            return PSK_OK;
        PSK_TRY(psk_encode_block(&source->options, tokenizer, &source->inputs, &source->block, &source->encoded));
        PSK_TRY(append(tokens, &source->encoded.tokens[PSK_TRAIN]));
    }
}

psk_status psk_text_tokens(const char *path, const psk_tokenizer *tokenizer, psk_tokens *tokens) {
    text_source source = {.options = psk_prepare_options_default()};
    source.options.inputs = &path;
    source.options.input_count = 1;
    source.options.valid_fraction = 0;
    const psk_status status = append_blocks(&source, tokenizer, tokens);
    psk_text_reader_close(source.reader);
    psk_input_list_free(&source.inputs);
    psk_block_free(&source.block);
    psk_encoded_block_free(&source.encoded);
    return status;
}
