#include "base/utf8.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

/* Bytes of the character that `lead` begins, 0 if it begins none. */
static size_t character_size(unsigned char lead) {
    return lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
}

/* May `byte` be the second byte after `lead`? No overlong forms, no surrogates, nothing above U+10FFFF. */
static bool may_be_second(unsigned char lead, unsigned char byte) {
    const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    return byte >= low && byte <= high;
}

static bool is_continuation(unsigned char byte) {
    return (byte & 0xC0) == 0x80;
}

/* ------------------------------------------------------------------------------------------------------------- whole
 */

/* Bytes of the character at text, 0 if there is no whole one. */
static size_t whole_character(const unsigned char *text, size_t size) {
    const size_t length = character_size(text[0]);
    if (length > size || (length > 1 && !may_be_second(text[0], text[1])))
        return 0;
    for (size_t i = 2; i < length; i++)
        if (!is_continuation(text[i]))
            return 0;
    return length;
}

size_t psk_utf8_valid_end(const char *text, size_t size, size_t start) {
    const uint64_t high_bits = 0x8080808080808080u;
    size_t at = start;
    while (at < size) {
        uint64_t word;
        if (size - at >= sizeof word && (memcpy(&word, text + at, sizeof word), (word & high_bits) == 0)) {
            at += sizeof word;
            continue;
        }
        const size_t step = whole_character((const unsigned char *)text + at, size - at);
        if (step == 0)
            return at;
        at += step;
    }
    return at;
}

/* ------------------------------------------------------------------------------------------------------------ stream
 */

static bool continues(const psk_utf8_stream *stream, unsigned char byte) {
    return stream->count == 1 ? may_be_second(stream->pending[0], byte) : is_continuation(byte);
}

size_t psk_utf8_finish(psk_utf8_stream *stream, char out[PSK_UTF8_OUTPUT_CAPACITY]) {
    if (stream->count == 0)
        return 0;
    stream->count = 0;
    memcpy(out, replacement, 3);
    return 3;
}

size_t psk_utf8_push(psk_utf8_stream *stream, unsigned char byte, char out[PSK_UTF8_OUTPUT_CAPACITY]) {
    size_t used = 0;
    if (stream->count > 0 && !continues(stream, byte))
        used = psk_utf8_finish(stream, out);
    if (stream->count == 0 && character_size(byte) == 0) {
        memcpy(out + used, replacement, 3);
        return used + 3;
    }
    stream->pending[stream->count++] = byte;
    if (stream->count == character_size(stream->pending[0])) {
        memcpy(out + used, stream->pending, stream->count);
        used += stream->count;
        stream->count = 0;
    }
    return used;
}
