/* Bytes as they come, whole characters out: what a stream of tokens needs before it meets a terminal. */
#ifndef UTF8_H
#define UTF8_H

#include <stddef.h>

/* The beginning of a character whose rest has not come yet. */
typedef struct utf8_stream {
    unsigned char pending[4];
    size_t count;
} utf8_stream;

/* Most bytes that one call of utf8_push or utf8_finish puts out. */
#define UTF8_OUTPUT_CAPACITY 16

/* Takes one byte; whatever is now whole goes to out: a character, or U+FFFD for bytes that belong to none (one for each
 * longest beginning of a character, as the Unicode standard recommends). Returns how many bytes that is. */
size_t utf8_push(utf8_stream *stream, unsigned char byte, char out[UTF8_OUTPUT_CAPACITY]);

/* The end: U+FFFD for a character that was not finished. */
size_t utf8_finish(utf8_stream *stream, char out[UTF8_OUTPUT_CAPACITY]);

#endif
