/* What stands in for the kinds of tokenizer whose library was not there when this one was built. */
#include "data/tokenizer_kinds.h"

#if !PSK_WITH_PCRE2
static psk_status no_bpe(const char *path, psk_tokenizer **out) {
    *out = NULL;
    return psk_fail(PSK_ERROR_UNSUPPORTED,
                    "%s: byte-level BPE needs the library PCRE2, without which this program was built", path);
}

psk_status psk_tokenizer_bpe_pair(const char *vocab_path, const char *merges_path, psk_tokenizer **out) {
    (void)merges_path;
    return no_bpe(vocab_path, out);
}

psk_status psk_tokenizer_bpe_json(const json_t *object, const char *path, psk_tokenizer **out) {
    (void)object;
    return no_bpe(path, out);
}
#endif

#if !PSK_WITH_SENTENCEPIECE
psk_status psk_tokenizer_train(const psk_tokenizer_train_options *options) {
    (void)options;
    return psk_fail(PSK_ERROR_UNSUPPORTED,
                    "a new vocabulary needs the library SentencePiece, without which this program was built");
}

psk_status psk_tokenizer_sentencepiece(const char *path, psk_tokenizer **out) {
    *out = NULL;
    return psk_fail(PSK_ERROR_UNSUPPORTED,
                    "%s: a SentencePiece model needs that library, without which this program was built", path);
}
#endif
