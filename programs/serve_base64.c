#include "serve_base64.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *serve_base64_encode(const void *data, size_t size) {
    const unsigned char *const in = data;
    char *const text = malloc((size + 2) / 3 * 4 + 1), *out = text;
    if (!text)
        return NULL;
    for (size_t i = 0; i < size; i += 3) {
        const size_t left = size - i;
        const uint32_t group =
            (uint32_t)in[i] << 16 | (left > 1 ? (uint32_t)in[i + 1] << 8 : 0) | (left > 2 ? in[i + 2] : 0);
        *out++ = digits[group >> 18];
        *out++ = digits[group >> 12 & 63];
        *out++ = left > 1 ? digits[group >> 6 & 63] : '=';
        *out++ = left > 2 ? digits[group & 63] : '=';
    }
    *out = '\0';
    return text;
}

/* 0 ... 63, or 64 for a letter that is none of the digits. */
static void fill_values(unsigned char values[256]) {
    memset(values, 64, 256);
    for (unsigned char i = 0; i < 64; i++)
        values[(unsigned char)digits[i]] = i;
}

bool serve_base64_decode(const char *text, size_t length, void **data, size_t *size) {
    unsigned char values[256];
    *data = NULL;
    *size = 0;
    const size_t padding = length < 2 ? 0 : (size_t)(text[length - 1] == '=') + (text[length - 2] == '=');
    unsigned char *const out = length % 4 == 0 ? malloc(length / 4 * 3 + 1) : NULL;
    if (!out)
        return false;
    fill_values(values);
    unsigned char wrong = 0;
    for (size_t i = 0, o = 0; i < length; i += 4, o += 3) {
        uint32_t group = 0;
        for (size_t j = 0; j < 4; j++) {
            const unsigned char value = i + j + padding >= length ? 0 : values[(unsigned char)text[i + j]];
            wrong |= value & 64;
            group = group << 6 | value;
        }
        out[o] = (unsigned char)(group >> 16);
        out[o + 1] = (unsigned char)(group >> 8);
        out[o + 2] = (unsigned char)group;
    }
    if (wrong) {
        free(out);
        return false;
    }
    *data = out;
    *size = length / 4 * 3 - padding;
    return true;
}
