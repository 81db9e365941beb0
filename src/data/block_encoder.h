/* One block of text to tokens: documents told apart, each on its side, end-of-text after it. Blocks are independent, so
 * many are encoded at once. */
#ifndef PSK_BLOCK_ENCODER_H
#define PSK_BLOCK_ENCODER_H

#include "data/text_reader.h"
#include "data/tokenizer.h"

#define PSK_BLOCK_MESSAGE_SIZE 512

typedef struct psk_encoded_block {
    psk_tokens tokens[PSK_SIDES];
    int64_t documents, bytes, empty, skipped;
    char first_skipped[PSK_BLOCK_MESSAGE_SIZE];
} psk_encoded_block;

/* *out is made empty first and keeps its memory. Errors: FORMAT naming file and line; MEMORY. Safe for any number of
 * threads at once, each with an `out` of its own. */
psk_status psk_encode_block(const psk_prepare_options *options, const psk_tokenizer *tokenizer,
                            const psk_input_list *inputs, const psk_block *block, psk_encoded_block *out);

void psk_encoded_block_free(psk_encoded_block *block); /* accepts an empty one */

#endif
