/* Public functions that join parts which do not know each other. */
#include "data/tokenizer.h"
#include "model/model.h"

#include <inttypes.h>

psk_status psk_token_text(const psk_model *model, int32_t token, char *text, size_t capacity, size_t *size) {
    const psk_tokenizer *tokenizer;
    if (token < 0 || token >= model->config.vocab_size)
        return psk_fail(PSK_ERROR_ARGUMENT, "token %" PRId32 " is outside the vocabulary of %" PRId64, token,
                        model->config.vocab_size);
    PSK_TRY(psk_tokenizer_find("bytes", &tokenizer));
    return tokenizer->decode(tokenizer, token, text, capacity, size);
}
