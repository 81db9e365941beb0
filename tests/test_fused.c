/* Fused attention: float32 equals the composed form on every instruction set; threads change no bit; bfloat16 is at
 * most twice as far from the truth as the plain algorithm (the composed form, sums in float32) on inputs rounded to
 * bfloat16. */
#include "support.h"

#include "attention/attention.h"
#include "base/bf16.h"
#include "base/files.h"
#include "base/memory.h"
#include "io/safetensors.h"
#include "reference/ref_attention.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEED         20231007u
#define F32_LIMIT    1e-5
#define COUNT(array) ((int64_t)(sizeof(array) / sizeof(array)[0]))

typedef struct fused_case {
    psk_attention_config config;
    psk_attention_shape shape;
    int64_t *cu_seqlens; /* NULL: none */
    int64_t documents;
    bool states;
} fused_case;

#define STATE(c)                                                                                                       \
    ((c)->states ? (c)->shape.B * (c)->shape.Hkv * psk_attention_state_rows(&(c)->config) * ((c)->shape.d + 1) : 0)
#include "attention_tensors.h"

typedef enum attention_form { COMPOSED, FUSED } attention_form;

/* Copies of the inputs (rounded to bfloat16 if so wanted; states stay, they are never rounded) with outputs. */
static psk_attention_tensors run(const fused_case *c, const psk_attention_tensors *inputs, attention_form form,
                                 psk_precision precision, bool rounded, int threads) {
    psk_attention_tensors t = {.cu_seqlens = c->cu_seqlens, .documents = c->documents};
    psk_device *device;
#define X(name, count)                                                                                                 \
    if ((count) > 0) {                                                                                                 \
        float *copy = psk_test_buffer(count);                                                                          \
        const bool state = strstr(#name, "state") != NULL;                                                             \
        for (int64_t i = 0; i < (count); i++)                                                                          \
            copy[i] = rounded && !state ? psk_bf16_to_float(psk_bf16_from_float(inputs->name[i])) : inputs->name[i];   \
        t.name = copy;                                                                                                 \
    }
    INPUTS(X)
#undef X
#define X(name, count) t.name = (count) > 0 ? psk_test_buffer(count) : NULL;
    OUTPUTS(X)
#undef X
    setenv("PSK_CPU_FUSED", form == FUSED ? "on" : "off", 1);
    PSK_TEST_OK(psk_device_create("cpu", threads, &device));
    unsetenv("PSK_CPU_FUSED");
    if (device->has_bf16)
        PSK_TEST_OK(psk_device_set_precision(device, precision));
    PSK_TEST_OK(run_planned(device, &c->config, &c->shape, &t));
    psk_device_free(device);
    return t;
}

static bool device_has_bf16(void) {
    psk_device *device;
    PSK_TEST_OK(psk_device_create("cpu", 1, &device));
    const bool has = strstr(psk_device_description(device), "bfloat16") != NULL;
    psk_device_free(device);
    return has;
}

/* The size of products <q,k> for which the weights <q,k>^p of all keys add up to about 1, the size of beta: for
 * N(0, s^2) products the mean of a weight is s^p 1 3 5 ... (p-1). With sums far above beta the gradients would be what
 * is left of cancelling terms, in any arithmetic. */
static float factor_size(const fused_case *c, int64_t p, int64_t width) {
    double sum = (double)c->shape.Nk;
    for (int64_t i = p - 1; i > 1; i -= 2)
        sum *= (double)i;
    return (float)(pow(sum, -0.5 / (double)p) * pow((double)width, -0.25));
}

static void scale(float *x, int64_t n, float factor) {
    for (int64_t i = 0; i < n; i++)
        x[i] *= factor;
}

/* Sums of three keys, as a state before the sequence would be. */
static void fill_state(const fused_case *c, float size, float *state) {
    const int64_t r = c->shape.r, d = c->shape.d, m = psk_attention_state_rows(&c->config);
    const int64_t rows = 3 * c->shape.B * c->shape.Hkv;
    float *b = psk_test_random(rows * r, SEED, "state b"), *v = psk_test_random(rows * d, SEED, "state v");
    scale(b, rows * r, size);
    memset(state, 0, (size_t)(rows / 3 * m * (d + 1)) * sizeof *state);
    for (int64_t row = 0; row < rows; row++) {
        float *z = state + row / 3 * m * (d + 1);
        for (int64_t i = 0; i < r; i++)
            for (int64_t j = i; j < r; j++)
                for (int64_t col = 0; col <= d; col++)
                    *z++ += b[row * r + i] * b[row * r + j] * (col < d ? v[row * d + col] : 1.0f);
    }
    psk_test_free(b);
    psk_test_free(v);
}

/* Factors on random inputs. */
typedef struct input_sizes {
    float qk, ab, v, dout; /* dout: of dstate1 too */
} input_sizes;

static const input_sizes unit_sizes = {1, 1, 1, 1};

static psk_attention_tensors random_inputs(const fused_case *c, input_sizes size) {
    psk_attention_tensors t = {0};
#define X(name, count)                                                                                                 \
    float *name = (count) > 0 ? psk_test_random(count, SEED, #name) : NULL;                                            \
    t.name = name;
    INPUTS(X)
#undef X
    const float qk = factor_size(c, c->config.degree, c->shape.h), ab = factor_size(c, 2, c->shape.r + 1);
    scale(q, QK(c, QUERIES(c) * c->shape.h), qk * size.qk);
    scale(k, QK(c, KEYS(c) * c->shape.h), qk * size.qk);
    scale(v, KEYS(c) * c->shape.d, size.v);
    scale(a, QUERIES(c) * c->shape.r, ab * size.ab);
    scale(b, KEYS(c) * c->shape.r, ab * size.ab);
    scale(dout, QUERIES(c) * c->shape.d, size.dout);
    scale(dstate1, STATE(c), size.dout);
    if (state0 != NULL)
        fill_state(c, ab, state0);
    return t;
}

typedef struct variant {
    psk_mechanism mechanism;
    psk_local local;
    psk_direction direction;
} variant;

/* All that is fused. Softmax and polynomial with a local part: nothing else is seen. */
static const variant variants[] = {
    {PSK_SOFTMAX, PSK_LOCAL_NONE, PSK_CAUSAL},      {PSK_SOFTMAX, PSK_LOCAL_NONE, PSK_BIDIRECTIONAL},
    {PSK_POLYNOMIAL, PSK_LOCAL_NONE, PSK_CAUSAL},   {PSK_POLYNOMIAL, PSK_LOCAL_NONE, PSK_BIDIRECTIONAL},
    {PSK_POLYSKETCH, PSK_LOCAL_NONE, PSK_CAUSAL},   {PSK_POLYSKETCH, PSK_LOCAL_BLOCK, PSK_CAUSAL},
    {PSK_POLYSKETCH, PSK_LOCAL_WINDOW, PSK_CAUSAL}, {PSK_SOFTMAX, PSK_LOCAL_BLOCK, PSK_CAUSAL},
    {PSK_SOFTMAX, PSK_LOCAL_WINDOW, PSK_CAUSAL},    {PSK_POLYNOMIAL, PSK_LOCAL_BLOCK, PSK_CAUSAL},
    {PSK_POLYNOMIAL, PSK_LOCAL_WINDOW, PSK_CAUSAL}};

/* B H Hkv Nq Nk h d r, block, whether there is a state (then a sequence is never short: all far keys pair by pair).
 * Sizes 1 less and more than vectors, tiles and chunks; one as models have it. */
static const struct fused_size {
    psk_attention_shape shape;
    int64_t block;
    bool states;
} sizes[] = {
    {{2, 2, 1, 67, 67, 5, 7, 3}, 16, true},        {{1, 3, 3, 33, 97, 17, 31, 8}, 13, true},
    {{1, 2, 2, 257, 257, 64, 64, 32}, 128, false}, {{1, 4, 2, 95, 511, 33, 15, 17}, 255, true},
    {{1, 1, 1, 613, 613, 16, 65, 9}, 300, true},   {{2, 1, 1, 49, 49, 1, 1, 2}, 5, false},
    {{1, 6, 2, 130, 130, 31, 48, 15}, 1, true},    {{1, 4, 2, 95, 211, 33, 15, 17}, 31, false},
    {{1, 2, 1, 331, 331, 16, 24, 4}, 30, false},   {{1, 2, 2, 700, 700, 40, 33, 24}, 100, false},
    {{1, 2, 2, 257, 257, 64, 64, 32}, 128, true},
};

static fused_case make_case(int64_t v, int64_t s) {
    static const int64_t degree[] = {4, 2, 8, 6};
    fused_case c = {.config = psk_attention_config_default(), .shape = sizes[s].shape};
    c.config.mechanism = variants[v].mechanism;
    c.config.local = variants[v].local;
    c.config.local_only = !psk_attention_uses_ab(&c.config) && variants[v].local != PSK_LOCAL_NONE;
    c.config.direction = variants[v].direction;
    c.config.degree = degree[(v + s) % COUNT(degree)];
    c.config.block_size = sizes[s].block;
    if (c.config.local_only && c.config.local == PSK_LOCAL_BLOCK && c.config.block_size == 1)
        c.config.block_size = 2; /* a softmax of one key has no gradient to compare */
    c.config.far_scale = s % 2 == 0 ? 1.0f : 0.25f;
    c.config.sketch_size = c.shape.r;
    c.states = c.config.mechanism == PSK_POLYSKETCH && sizes[s].states;
    if (!psk_attention_uses_ab(&c.config))
        c.shape.r = 0;
    return c;
}

static void describe(const fused_case *c, const char *name, double error, double limit) {
    const psk_attention_shape *s = &c->shape;
    print_message("%s: error %.2e, limit %.2e: %s local %s %s degree %d b %d, B %d H %d Hkv %d Nq %d Nk %d h %d d %d "
                  "r %d%s, seed %u\n",
                  name, error, limit, psk_mechanism_name(c->config.mechanism), psk_local_name(c->config.local),
                  c->config.direction == PSK_CAUSAL ? "causal" : "bidirectional", (int)c->config.degree,
                  (int)c->config.block_size, (int)s->B, (int)s->H, (int)s->Hkv, (int)s->Nq, (int)s->Nk, (int)s->h,
                  (int)s->d, (int)s->r, c->states ? " states" : "", SEED);
}

/* Compares every output of got with want. Returns the number that are too far. */
static int compare(const fused_case *c, const psk_attention_tensors *got, const psk_attention_tensors *want) {
    int failures = 0;
#define X(name, count)                                                                                                 \
    if (want->name != NULL) {                                                                                          \
        const double error = psk_test_relative_rms(got->name, want->name, count);                                      \
        if (!(error <= F32_LIMIT)) {                                                                                   \
            describe(c, #name, error, F32_LIMIT);                                                                      \
            failures++;                                                                                                \
        }                                                                                                              \
    }
    OUTPUTS(X)
#undef X
    return failures;
}

static void float32_equals_the_composed_form(void **state) {
    (void)state;
    static const char *const isas[] = {"baseline", "avx2", "avx512"};
    int failures = 0;
    const char *set = getenv("PSK_CPU_ISA");
    char before[32] = "";
    snprintf(before, sizeof before, "%s", set != NULL ? set : "");
    for (int64_t isa = 0; isa < COUNT(isas); isa++) {
        psk_device *device;
        setenv("PSK_CPU_ISA", isas[isa], 1);
        const bool here = psk_device_create("cpu", 1, &device) == PSK_OK;
        psk_device_free(here ? device : NULL);
        for (int64_t v = 0; here && v < COUNT(variants); v++)
            for (int64_t s = 0; s < COUNT(sizes); s++) {
                const fused_case c = make_case(v, s);
                psk_attention_tensors inputs = random_inputs(&c, unit_sizes);
                psk_attention_tensors want = run(&c, &inputs, COMPOSED, PSK_PRECISION_F32, false, 2);
                psk_attention_tensors got = run(&c, &inputs, FUSED, PSK_PRECISION_F32, false, 2);
                failures += compare(&c, &got, &want);
                free_tensors(&inputs);
                free_tensors(&want);
                free_tensors(&got);
            }
    }
    if (before[0] != '\0')
        setenv("PSK_CPU_ISA", before, 1);
    else
        unsetenv("PSK_CPU_ISA");
    assert_int_equal(failures, 0);
}

/* Returns the number of outputs whose bits differ. */
static int compare_bits(const fused_case *c, const psk_attention_tensors *got, const psk_attention_tensors *want) {
    int failures = 0;
#define X(name, count)                                                                                                 \
    if (want->name != NULL && memcmp(got->name, want->name, (size_t)(count) * sizeof(float)) != 0) {                   \
        describe(c, #name, psk_test_relative_rms(got->name, want->name, count), 0.0);                                  \
        failures++;                                                                                                    \
    }
    OUTPUTS(X)
#undef X
    return failures;
}

static fused_case threads_case(int64_t v, int64_t s) {
    static const psk_attention_shape shapes[] = {
        {1, 1, 1, 700, 700, 24, 40, 12}, {1, 6, 3, 329, 413, 17, 31, 9}, {1, 1, 1, 1, 200, 16, 16, 8}};
    fused_case c = make_case(v, s);
    c.shape = shapes[s];
    c.config.block_size = 64 + 27 * s;
    c.config.sketch_size = c.shape.r;
    if (!psk_attention_uses_ab(&c.config))
        c.shape.r = 0;
    return c;
}

/* One group is shared by all threads, three groups by uneven teams. */
static void bits_do_not_depend_on_threads(void **state) {
    (void)state;
    static const int threads[] = {2, 3, 8};
    int failures = 0;
    for (int64_t i = 0; i < COUNT(variants) * 3 * 2; i++) {
        const fused_case c = threads_case(i / 6, i / 2 % 3);
        const psk_precision precision = i % 2 == 0 ? PSK_PRECISION_F32 : PSK_PRECISION_BF16;
        psk_attention_tensors inputs = random_inputs(&c, unit_sizes);
        psk_attention_tensors want = run(&c, &inputs, FUSED, precision, false, 1);
        for (int64_t t = 0; t < COUNT(threads); t++) {
            psk_attention_tensors got = run(&c, &inputs, FUSED, precision, false, threads[t]);
            failures += compare_bits(&c, &got, &want);
            free_tensors(&got);
        }
        free_tensors(&inputs);
        free_tensors(&want);
    }
    assert_int_equal(failures, 0);
}

/* Every output of bfloat16 at most twice as far from `want` as that of the plain algorithm. Returns failures. */
static int check_bf16(const fused_case *c, const psk_attention_tensors *inputs, const psk_attention_tensors *want) {
    int failures = 0;
    psk_attention_tensors plain = run(c, inputs, COMPOSED, PSK_PRECISION_F32, true, 2);
    psk_attention_tensors got = run(c, inputs, FUSED, PSK_PRECISION_BF16, false, 2);
#define X(name, count)                                                                                                 \
    if (want->name != NULL) {                                                                                          \
        const double limit = 2.0 * psk_test_relative_rms(plain.name, want->name, count);                               \
        const double error = psk_test_relative_rms(got.name, want->name, count);                                       \
        if (!(error <= limit)) {                                                                                       \
            describe(c, #name, error, limit);                                                                          \
            failures++;                                                                                                \
        }                                                                                                              \
    }
    OUTPUTS(X)
#undef X
    free_tensors(&plain);
    free_tensors(&got);
    return failures;
}

/* The outputs by definition, in double, stored as floats. */
static psk_attention_tensors by_definition(const fused_case *c, const psk_attention_tensors *inputs) {
    psk_attention_tensors t = {0};
    psk_ref_attention_tensors want = {.cu_seqlens = c->cu_seqlens, .documents = c->documents};
#define X(name, count)                                                                                                 \
    double *name = (count) > 0 ? test_malloc((size_t)(count) * sizeof *name) : NULL;                                   \
    want.name = name;
    INPUTS(X)
    OUTPUTS(X)
#undef X
#define X(name, count)                                                                                                 \
    for (int64_t i = 0; i < (count); i++)                                                                              \
        name[i] = inputs->name[i];
    INPUTS(X)
#undef X
    PSK_TEST_OK(psk_ref_attention_forward(&c->config, &c->shape, &want));
    PSK_TEST_OK(psk_ref_attention_backward(&c->config, &c->shape, &want));
#define X(name, count)                                                                                                 \
    t.name = (count) > 0 ? psk_test_buffer(count) : NULL;                                                              \
    for (int64_t i = 0; i < (count); i++)                                                                              \
        t.name[i] = (float)name[i];
    OUTPUTS(X)
#undef X
#define X(name, count) test_free(name);
    INPUTS(X)
    OUTPUTS(X)
#undef X
    return t;
}

static void bfloat16_is_near_the_definition(void **state) {
    (void)state;
    int failures = 0;
    if (!device_has_bf16())
        skip();
    for (int64_t v = 0; v < COUNT(variants); v++)
        for (int64_t s = 0; s < COUNT(sizes); s++) {
            const fused_case c = make_case(v, s);
            psk_attention_tensors inputs = random_inputs(&c, unit_sizes), want = by_definition(&c, &inputs);
            failures += check_bf16(&c, &inputs, &want);
            free_tensors(&inputs);
            free_tensors(&want);
        }
    assert_int_equal(failures, 0);
}

static int count_infinite(const fused_case *c, const psk_attention_tensors *t) {
    int failures = 0;
#define X(name, count)                                                                                                 \
    for (int64_t i = 0; i < (count); i++)                                                                              \
        if (!isfinite(t->name[i])) {                                                                                   \
            describe(c, #name, (double)t->name[i], INFINITY);                                                          \
            failures++;                                                                                                \
            break;                                                                                                     \
        }
    OUTPUTS(X)
#undef X
    return failures;
}

/* Weights far above beta, sums below the largest float. */
static void bfloat16_is_finite_with_large_activations(void **state) {
    (void)state;
    int failures = 0;
    if (!device_has_bf16())
        skip();
    for (int64_t v = 0; v < COUNT(variants); v++)
        for (int64_t s = 0; s < COUNT(sizes); s++) {
            const fused_case c = make_case(v, s);
            const float magnify = c.config.degree > 4 ? 30.0f : 1000.0f;
            psk_attention_tensors inputs = random_inputs(&c, (input_sizes){magnify, magnify, magnify, 1});
            psk_attention_tensors t = run(&c, &inputs, FUSED, PSK_PRECISION_BF16, false, 2);
            failures += count_infinite(&c, &t);
            free_tensors(&inputs);
            free_tensors(&t);
        }
    assert_int_equal(failures, 0);
}

/* Gradients with weights of 1e24, as degree 16 gives them, for an output gradient that is 2^-60 of the other. */
static int compare_scaled_gradients(const fused_case *c, psk_precision precision) {
    const input_sizes large = {5.6f, 5.6e5f, 1, 1}, small = {5.6f, 5.6e5f, 1, 0x1p-60f};
    psk_attention_tensors inputs = random_inputs(c, large), small_inputs = random_inputs(c, small);
    psk_attention_tensors want = run(c, &inputs, FUSED, precision, false, 2),
                          got = run(c, &small_inputs, FUSED, precision, false, 2);
    int failures = 0;
#define X(name, count)                                                                                                 \
    if ((count) > 0 && #name[0] == 'd') {                                                                              \
        scale(got.name, count, 0x1p60f);                                                                               \
        const double error = psk_test_relative_rms(got.name, want.name, count);                                        \
        if (!(error <= F32_LIMIT)) {                                                                                   \
            describe(c, #name, error, F32_LIMIT);                                                                      \
            failures++;                                                                                                \
        }                                                                                                              \
    }
    OUTPUTS(X)
#undef X
    free_tensors(&inputs);
    free_tensors(&small_inputs);
    free_tensors(&want);
    free_tensors(&got);
    return failures;
}

/* Both are scaled by a power of two, which changes no bit of anything that is neither too large nor too small. */
static void small_gradients_are_not_lost(void **state) {
    (void)state;
    const psk_precision last = device_has_bf16() ? PSK_PRECISION_BF16 : PSK_PRECISION_F32;
    int failures = 0;
    for (int64_t v = 0; v < COUNT(variants); v++)
        for (int64_t s = 0; s < COUNT(sizes); s++) {
            fused_case c = make_case(v, s);
            if (c.config.mechanism == PSK_SOFTMAX || (v + s) % 3 != 0) /* each variant with every third size */
                continue;
            c.config.degree = 16;
            for (psk_precision precision = PSK_PRECISION_F32; precision <= last; precision++)
                failures += compare_scaled_gradients(&c, precision);
        }
    assert_int_equal(failures, 0);
}

static int64_t size_of(const psk_safetensors *file, const char *name, int64_t dim) {
    const psk_tensor_view *view = psk_safetensors_find(file, name);
    return view != NULL && dim < view->dims ? view->shape[dim] : 0;
}

static double metadata(const psk_safetensors *file, const char *key, double otherwise) {
    const char *text = psk_safetensors_metadata(file, key);
    return text != NULL ? strtod(text, NULL) : otherwise;
}

/* NULL if the file has no such tensor. */
static float *load(const psk_safetensors *file, const char *name) {
    const psk_tensor_view *view = psk_safetensors_find(file, name);
    if (view == NULL)
        return NULL;
    float *x = psk_test_buffer(view->count);
    PSK_TEST_OK(psk_safetensors_read_floats(file, name, view->dims, view->shape, x));
    return x;
}

/* States: the files have the unpacked r x r; we store e(i,j) for i <= j. The gradient of a pair i < j is the sum of two
 * places. */
static float *load_state(const psk_safetensors *file, const char *name) {
    float *x = load(file, name);
    if (x == NULL)
        return NULL;
    const bool gradient = name[0] == 'd';
    const int64_t r = size_of(file, name, 2), n = size_of(file, name, 4),
                  groups = size_of(file, name, 0) * size_of(file, name, 1);
    float *packed = psk_test_buffer(groups * r * (r + 1) / 2 * n), *next = packed;
    for (int64_t group = 0; group < groups; group++)
        for (int64_t i = 0; i < r; i++)
            for (int64_t j = i; j < r; j++)
                for (int64_t c = 0; c < n; c++) {
                    const float ij = x[((group * r + i) * r + j) * n + c], ji = x[((group * r + j) * r + i) * n + c];
                    *next++ = gradient && i != j ? ij + ji : ij;
                }
    psk_test_free(x);
    return packed;
}

static int64_t *load_boundaries(const psk_safetensors *file, int64_t *documents) {
    const psk_tensor_view *view = psk_safetensors_find(file, "cu_seqlens");
    if (view == NULL)
        return NULL;
    int64_t *boundaries = test_malloc((size_t)view->count * sizeof *boundaries);
    for (int64_t i = 0; i < view->count; i++) {
        int32_t value;
        memcpy(&value, (const char *)view->data + (size_t)i * sizeof value, sizeof value);
        boundaries[i] = value;
    }
    *documents = view->count - 1;
    return boundaries;
}

static psk_mechanism golden_mechanism(const char *name) {
    return strstr(name, "softmax") ? PSK_SOFTMAX : strstr(name, "polynomial") ? PSK_POLYNOMIAL : PSK_POLYSKETCH;
}

static fused_case golden_case(const psk_safetensors *file) {
    const char *mechanism = psk_safetensors_metadata(file, "mechanism");
    fused_case c = {.config = psk_attention_config_default()};
    psk_attention_config *config = &c.config;
    config->mechanism = golden_mechanism(mechanism);
    config->direction = strcmp(psk_safetensors_metadata(file, "causal"), "true") == 0 ? PSK_CAUSAL : PSK_BIDIRECTIONAL;
    config->local = strstr(mechanism, "window")  ? PSK_LOCAL_WINDOW
                    : strstr(mechanism, "local") ? PSK_LOCAL_BLOCK
                                                 : PSK_LOCAL_NONE;
    config->degree = (int64_t)metadata(file, "degree", 4);
    config->denominator_bias = (float)metadata(file, "denominator_bias", 1);
    config->block_size = (int64_t)metadata(file, "block_size", 16);
    config->sketch_size = size_of(file, "a", 3);
    c.shape = (psk_attention_shape){.B = size_of(file, "out", 0),
                                    .H = size_of(file, "out", 1),
                                    .Hkv = size_of(file, "v", 1),
                                    .Nq = size_of(file, "out", 2),
                                    .Nk = size_of(file, "v", 2),
                                    .h = psk_attention_uses_qk(config) ? size_of(file, "q", 3) : 1,
                                    .d = size_of(file, "out", 3),
                                    .r = config->sketch_size};
    c.states = size_of(file, "state0", 0) > 0;
    c.cu_seqlens = load_boundaries(file, &c.documents);
    return c;
}

static int check_golden_file(const char *path) {
    psk_safetensors *file;
    PSK_TEST_OK(psk_safetensors_open(path, &file));
    const fused_case c = golden_case(file);
    psk_attention_tensors inputs = {0}, want = {0};
#define X(name, count) inputs.name = strstr(#name, "state") ? load_state(file, #name) : load(file, #name);
    INPUTS(X)
#undef X
#define X(name, count)                                                                                                 \
    want.name = !strstr(#name, "state") ? load(file, #name) : (c.states ? load_state(file, #name) : NULL);
    OUTPUTS(X)
#undef X
    assert_non_null(want.out);
    const int failures = check_bf16(&c, &inputs, &want);
    if (failures > 0)
        print_message("in %s\n", path);
    free_tensors(&inputs);
    free_tensors(&want);
    test_free(c.cu_seqlens);
    psk_safetensors_close(file);
    return failures;
}

/* Performer's files hold no features, and performer is not fused. */
static void bfloat16_is_near_the_golden_files(void **state) {
    (void)state;
    char **names;
    int64_t count, files = 0;
    int failures = 0;
    if (!device_has_bf16())
        skip();
    PSK_TEST_OK(psk_list_folder(PSK_GOLDEN_DIR, &names, &count));
    for (int64_t i = 0; i < count; i++) {
        char path[1024];
        if (strncmp(names[i], "attention_", 10) != 0 || strstr(names[i], "performer") != NULL)
            continue;
        snprintf(path, sizeof path, "%s/%s", PSK_GOLDEN_DIR, names[i]);
        failures += check_golden_file(path);
        files++;
    }
    psk_free_names(names, count);
    assert_true(files > 0);
    assert_int_equal(failures, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float32_equals_the_composed_form), cmocka_unit_test(bits_do_not_depend_on_threads),
        cmocka_unit_test(bfloat16_is_near_the_definition),  cmocka_unit_test(bfloat16_is_finite_with_large_activations),
        cmocka_unit_test(small_gradients_are_not_lost),     cmocka_unit_test(bfloat16_is_near_the_golden_files),
    };
    const struct CMUnitTest vectors[] = {
        cmocka_unit_test(bfloat16_is_near_the_definition),
        cmocka_unit_test(small_gradients_are_not_lost),
        cmocka_unit_test(bfloat16_is_near_the_golden_files),
    };
    int failures = cmocka_run_group_tests_name("fused", tests, NULL, NULL);
    if (psk_test_force_isa("avx512")) /* the best may have been tiles */
        failures += cmocka_run_group_tests_name("fused, bfloat16 in vectors", vectors, NULL, NULL);
    return failures;
}
