#include "base/rng.h"

#include "base/status.h"

#include <math.h>

#define PHILOX_ROUNDS 10
/* Multipliers and Weyl increments of the paper's Philox4x32. */
static const uint32_t multiplier[2] = {0xD2511F53u, 0xCD9E8D57u};
static const uint32_t weyl[2] = {0x9E3779B9u, 0xBB67AE85u};

static const double two_pi = 6.28318530717958647692;

void psk_philox(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4]) {
    uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32);
    uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        const uint64_t p0 = (uint64_t)multiplier[0] * c0, p1 = (uint64_t)multiplier[1] * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += weyl[0];
        k1 += weyl[1];
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

psk_rng psk_rng_make(uint64_t seed, uint64_t stream) {
    return (psk_rng){.seed = seed, .stream = stream, .next = 0};
}

uint32_t psk_rng_u32(psk_rng *rng) {
    uint32_t block[4];
    psk_philox(rng->seed, rng->stream, rng->next / 4, block);
    return block[rng->next++ % 4];
}

static uint64_t rng_u64(psk_rng *rng) {
    const uint64_t low = psk_rng_u32(rng);
    return low | (uint64_t)psk_rng_u32(rng) << 32;
}

uint64_t psk_rng_below(psk_rng *rng, uint64_t limit) {
    PSK_ASSERT(limit >= 1);
    /* 2^64 mod limit: without these first values the rest is a whole number of rounds. */
    const uint64_t refused = (0 - limit) % limit;
    uint64_t x;
    do {
        x = rng_u64(rng);
    } while (x < refused);
    return x % limit;
}

double psk_rng_uniform(psk_rng *rng) {
    return (double)(rng_u64(rng) >> 11) * 0x1p-53;
}

/* Two normal numbers from two words: 32 bits are enough for floats, and reach to 6.7 standard deviations. */
static void normal_pair(uint32_t a, uint32_t b, double pair[2]) {
    const double radius = sqrt(-2 * log(((double)a + 0.5) * 0x1p-32));
    const double angle = two_pi * 0x1p-32 * (double)b;
    pair[0] = radius * cos(angle);
    pair[1] = radius * sin(angle);
}

void psk_rng_fill_normal(float *x, int64_t n, float std, uint64_t seed, uint64_t stream) {
    for (int64_t i = 0; i < n; i += 4) {
        uint32_t words[4];
        double normal[4];
        psk_philox(seed, stream, (uint64_t)i / 4, words);
        normal_pair(words[0], words[1], normal);
        normal_pair(words[2], words[3], normal + 2);
        for (int64_t j = 0; j < 4 && i + j < n; j++)
            x[i + j] = (float)(std * normal[j]);
    }
}

uint64_t psk_rng_stream(const char *name) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    return hash;
}
