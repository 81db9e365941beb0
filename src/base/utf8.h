/* Which bytes are UTF-8; bytes as they come, whole characters out: what a stream of tokens needs before it is text. */
#ifndef PSK_UTF8_H
#define PSK_UTF8_H

#include <stddef.h>

/* The first place from `start` on where no well-formed character (Unicode, table 3-7) begins; `size` if there is none.
 */
size_t psk_utf8_valid_end(const char *text, size_t size, size_t start);

/* The beginning of a character whose rest has not come yet. */
typedef struct psk_utf8_stream {
    unsigned char pending[4];
    size_t count;
} psk_utf8_stream;

/* Most bytes that one call of psk_utf8_push or psk_utf8_finish puts out. */
#define PSK_UTF8_OUTPUT_CAPACITY 16

/* Takes one byte; whatever is now whole goes to out: a character, or U+FFFD for bytes that belong to none (one for each
 * longest beginning of a character, as the Unicode standard recommends). Returns how many bytes that is. */
size_t psk_utf8_push(psk_utf8_stream *stream, unsigned char byte, char out[PSK_UTF8_OUTPUT_CAPACITY]);

/* The end: U+FFFD for a character that was not finished. */
size_t psk_utf8_finish(psk_utf8_stream *stream, char out[PSK_UTF8_OUTPUT_CAPACITY]);

#endif
