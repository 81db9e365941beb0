/* Decompression of a stream: one table for each library, in byte_decoder_*.c. */
#ifndef PSK_BYTE_DECODER_H
#define PSK_BYTE_DECODER_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

/* From in to out, as much as there is of one and room for of the other. */
typedef struct psk_decoder_step {
    const unsigned char *in;
    size_t in_size, in_used;
    unsigned char *out;
    size_t out_size, out_made;
} psk_decoder_step;

typedef struct psk_decoder {
    const char *name;
    unsigned char magic[4]; /* first bytes of such data */
    size_t magic_size;
    const char *suffixes[2]; /* of file names */
    const char *missing;     /* NULL, or what to do as this build cannot read such data; the functions are NULL then */
    psk_status (*open)(void **state);
    /* *whole: what was decoded so far may be the end. Errors: FORMAT with the library's words; MEMORY. */
    psk_status (*decode)(void *state, psk_decoder_step *step, bool *whole);
    void (*close)(void *state);
} psk_decoder;

extern const psk_decoder psk_decoder_gzip, psk_decoder_zstd;

#endif
