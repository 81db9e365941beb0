/* A file of text as tokens, without shards. */
#ifndef PSK_TEXT_TOKENS_H
#define PSK_TEXT_TOKENS_H

#include "data/tokenizer.h"

/* Appends the tokens of one file, read as psk_prepare reads it when nothing is held out: decompressed, documents told
 * apart, end-of-text after each if the tokenizer has one. Errors: those of psk_prepare for an input. */
psk_status psk_text_tokens(const char *path, const psk_tokenizer *tokenizer, psk_tokens *tokens);

#endif
