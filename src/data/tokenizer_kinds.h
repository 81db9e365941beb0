/* The kinds of tokenizer, for tokenizer.c, and what they use of it. */
#ifndef PSK_TOKENIZER_KINDS_H
#define PSK_TOKENIZER_KINDS_H

#include "base/json.h"
#include "data/tokenizer.h"

#define PSK_BYTES_NAME           "bytes"
#define PSK_BYTES_VOCAB          257
#define PSK_SENTENCEPIECE_PREFIX "sentencepiece-" /* of the name */

psk_status psk_tokenizer_bytes(psk_tokenizer **out);

/* Byte-level BPE, of vocab.json and merges.txt, or of the object in a tokenizer.json of Hugging Face. UNSUPPORTED
 * without PCRE2. */
psk_status psk_tokenizer_bpe_pair(const char *vocab_path, const char *merges_path, psk_tokenizer **out);
psk_status psk_tokenizer_bpe_json(const json_t *object, const char *path, psk_tokenizer **out);

/* Of a .model file, or of its bytes, which are copied; `where` is for messages. UNSUPPORTED without SentencePiece. */
psk_status psk_tokenizer_sentencepiece(const char *path, psk_tokenizer **out);
psk_status psk_tokenizer_sentencepiece_bytes(const char *bytes, size_t size, const char *where, psk_tokenizer **out);

/* Whether a folder with a file of this name has a tokenizer, or may have one. */
bool psk_tokenizer_has_file(const char *name);

/* Takes `text` and `starts` of a tokenizer whose vocab_size is set, for `bytes` bytes of text; contents undefined. */
psk_status psk_tokenizer_make_texts(psk_tokenizer *tokenizer, int64_t bytes);

/* tokenizer.json in our own form: {"tokenizer": name, "vocab_size": V, "end_of_text": id}. */
psk_status psk_tokenizer_save_facts(const psk_tokenizer *tokenizer, const char *folder);

#endif
