/* Random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011), a counter-based generator.
 *
 * Number i of stream (seed, stream) is a pure function of the three, so the same numbers come out for any thread count
 * and any order of evaluation, and nothing but the counter needs saving in a checkpoint. */
#ifndef PSK_RNG_H
#define PSK_RNG_H

#include <stdint.h>

/* Four 32-bit words for block `index` of the stream. */
void psk_philox(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4]);

/* A cursor over one stream; copy it to save it. */
typedef struct psk_rng {
    uint64_t seed, stream, next; /* next: index of the next 32-bit word */
} psk_rng;

psk_rng psk_rng_make(uint64_t seed, uint64_t stream);
uint32_t psk_rng_u32(psk_rng *rng);
uint64_t psk_rng_below(psk_rng *rng, uint64_t limit); /* uniform in [0, limit), limit >= 1, without bias */
double psk_rng_uniform(psk_rng *rng);                 /* [0, 1), 53 bits */

/* x[0..n) ~ N(0, std^2), a pure function of (seed, stream). */
void psk_rng_fill_normal(float *x, int64_t n, float std, uint64_t seed, uint64_t stream);

/* 64-bit FNV-1a of a name: the stream number of a named tensor. */
uint64_t psk_rng_stream(const char *name);

#endif
