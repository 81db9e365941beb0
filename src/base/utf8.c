#include "base/utf8.h"

#include <stdbool.h>
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

static bool continues(const psk_utf8_stream *stream, unsigned char byte) {
    return stream->count == 1 ? may_be_second(stream->pending[0], byte) : (byte & 0xC0) == 0x80;
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
