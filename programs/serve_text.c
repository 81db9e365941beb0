#include "serve_text.h"

#include "polysketch.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool copy_through(psk_text_stream *stream, const char *bytes, size_t size, char *out) {
    const char *text;
    size_t length, rest;
    int stopped;
    if (psk_text_stream_push(stream, bytes, size, &text, &length, &stopped) != PSK_OK)
        return false;
    memcpy(out, text, length);
    if (psk_text_stream_finish(stream, &text, &rest) != PSK_OK)
        return false;
    memcpy(out + length, text, rest);
    out[length + rest] = '\0';
    return true;
}

char *serve_text_copy(const char *bytes, size_t size) {
    psk_text_stream *stream = NULL;
    char *const text = malloc(3 * size + 1); /* a byte becomes at most U+FFFD */
    const bool good =
        text && psk_text_stream_create(NULL, 0, &stream) == PSK_OK && copy_through(stream, bytes, size, text);
    psk_text_stream_free(stream);
    if (good)
        return text;
    free(text);
    return NULL;
}

json_t *serve_text_json(const char *text) {
    char *const copy = serve_text_copy(text, strlen(text));
    json_t *const json = copy ? json_string(copy) : NULL;
    free(copy);
    return json;
}
