/* Little-endian numbers in bytes, on any machine. For the binary formats: shards, event files. */
#ifndef PSK_LITTLE_ENDIAN_H
#define PSK_LITTLE_ENDIAN_H

#include <stdint.h>

/* The `bytes` low bytes of value; bytes is 2, 4 or 8. */
static inline void psk_store_le(unsigned char *out, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++)
        out[i] = (unsigned char)(value >> (8 * i));
}

static inline uint64_t psk_load_le(const unsigned char *in, int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)in[i] << (8 * i);
    return value;
}

#endif
