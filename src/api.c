/* Public functions that join parts which do not know each other. */
#include "data/tokenizer.h"
#include "model/model.h"

#include <inttypes.h>

psk_status psk_token_text(const psk_model *model, int32_t token, char *text, size_t capacity, size_t *size) {
    psk_tokenizer *tokenizer;
    const char *bytes;
    if (token < 0 || token >= model->config.vocab_size)
        return psk_fail(PSK_ERROR_ARGUMENT, "token %" PRId32 " is outside the vocabulary of %" PRId64, token,
                        model->config.vocab_size);
    PSK_TRY(psk_tokenizer_load("bytes", &tokenizer));
    psk_status status = psk_tokenizer_token_text(tokenizer, token, &bytes, size);
    if (status == PSK_OK && *size > capacity)
        status = psk_fail(PSK_ERROR_ARGUMENT, "no room for the text of token %" PRId32 ": it needs 1 byte", token);
    else if (status == PSK_OK && *size > 0)
        text[0] = bytes[0];
    psk_tokenizer_free(tokenizer);
    return status;
}
