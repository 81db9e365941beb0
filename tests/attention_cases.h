/* Every form of attention in awkward sizes, its tensors and a run of it, for the tests of attention. */
#ifndef PSK_TESTS_ATTENTION_CASES_H
#define PSK_TESTS_ATTENTION_CASES_H

#include "support.h"

#include "attention/attention.h"
#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SEED  20231003u
#define LIMIT 1e-5

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* Composed of operations, as one fused operation, and composed again, of the fast operations. */
static const char *const devices[] = {"reference", "cpu", "cpu composed"};
#define DEVICES COUNT(devices)

static inline psk_device *open_device(const char *name, int threads) {
    psk_device *device;
    setenv("PSK_CPU_FUSED", strstr(name, "composed") != NULL ? "off" : "on", 1);
    PSK_TEST_OK(psk_device_create(strcmp(name, "reference") == 0 ? name : "cpu", threads, &device));
    return device;
}

/* One call to be made. */
typedef struct attention_case {
    psk_attention_config config;
    psk_attention_shape shape;
    const int64_t *cu_seqlens; /* NULL: none */
    int64_t documents;
    bool states;   /* state0 and dstate1 are given, state1 and dstate0 wanted */
    bool ones;     /* dout is 1 everywhere, as from a sum */
    float magnify; /* factor on q, k, a, b and v; 0 means 1 */
    uint64_t seed;
} attention_case;

static inline bool has_state(const attention_case *c) {
    return psk_attention_state_rows(&c->config) > 0 && c->states;
}

static inline int64_t state_floats(const attention_case *c) {
    return c->shape.B * c->shape.Hkv * psk_attention_state_rows(&c->config) * (c->shape.d + 1);
}

#define STATE(c) (has_state(c) ? state_floats(c) : 0)
#include "attention_tensors.h"

static inline void scale(float *x, int64_t n, float factor) {
    for (int64_t i = 0; i < n; i++)
        x[i] *= factor;
}

/* Sums of three keys, as a state before the sequence would be, so that no denominator comes near 0. */
static inline void fill_state(const attention_case *c, float *state) {
    const int64_t r = c->shape.r, d = c->shape.d, m = psk_attention_state_rows(&c->config);
    const int64_t groups = c->shape.B * c->shape.Hkv;
    float *b = psk_test_random(groups * 3 * r, c->seed, "state b"),
          *v = psk_test_random(groups * 3 * d, c->seed, "state v");
    memset(state, 0, (size_t)(groups * m * (d + 1)) * sizeof *state);
    for (int64_t row = 0; row < groups * 3; row++) {
        float *z = state + row / 3 * m * (d + 1);
        for (int64_t i = 0; i < r; i++)
            for (int64_t j = i; j < (c->config.mechanism == PSK_PERFORMER ? i + 1 : r); j++, z += d + 1) {
                const float w =
                    c->config.mechanism == PSK_PERFORMER ? fabsf(b[row * r + i]) : b[row * r + i] * b[row * r + j];
                for (int64_t col = 0; col <= d; col++)
                    z[col] += w * (col < d ? v[row * d + col] : 1.0f);
            }
    }
    psk_test_free(b);
    psk_test_free(v);
}

/* The size of products <q,k> for which the weights <q,k>^p of all keys add up to about 1, the size of beta: for
 * N(0, s^2) products the mean of a weight is s^p 1 3 5 ... (p-1). With sums far above beta the gradients would be what
 * is left of cancelling terms, in any arithmetic. */
static inline double product_size(const attention_case *c, int64_t p) {
    double sum = (double)c->shape.Nk;
    for (int64_t i = p - 1; i > 1; i -= 2)
        sum *= (double)i;
    return pow(sum, -1.0 / (double)p);
}

/* Sketches of the size; features of performer are positive, and their size cancels. */
static inline void fit_features(const attention_case *c, float *x, int64_t n, float size) {
    for (int64_t i = 0; i < n; i++)
        x[i] = c->config.mechanism == PSK_PERFORMER ? fabsf(x[i]) + 0.5f : x[i] * size;
}

/* Random inputs; the outputs NaN. */
static inline psk_attention_tensors make_tensors(const attention_case *c) {
    psk_attention_tensors t = {.cu_seqlens = c->cu_seqlens, .documents = c->documents};
    const float magnify = c->magnify != 0.0f ? c->magnify : 1.0f;
#define X(name, count)                                                                                                 \
    float *name = (count) > 0 ? psk_test_random(count, c->seed, #name) : NULL;                                         \
    t.name = name;
    INPUTS(X)
#undef X
#define X(name, count) t.name = (count) > 0 ? psk_test_buffer(count) : NULL;
    OUTPUTS(X)
#undef X
    const float qk_size = (float)(sqrt(product_size(c, c->config.degree)) * pow((double)c->shape.h, -0.25));
    const float ab_size = (float)(sqrt(product_size(c, 2)) * pow((double)c->shape.r + 1, -0.25));
    scale(q, QK(c, QUERIES(c) * c->shape.h), qk_size * magnify);
    scale(k, QK(c, KEYS(c) * c->shape.h), qk_size * magnify);
    scale(v, KEYS(c) * c->shape.d, magnify);
    fit_features(c, a, QUERIES(c) * c->shape.r, ab_size * magnify);
    fit_features(c, b, KEYS(c) * c->shape.r, ab_size * magnify);
    for (int64_t i = 0; c->ones && i < QUERIES(c) * c->shape.d; i++)
        dout[i] = 1.0f;
    if (state0 != NULL)
        fill_state(c, state0);
    return t;
}

static inline psk_attention_tensors run_threads(const char *device_name, int threads, const attention_case *c) {
    psk_attention_tensors t = make_tensors(c);
    psk_device *device = open_device(device_name, threads);
    PSK_TEST_OK(run_planned(device, &c->config, &c->shape, &t));
    psk_device_free(device);
    return t;
}

static inline psk_attention_tensors run(const char *device_name, const attention_case *c) {
    return run_threads(device_name, 2, c);
}

/* Everything that attention can be. Softmax and polynomial with a local part: nothing else is seen. */
typedef struct variant {
    psk_mechanism mechanism;
    psk_local local;
    psk_direction direction;
} variant;

static const variant variants[] = {
    {PSK_SOFTMAX, PSK_LOCAL_NONE, PSK_CAUSAL},     {PSK_SOFTMAX, PSK_LOCAL_NONE, PSK_BIDIRECTIONAL},
    {PSK_POLYNOMIAL, PSK_LOCAL_NONE, PSK_CAUSAL},  {PSK_POLYNOMIAL, PSK_LOCAL_NONE, PSK_BIDIRECTIONAL},
    {PSK_POLYSKETCH, PSK_LOCAL_NONE, PSK_CAUSAL},  {PSK_POLYSKETCH, PSK_LOCAL_NONE, PSK_BIDIRECTIONAL},
    {PSK_POLYSKETCH, PSK_LOCAL_BLOCK, PSK_CAUSAL}, {PSK_POLYSKETCH, PSK_LOCAL_WINDOW, PSK_CAUSAL},
    {PSK_PERFORMER, PSK_LOCAL_NONE, PSK_CAUSAL},   {PSK_PERFORMER, PSK_LOCAL_NONE, PSK_BIDIRECTIONAL},
    {PSK_SOFTMAX, PSK_LOCAL_BLOCK, PSK_CAUSAL},    {PSK_SOFTMAX, PSK_LOCAL_WINDOW, PSK_CAUSAL},
    {PSK_POLYNOMIAL, PSK_LOCAL_BLOCK, PSK_CAUSAL}, {PSK_POLYNOMIAL, PSK_LOCAL_WINDOW, PSK_CAUSAL},
};

/* The index-th of the awkward sizes: every combination of neighbours comes up among enough indices. */
static inline attention_case make_case(const variant *v, int64_t b, int64_t Nq, int64_t Nk, int64_t index) {
    static const int64_t h[] = {16, 1, 5}, d[] = {5, 16, 1, 7}, r[] = {3, 8, 1}, rep[] = {1, 3}, Hkv[] = {1, 2, 3};
    static const int64_t degree[] = {4, 2, 6, 10, 8};
    attention_case c = {.config = psk_attention_config_default(), .seed = SEED + (uint64_t)index};
    c.config.mechanism = v->mechanism;
    c.config.local = v->local;
    c.config.local_only = !psk_attention_uses_ab(&c.config) && v->local != PSK_LOCAL_NONE;
    c.config.direction = v->direction;
    c.config.degree = degree[index % 5];
    c.config.block_size = b;
    c.config.far_scale = index % 2 == 0 ? 1.0f : 0.25f;
    c.config.sketch_size = r[index / 2 % 3];
    c.shape = (psk_attention_shape){.B = 1 + index % 2,
                                    .H = rep[index / 3 % 2] * Hkv[index % 3],
                                    .Hkv = Hkv[index % 3],
                                    .Nq = Nq,
                                    .Nk = Nk,
                                    .h = h[index % 3],
                                    .d = d[index % 4],
                                    .r = psk_attention_uses_ab(&c.config) ? c.config.sketch_size : 0};
    return c;
}

static const int64_t boundaries[] = {0, 1, 2, 19, 42, 43, 84}; /* two rows of 42 */

static inline attention_case packed_case(size_t v, int64_t index) {
    attention_case c = make_case(&variants[v], 5, 42, 42, index);
    c.shape.B = 2;
    c.cu_seqlens = boundaries;
    c.documents = COUNT(boundaries) - 1;
    return c;
}

#endif
