/* The bytes of an input in order: of a file or of standard input, decompressed where they are gzip or zstd. */
#ifndef PSK_BYTE_SOURCE_H
#define PSK_BYTE_SOURCE_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct psk_byte_source psk_byte_source;

/* path "-" is standard input. What the bytes are is seen by the first of them. Errors: FILE; FORMAT for a Git LFS
 * pointer and for a name that ends in .gz or .zst with other contents; UNSUPPORTED if this build lacks the library;
 * MEMORY. */
psk_status psk_byte_source_open(const char *path, psk_byte_source **out);
void psk_byte_source_close(psk_byte_source *source); /* accepts NULL */

/* Fills the buffer: *got < capacity only where the input ends. Errors: FILE; FORMAT naming file and byte where the
 * compressed data is damaged or breaks off. */
psk_status psk_byte_source_read(psk_byte_source *source, unsigned char *buffer, int64_t capacity, int64_t *got);

/* The whole input read and thrown away: how many bytes it has. */
psk_status psk_byte_source_count(psk_byte_source *source, int64_t *bytes);

bool psk_byte_source_is_compressed(const psk_byte_source *source);
int64_t psk_byte_source_consumed(const psk_byte_source *source); /* bytes of the file as it is on the disk */

#endif
