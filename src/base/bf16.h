/* bfloat16: the upper half of a float. Rounding to nearest, ties to even; NaN stays NaN. */
#ifndef PSK_BF16_H
#define PSK_BF16_H

#include <stdint.h>
#include <string.h>

typedef uint16_t psk_bf16;

static inline float psk_bf16_to_float(psk_bf16 x) {
    const uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline psk_bf16 psk_bf16_from_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (psk_bf16)((bits >> 16) | 0x40u); /* a quiet NaN; rounding could make it infinity */
    return (psk_bf16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

#endif
