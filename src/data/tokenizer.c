#include "data/tokenizer.h"

#include "base/json.h"

#include <string.h>

static psk_status bytes_encode(const psk_tokenizer *tokenizer, const unsigned char *text, int64_t bytes,
                               int32_t *tokens, int64_t *count) {
    (void)tokenizer;
    for (int64_t i = 0; i < bytes; i++)
        tokens[i] = text[i];
    *count = bytes;
    return PSK_OK;
}

static psk_status bytes_decode(const psk_tokenizer *tokenizer, int32_t token, char *text, size_t capacity,
                               size_t *size) {
    *size = 0;
    if (token < 0 || token >= tokenizer->vocab_size)
        return psk_fail(PSK_ERROR_ARGUMENT, "token %d is outside the vocabulary of tokenizer \"%s\" (0 ... %lld)",
                        (int)token, tokenizer->name, (long long)tokenizer->vocab_size - 1);
    if (token == tokenizer->end_of_text)
        return PSK_OK;
    if (capacity < 1)
        return psk_fail(PSK_ERROR_ARGUMENT, "no room for the text of token %d: it needs 1 byte", (int)token);
    text[0] = (char)token;
    *size = 1;
    return PSK_OK;
}

static const psk_tokenizer tokenizers[] = {
    {.name = "bytes", .vocab_size = 257, .end_of_text = 256, .encode = bytes_encode, .decode = bytes_decode},
};

psk_status psk_tokenizer_find(const char *name, const psk_tokenizer **out) {
    const size_t count = sizeof tokenizers / sizeof tokenizers[0];
    char names[128] = "";
    *out = NULL;
    for (size_t i = 0; i < count; i++) {
        if (name && strcmp(name, tokenizers[i].name) == 0) {
            *out = &tokenizers[i];
            return PSK_OK;
        }
        strncat(names, i ? ", " : "", sizeof names - strlen(names) - 1);
        strncat(names, tokenizers[i].name, sizeof names - strlen(names) - 1);
    }
    return psk_fail(PSK_ERROR_ARGUMENT, "no tokenizer is called \"%s\"; there is: %s", name ? name : "(none)", names);
}

psk_status psk_tokenizer_write(const psk_tokenizer *tokenizer, const char *path) {
    psk_status status;
    psk_json_init();
    json_t *object = json_object();
    if (!object)
        return psk_fail(PSK_ERROR_MEMORY, "out of memory for %s", path);
    PSK_TRY_GOTO(status, psk_json_set(object, "tokenizer", json_string(tokenizer->name)), done);
    PSK_TRY_GOTO(status, psk_json_set(object, "vocab_size", json_integer(tokenizer->vocab_size)), done);
    PSK_TRY_GOTO(status, psk_json_set(object, "end_of_text", json_integer(tokenizer->end_of_text)), done);
    status = psk_json_save(path, object);
done:
    json_decref(object);
    return status;
}

psk_status psk_tokenizer_read(const char *path, const psk_tokenizer **out) {
    psk_status status;
    json_t *object = NULL;
    const char *name = NULL;
    int64_t vocab_size = -1, end_of_text = -1;
    *out = NULL;
    PSK_TRY(psk_json_load(path, &object));
    PSK_TRY_GOTO(status, psk_json_string(object, path, "tokenizer", &name), done);
    PSK_TRY_GOTO(status, psk_json_int(object, path, "vocab_size", 1, INT32_MAX, &vocab_size), done);
    PSK_TRY_GOTO(status, psk_json_int(object, path, "end_of_text", 0, INT32_MAX, &end_of_text), done);
    status = psk_tokenizer_find(name, out);
    if (status != PSK_OK) {
        status = psk_fail_within(PSK_ERROR_FORMAT, "%s", path);
    } else if (vocab_size != (*out)->vocab_size || end_of_text != (*out)->end_of_text) {
        status = psk_fail(PSK_ERROR_FORMAT,
                          "%s: tokenizer \"%s\" has vocab_size %lld and end_of_text %lld there; expected %lld and %d",
                          path, name, (long long)vocab_size, (long long)end_of_text, (long long)(*out)->vocab_size,
                          (int)(*out)->end_of_text);
        *out = NULL;
    }
done:
    json_decref(object);
    return status;
}
