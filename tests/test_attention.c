/* Attention against its definition, and what must hold whatever the mechanism. */
#include "support.h"

#include "attention/attention.h"
#include "base/memory.h"
#include "base/rng.h"
#include "reference/ref_attention.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEED  20231003u
#define LIMIT 1e-5

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* Composed of operations, as one fused operation, and composed again, of the fast operations. */
static const char *const devices[] = {"reference", "cpu", "cpu composed"};
#define DEVICES COUNT(devices)

static psk_device *open_device(const char *name, int threads) {
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

static bool has_state(const attention_case *c) {
    return psk_attention_state_rows(&c->config) > 0 && c->states;
}

static int64_t state_floats(const attention_case *c) {
    return c->shape.B * c->shape.Hkv * psk_attention_state_rows(&c->config) * (c->shape.d + 1);
}

#define STATE(c) (has_state(c) ? state_floats(c) : 0)
#include "attention_tensors.h"

static void scale(float *x, int64_t n, float factor) {
    for (int64_t i = 0; i < n; i++)
        x[i] *= factor;
}

/* Sums of three keys, as a state before the sequence would be, so that no denominator comes near 0. */
static void fill_state(const attention_case *c, float *state) {
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
static double product_size(const attention_case *c, int64_t p) {
    double sum = (double)c->shape.Nk;
    for (int64_t i = p - 1; i > 1; i -= 2)
        sum *= (double)i;
    return pow(sum, -1.0 / (double)p);
}

/* Sketches of the size; features of performer are positive, and their size cancels. */
static void fit_features(const attention_case *c, float *x, int64_t n, float size) {
    for (int64_t i = 0; i < n; i++)
        x[i] = c->config.mechanism == PSK_PERFORMER ? fabsf(x[i]) + 0.5f : x[i] * size;
}

/* Random inputs; the outputs NaN. */
static psk_attention_tensors make_tensors(const attention_case *c) {
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

static void free_tensors(psk_attention_tensors *t) {
#define X(name, count) psk_test_free((float *)t->name);
    INPUTS(X)
    OUTPUTS(X)
#undef X
}

/* Forward and backward in a workspace full of NaN. */
static psk_status run_planned(psk_device *device, const attention_case *c, const psk_attention_tensors *t) {
    psk_arena *arena;
    psk_attention *attention = NULL;
    psk_status status;
    PSK_TRY(psk_arena_create(&arena));
    PSK_TRY_GOTO(status, psk_attention_plan(device, &c->config, &c->shape, arena, &attention), done);
    PSK_TRY_GOTO(status, psk_arena_commit(arena, PSK_FILL_NAN), done);
    PSK_TRY_GOTO(status, psk_attention_forward(attention, t), done);
    status = psk_attention_backward(attention, t);
done:
    psk_attention_free(attention);
    psk_arena_free(arena);
    return status;
}

static psk_attention_tensors run_threads(const char *device_name, int threads, const attention_case *c) {
    psk_attention_tensors t = make_tensors(c);
    psk_device *device = open_device(device_name, threads);
    PSK_TEST_OK(run_planned(device, c, &t));
    psk_device_free(device);
    return t;
}

static psk_attention_tensors run(const char *device_name, const attention_case *c) {
    return run_threads(device_name, 2, c);
}

static double *to_double(const float *x, int64_t n) {
    double *y = test_malloc((size_t)(n + 1) * sizeof *y);
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i];
    return y;
}

static void describe(const char *device_name, const attention_case *c) {
    const psk_attention_shape *s = &c->shape;
    print_message("%s %s local %s %s degree %d b %d, B %d H %d Hkv %d Nq %d Nk %d h %d d %d r %d, seed %u\n",
                  device_name, psk_mechanism_name(c->config.mechanism), psk_local_name(c->config.local),
                  c->config.direction == PSK_CAUSAL ? "causal" : "bidirectional", (int)c->config.degree,
                  (int)c->config.block_size, (int)s->B, (int)s->H, (int)s->Hkv, (int)s->Nq, (int)s->Nk, (int)s->h,
                  (int)s->d, (int)s->r, (unsigned)c->seed);
}

/* Every query sees one key, itself. */
static bool sees_one_key(const attention_case *c) {
    const int64_t first = c->shape.Nk - c->shape.Nq, b = c->config.block_size;
    if (c->shape.Nk == 1)
        return !c->states;
    return c->config.local_only && c->config.local == PSK_LOCAL_BLOCK &&
           (b == 1 || (c->shape.Nq == 1 && first % b == 0));
}

/* Where beta is 0 the output of one key is its value whatever the weight, and one feature of a query cancels: such
 * gradients are 0, and what rounding leaves of them is compared with 1, the size of all inputs. */
static bool gradient_vanishes(const attention_case *c, const char *name) {
    const bool of_query = strcmp(name, "dq") == 0 || strcmp(name, "da") == 0;
    const bool of_key = strcmp(name, "dk") == 0 || strcmp(name, "db") == 0;
    if (c->config.mechanism == PSK_PERFORMER && c->shape.r == 1 && of_query)
        return true;
    const bool unbiased = c->config.mechanism == PSK_SOFTMAX || c->config.mechanism == PSK_PERFORMER;
    return (of_query || of_key) && unbiased && sees_one_key(c);
}

static double error_of(const attention_case *c, const char *name, const float *got, const double *want, int64_t n) {
    if (!gradient_vanishes(c, name))
        return psk_test_relative_rms_double(got, want, n);
    double worst = 0;
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= worst))
            worst = fabs(got[i] - want[i]);
    return worst;
}

static void check_case(const char *device_name, const attention_case *c) {
    psk_attention_tensors t = run(device_name, c);
    psk_ref_attention_tensors want = {.cu_seqlens = c->cu_seqlens, .documents = c->documents};
    double worst = 0;
#define X(name, count)                                                                                                 \
    double *name = t.name != NULL ? to_double(t.name, count) : NULL;                                                   \
    want.name = name;
    INPUTS(X)
    OUTPUTS(X)
#undef X
    PSK_TEST_OK(psk_ref_attention_forward(&c->config, &c->shape, &want));
    PSK_TEST_OK(psk_ref_attention_backward(&c->config, &c->shape, &want));
#define X(name, count)                                                                                                 \
    if (t.name != NULL) {                                                                                              \
        const double error = error_of(c, #name, t.name, name, count);                                                  \
        if (!(error <= LIMIT))                                                                                         \
            print_message("%s: error %.2e\n", #name, error);                                                           \
        if (!(error <= worst))                                                                                         \
            worst = error;                                                                                             \
    }
    OUTPUTS(X)
#undef X
    if (!(worst <= LIMIT)) {
        describe(device_name, c);
        fail_msg("largest relative error %.2e, limit %.2e", worst, LIMIT);
    }
#define X(name, count) test_free(name);
    INPUTS(X)
    OUTPUTS(X)
#undef X
    free_tensors(&t);
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
static attention_case make_case(const variant *v, int64_t b, int64_t Nq, int64_t Nk, int64_t index) {
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

static const int64_t blocks[] = {1, 5, 16, 70}; /* 70: more than one tile of queries */

static void equals_its_definition(void **state) {
    (void)state;
    int64_t index = 0;
    for (size_t v = 0; v < COUNT(variants); v++)
        for (size_t i = 0; i < COUNT(blocks); i++) {
            const int64_t b = blocks[i];
            const int64_t lengths[] = {1, 2, b > 1 ? b - 1 : 3, b, b + 1, 2 * b, 2 * b + 1, 3 * b + 5};
            for (size_t n = 0; n < COUNT(lengths); n++, index++) {
                const attention_case c = make_case(&variants[v], b, lengths[n], lengths[n], index);
                for (size_t device = 0; device < DEVICES; device++)
                    check_case(devices[device], &c);
            }
        }
}

/* More keys than one tile of keys, and than one fold. */
static void equals_its_definition_across_tiles(void **state) {
    (void)state;
    for (size_t v = 0; v < COUNT(variants); v++) {
        attention_case c = make_case(&variants[v], 300, 613, 613, (int64_t)v);
        c.shape.B = 1;
        c.shape.H = c.shape.Hkv;
        for (size_t device = 0; device < DEVICES; device++)
            check_case(devices[device], &c);
    }
}

/* So many groups of so large a state that the composed form works on some of them at a time. */
static void equals_its_definition_with_many_groups(void **state) {
    (void)state;
    static const size_t some[] = {0, 7, 8, 11}; /* softmax, window, performer, softmax's window: the oracle is slow */
    for (size_t i = 0; i < COUNT(some); i++)
        for (size_t device = 0; device < DEVICES; device++) {
            attention_case c = make_case(&variants[some[i]], 16, 3, 130, 1);
            c.shape.B = 11;
            c.shape.H = 4;
            c.shape.Hkv = 2;
            c.config.sketch_size = 64;
            c.shape.r = psk_attention_uses_ab(&c.config) ? 64 : 0;
            c.states = true;
            check_case(devices[device], &c);
        }
}

static void equals_its_definition_with_a_cache(void **state) {
    (void)state;
    int64_t index = 0;
    for (size_t v = 0; v < COUNT(variants); v++)
        for (size_t i = 0; i < COUNT(blocks); i++) {
            const int64_t b = blocks[i], Nk = 2 * b + 3, queries[] = {1, 2, b, b + 1, Nk - 1};
            for (size_t n = 0; n < COUNT(queries); n++, index++) {
                const attention_case c = make_case(&variants[v], b, queries[n], Nk, index);
                for (size_t device = 0; device < DEVICES; device++)
                    check_case(devices[device], &c);
            }
        }
}

/* Bidirectional attention to fewer keys than queries. */
static void equals_its_definition_with_few_keys(void **state) {
    (void)state;
    for (size_t v = 0; v < COUNT(variants); v++)
        for (size_t device = 0; device < DEVICES && variants[v].direction == PSK_BIDIRECTIONAL; device++) {
            const attention_case c = make_case(&variants[v], 16, 67, 9, (int64_t)v);
            check_case(devices[device], &c);
        }
}

static void equals_its_definition_with_states(void **state) {
    (void)state;
    int64_t index = 0;
    for (size_t v = 0; v < COUNT(variants); v++)
        for (size_t i = 0; i < COUNT(blocks); i++) {
            const int64_t b = blocks[i], lengths[] = {1, b, b + 1, 2 * b, 3 * b + 2};
            for (size_t n = 0; n < COUNT(lengths); n++, index++) {
                attention_case c = make_case(&variants[v], b, (lengths[n] + 1) / 2, lengths[n], index);
                c.states = true;
                for (size_t device = 0; device < DEVICES && has_state(&c); device++)
                    check_case(devices[device], &c);
            }
        }
}

static const int64_t boundaries[] = {0, 1, 2, 19, 42, 43, 84}; /* two rows of 42 */

static attention_case packed_case(size_t v, int64_t index) {
    attention_case c = make_case(&variants[v], 5, 42, 42, index);
    c.shape.B = 2;
    c.cu_seqlens = boundaries;
    c.documents = COUNT(boundaries) - 1;
    return c;
}

static void equals_its_definition_with_documents(void **state) {
    (void)state;
    for (size_t v = 0; v < COUNT(variants); v++)
        for (int64_t index = 0; index < 3; index++)
            for (size_t device = 0; device < DEVICES; device++) {
                const attention_case c = packed_case(v, index);
                check_case(devices[device], &c);
            }
}

static void takes_the_gradient_of_a_sum(void **state) {
    (void)state;
    for (size_t v = 0; v < COUNT(variants); v++)
        for (size_t device = 0; device < DEVICES; device++) {
            attention_case c = make_case(&variants[v], 5, 17, 17, (int64_t)v);
            c.ones = true;
            check_case(devices[device], &c);
        }
}

/* Rows first ... first + rows - 1 of each of `heads` heads of N rows. */
static float *cut_rows(const float *x, int64_t heads, int64_t N, int64_t width, int64_t first, int64_t rows) {
    if (x == NULL)
        return NULL;
    float *y = psk_test_buffer(heads * rows * width);
    for (int64_t head = 0; head < heads; head++)
        memcpy(y + head * rows * width, x + (head * N + first) * width, (size_t)(rows * width) * sizeof *y);
    return y;
}

static void paste_rows(float *x, int64_t heads, int64_t N, int64_t width, int64_t first, int64_t rows, const float *y) {
    for (int64_t head = 0; head < heads; head++)
        memcpy(x + (head * N + first) * width, y + head * rows * width, (size_t)(rows * width) * sizeof *y);
}

/* Queries from ... to - 1 with the keys of the tail before them. Carries state (in place) and the tail's length on. */
static void run_piece(psk_device *device, const attention_case *c, const psk_attention_tensors *whole, int64_t from,
                      int64_t to, int64_t *tail, float *carried, float *out) {
    const psk_attention_shape *s = &c->shape;
    const int64_t queries = s->B * s->H, keys = s->B * s->Hkv, N = s->Nq, first = from - *tail, Nk = to - first;
    psk_attention_shape shape = *s;
    shape.Nq = to - from;
    shape.Nk = Nk;
    psk_attention_tensors t = {.q = cut_rows(whole->q, queries, N, s->h, from, shape.Nq),
                               .k = cut_rows(whole->k, keys, N, s->h, first, Nk),
                               .v = cut_rows(whole->v, keys, N, s->d, first, Nk),
                               .a = cut_rows(whole->a, queries, N, s->r, from, shape.Nq),
                               .b = cut_rows(whole->b, keys, N, s->r, first, Nk),
                               .out = psk_test_buffer(queries * shape.Nq * s->d),
                               .normaliser = psk_test_buffer(queries * shape.Nq)};
    t.state0 = from > 0 && carried != NULL ? carried : NULL;
    t.state1 = carried;
    psk_attention *attention;
    PSK_TEST_OK(psk_attention_create(device, &c->config, &shape, &attention));
    PSK_TEST_OK(psk_attention_forward(attention, &t));
    psk_attention_free(attention);
    paste_rows(out, queries, N, s->d, from, shape.Nq, t.out);
    *tail = psk_attention_tail(&c->config, Nk);
    t.state0 = t.state1 = NULL;
    free_tensors(&t);
}

static void check_cuts(const char *device_name, const attention_case *c, const int64_t *cuts, size_t count) {
    psk_attention_tensors whole = run(device_name, c);
    float *out = psk_test_buffer(QUERIES(c) * c->shape.d);
    float *carried = state_floats(c) > 0 ? psk_test_buffer(state_floats(c)) : NULL, *state1 = NULL;
    int64_t tail = 0;
    psk_device *device = open_device(device_name, 2);
    for (size_t i = 0; i <= count; i++)
        run_piece(device, c, &whole, i > 0 ? cuts[i - 1] : 0, i < count ? cuts[i] : c->shape.Nq, &tail, carried, out);
    const double error = psk_test_relative_rms(out, whole.out, QUERIES(c) * c->shape.d);
    double state_error = 0;
    if (carried != NULL) { /* the whole again, with its state */
        int64_t whole_tail = 0;
        state1 = psk_test_buffer(state_floats(c));
        run_piece(device, c, &whole, 0, c->shape.Nq, &whole_tail, state1, whole.out);
        assert_int_equal(tail, whole_tail);
        state_error = psk_test_relative_rms(carried, state1, state_floats(c));
    }
    if (!(error <= LIMIT) || !(state_error <= LIMIT)) {
        describe(device_name, c);
        for (size_t i = 0; i < count; i++)
            print_message("cut at %d\n", (int)cuts[i]);
        fail_msg("relative error of out %.2e, of the state %.2e", error, state_error);
    }
    psk_device_free(device);
    psk_test_free(out);
    psk_test_free(carried);
    psk_test_free(state1);
    free_tensors(&whole);
}

static void a_cut_sequence_equals_the_whole(void **state) {
    (void)state;
    const int64_t b = 7, N = 5 * b + 3;
    psk_rng rng = psk_rng_make(SEED, 1);
    for (size_t v = 0; v < COUNT(variants); v++) {
        if (variants[v].direction == PSK_BIDIRECTIONAL)
            continue;
        const attention_case c = make_case(&variants[v], b, N, N, (int64_t)v);
        for (size_t device = 0; device < DEVICES; device++) {
            const int64_t single[] = {1, b - 1, b, b + 1, 2 * b, N - 1};
            for (size_t i = 0; i < COUNT(single); i++)
                check_cuts(devices[device], &c, &single[i], 1);
            for (int round = 0; round < 4; round++) { /* random pieces of 1 to 10 tokens */
                int64_t cuts[64], at = 0;
                size_t count = 0;
                while ((at += 1 + (int64_t)psk_rng_below(&rng, 10)) < N)
                    cuts[count++] = at;
                check_cuts(devices[device], &c, cuts, count);
            }
        }
    }
}

static bool same_bits(const float *x, const float *y, int64_t n) {
    return x == NULL || memcmp(x, y, (size_t)n * sizeof *x) == 0;
}

/* Rows first and later of each of `heads` heads. */
static bool rows_equal(const float *x, const float *y, int64_t heads, int64_t N, int64_t width, int64_t first) {
    for (int64_t head = 0; head < heads && x != NULL; head++)
        if (!same_bits(x + (head * N + first) * width, y + (head * N + first) * width, (N - first) * width))
            return false;
    return true;
}

static void documents_do_not_see_each_other(void **state) {
    (void)state;
    static const int64_t two[] = {0, 19, 42};
    for (size_t v = 0; v < COUNT(variants); v++)
        for (size_t i = 0; i < DEVICES; i++) {
            attention_case c = packed_case(v, (int64_t)v);
            c.shape.B = 1;
            c.cu_seqlens = two;
            c.documents = 2;
            const int64_t queries = c.shape.H, keys = c.shape.Hkv, N = c.shape.Nq;
            psk_attention_tensors x = run(devices[i], &c), y = make_tensors(&c);
            const struct {
                const float *x;
                int64_t heads, width;
            } inputs[] = {{y.q, queries, c.shape.h}, {y.k, keys, c.shape.h}, {y.v, keys, c.shape.d},
                          {y.a, queries, c.shape.r}, {y.b, keys, c.shape.r}, {y.dout, queries, c.shape.d}};
            for (size_t n = 0; n < COUNT(inputs); n++)
                for (int64_t head = 0; head < inputs[n].heads && inputs[n].x != NULL; head++)
                    scale((float *)inputs[n].x + head * N * inputs[n].width, two[1] * inputs[n].width, 3.0f);
            psk_device *device = open_device(devices[i], 2);
            PSK_TEST_OK(run_planned(device, &c, &y));
            psk_device_free(device);
            assert_false(same_bits(x.out, y.out, two[1] * c.shape.d));
            assert_true(rows_equal(x.out, y.out, queries, N, c.shape.d, two[1]));
            assert_true(rows_equal(x.dq, y.dq, queries, N, c.shape.h, two[1]));
            assert_true(rows_equal(x.dk, y.dk, keys, N, c.shape.h, two[1]));
            assert_true(rows_equal(x.dv, y.dv, keys, N, c.shape.d, two[1]));
            assert_true(rows_equal(x.da, y.da, queries, N, c.shape.r, two[1]));
            assert_true(rows_equal(x.db, y.db, keys, N, c.shape.r, two[1]));
            free_tensors(&x);
            free_tensors(&y);
        }
}

/* What lies outside a block or a window is not even read: NaN there changes no bit, forward or backward. */
static void unseen_keys_are_not_read(void **state) {
    (void)state;
    static const int64_t sizes[] = {5, 16, 70, 300};
    for (size_t v = 0; v < COUNT(variants); v++)
        for (size_t n = 0; n < COUNT(sizes) * DEVICES; n++) {
            const int64_t b = sizes[n / DEVICES], N = 3 * b + 3;
            const attention_case c = make_case(&variants[v], b, N, N, (int64_t)n);
            const int64_t first = variants[v].local == PSK_LOCAL_WINDOW ? 2 * b : b;
            const int64_t queries = c.shape.B * c.shape.H, keys = c.shape.B * c.shape.Hkv;
            if (!c.config.local_only)
                continue;
            psk_attention_tensors x = run(devices[n % DEVICES], &c), y = make_tensors(&c);
            for (int64_t head = 0; head < keys; head++) {
                scale((float *)y.k + head * N * c.shape.h, b * c.shape.h, NAN);
                scale((float *)y.v + head * N * c.shape.d, b * c.shape.d, NAN);
            }
            psk_device *device = open_device(devices[n % DEVICES], 2);
            PSK_TEST_OK(run_planned(device, &c, &y));
            psk_device_free(device);
            assert_true(isnan(y.out[(first - 1) * c.shape.d]));
            assert_true(rows_equal(x.out, y.out, queries, N, c.shape.d, first));
            assert_true(rows_equal(x.normaliser, y.normaliser, queries, N, 1, first));
            assert_true(rows_equal(x.dq, y.dq, queries, N, c.shape.h, first));
            assert_true(rows_equal(x.dk, y.dk, keys, N, c.shape.h, first));
            assert_true(rows_equal(x.dv, y.dv, keys, N, c.shape.d, first));
            free_tensors(&x);
            free_tensors(&y);
        }
}

static void thread_counts_give_the_same_bits(void **state) {
    (void)state;
    for (size_t v = 0; v < COUNT(variants); v++)
        for (size_t i = 0; i < DEVICES; i++) {
            attention_case made = make_case(&variants[v], 70, 150, 150, (int64_t)v + 1);
            const attention_case *c = &made;
            made.states = true;
            psk_attention_tensors one = run_threads(devices[i], 1, c);
            for (int threads = 2; threads <= 3; threads++) {
                psk_attention_tensors more = run_threads(devices[i], threads, c);
#define X(name, count) assert_true(same_bits(one.name, more.name, count));
                OUTPUTS(X)
#undef X
                free_tensors(&more);
            }
            free_tensors(&one);
        }
}

/* The first sequence of a batch of three alone. */
static void a_batch_gives_the_bits_of_its_sequences(void **state) {
    (void)state;
    for (size_t v = 0; v < COUNT(variants); v++)
        for (size_t i = 0; i < DEVICES; i++) {
            attention_case batch = make_case(&variants[v], 16, 40, 40, (int64_t)v), single = batch;
            batch.shape.B = 3;
            single.shape.B = 1;
            psk_attention_tensors x = run(devices[i], &batch), y = run(devices[i], &single);
            const attention_case *c = &single; /* random inputs begin alike whatever their number */
#define X(name, count) assert_true(same_bits(x.name, y.name, count));
            INPUTS(X)
            OUTPUTS(X)
#undef X
            free_tensors(&x);
            free_tensors(&y);
        }
}

static bool all_finite(const float *x, int64_t n) {
    for (int64_t i = 0; i < n && x != NULL; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

static void large_activations_stay_finite(void **state) {
    (void)state;
    for (size_t v = 0; v < COUNT(variants); v++)
        for (size_t i = 0; i < DEVICES; i++) {
            attention_case made = make_case(&variants[v], 64, 500, 500, 0);
            const attention_case *c = &made;
            made.magnify = c->config.mechanism == PSK_SOFTMAX ? 1e4f : 1e3f; /* weights of 1e24 */
            psk_attention_tensors t = run(devices[i], c);
#define X(name, count) assert_true(all_finite(t.name, count));
            OUTPUTS(X)
#undef X
            free_tensors(&t);
        }
}

/* Squares of sketched inner products: no weight is negative, so no denominator falls below beta. */
static void sketched_weights_are_not_negative(void **state) {
    (void)state;
    for (size_t device = 0; device < DEVICES; device++) {
        const attention_case c = make_case(&variants[4], 5, 200, 200, 4);
        psk_attention_tensors t = run(devices[device], &c);
        for (int64_t i = 0; i < QUERIES(&c); i++)
            assert_true(t.normaliser[i] >= c.config.denominator_bias);
        free_tensors(&t);
    }
}

/* With s(x) = x the squared sketch is polynomial attention of degree 2, computed in a quite different order. */
static void features_of_degree_two_are_exact(void **state) {
    (void)state;
    for (size_t i = 0; i < DEVICES; i++) {
        attention_case polynomial = make_case(&variants[2], 16, 100, 100, 1),
                       squared = make_case(&variants[4], 16, 100, 100, 1);
        polynomial.shape.h = squared.shape.h = squared.shape.r = squared.config.sketch_size = 5;
        polynomial.config.degree = 2;
        squared.config.far_scale = 1.0f;
        psk_attention_tensors x = run(devices[i], &polynomial), y = make_tensors(&squared);
        memcpy((float *)y.a, x.q, (size_t)(QUERIES(&squared) * 5) * sizeof(float));
        memcpy((float *)y.b, x.k, (size_t)(KEYS(&squared) * 5) * sizeof(float));
        psk_device *device = open_device(devices[i], 2);
        PSK_TEST_OK(run_planned(device, &squared, &y));
        psk_device_free(device);
        PSK_TEST_AT_MOST(psk_test_relative_rms(y.out, x.out, QUERIES(&squared) * squared.shape.d), LIMIT);
        PSK_TEST_AT_MOST(psk_test_relative_rms(y.da, x.dq, QUERIES(&squared) * 5), LIMIT);
        PSK_TEST_AT_MOST(psk_test_relative_rms(y.db, x.dk, KEYS(&squared) * 5), LIMIT);
        free_tensors(&x);
        free_tensors(&y);
    }
}

/* What a decoding session does: keys in a cache with room for more, a state kept in place, a call without queries. */
static void the_core_takes_strides_and_no_queries(void **state) {
    (void)state;
    const int64_t b = 5, N = 3 * b, room = 40;
    attention_case c = make_case(&variants[6], b, N, N, 1);
    const psk_attention_shape *s = &c.shape;
    const int64_t groups = s->B * s->Hkv, rep = s->H / s->Hkv;
    for (size_t i = 0; i < DEVICES; i++) {
        psk_attention_tensors t = run(devices[i], &c);
        float *k = psk_test_buffer(groups * room * s->h), *v = psk_test_buffer(groups * room * s->d);
        float *kept = psk_test_buffer(state_floats(&c)), *out = psk_test_buffer(QUERIES(&c) * s->d);
        for (int64_t g = 0; g < groups; g++) {
            memcpy(k + g * room * s->h, t.k + g * N * s->h, (size_t)(N * s->h) * sizeof *k);
            memcpy(v + g * room * s->d, t.v + g * N * s->d, (size_t)(N * s->d) * sizeof *v);
        }
        psk_attention_views views = {.groups = groups,
                                     .Nk = 2 * b,
                                     .k = {k, room * s->h, 0, s->h},
                                     .v = {v, room * s->d, 0, s->d},
                                     .a = {(float *)t.a, rep * N * s->r, N * s->r, s->r},
                                     .b = {(float *)t.b, N * s->r, 0, s->r},
                                     .q = {(float *)t.q, rep * N * s->h, N * s->h, s->h},
                                     .out = {out, rep * N * s->d, N * s->d, s->d},
                                     .normaliser = {t.normaliser, rep * N, N, 1},
                                     .state1 = kept};
        psk_device *device = open_device(devices[i], 2);
        psk_attention *attention;
        PSK_TEST_OK(psk_attention_create(device, &c.config, s, &attention));
        PSK_TEST_OK(psk_attention_core_forward(attention, &views)); /* two blocks folded, nothing asked */
        views.state0 = kept;                                        /* in place from now on */
        views.Nk = views.Nq = b;
        psk_rows *rows[] = {&views.k, &views.v, &views.b, &views.q, &views.a, &views.out, &views.normaliser};
        for (size_t n = 0; n < COUNT(rows); n++)
            rows[n]->data += 2 * b * rows[n]->width;
        PSK_TEST_OK(psk_attention_core_forward(attention, &views)); /* the third block */
        double error = 0;
        for (int64_t head = 0; head < s->B * s->H; head++) {
            const int64_t first = (head * N + 2 * b) * s->d;
            const double head_error = psk_test_relative_rms(out + first, t.out + first, b * s->d);
            error = error > head_error ? error : head_error;
        }
        PSK_TEST_AT_MOST(error, LIMIT);
        psk_attention_free(attention);
        psk_device_free(device);
        psk_test_free(k);
        psk_test_free(v);
        psk_test_free(kept);
        psk_test_free(out);
        free_tensors(&t);
    }
}

static void tail_is_what_the_state_lacks(void **state) {
    (void)state;
    psk_attention_config config = psk_attention_config_default();
    config.block_size = 4;
    config.local = PSK_LOCAL_WINDOW;
    assert_int_equal(psk_attention_tail(&config, 3), 3);
    assert_int_equal(psk_attention_tail(&config, 4), 4);
    assert_int_equal(psk_attention_tail(&config, 11), 7);
    config.local = PSK_LOCAL_BLOCK;
    assert_int_equal(psk_attention_tail(&config, 11), 3);
    config.local = PSK_LOCAL_NONE;
    assert_int_equal(psk_attention_tail(&config, 11), 0);
    config.mechanism = PSK_PERFORMER;
    assert_int_equal(psk_attention_tail(&config, 11), 0);
    config.mechanism = PSK_SOFTMAX;
    config.local = PSK_LOCAL_WINDOW;
    assert_int_equal(psk_attention_tail(&config, 11), 11);
    config.local_only = 1;
    assert_int_equal(psk_attention_tail(&config, 3), 3);
    assert_int_equal(psk_attention_tail(&config, 11), 7);
    config.local = PSK_LOCAL_BLOCK;
    assert_int_equal(psk_attention_tail(&config, 12), 0);
    assert_int_equal(psk_attention_reads_ab(&config, 1000), 0);
}

/* Workspace does not grow with N, nor with b. */
static void workspace_is_bounded(void **state) {
    (void)state;
    psk_device *device = open_device("cpu", 1);
    for (size_t v = 0; v < COUNT(variants); v++) {
        int64_t bytes[2];
        for (int i = 0; i < 2; i++) {
            attention_case c = make_case(&variants[v], i == 0 ? 1024 : 65536, 0, 0, 0);
            psk_attention *attention;
            c.shape.Nq = c.shape.Nk = i == 0 ? 1024 : INT64_C(1) << 20;
            PSK_TEST_OK(psk_attention_create(device, &c.config, &c.shape, &attention));
            bytes[i] = psk_attention_bytes(attention);
            psk_attention_free(attention);
        }
        assert_int_equal(bytes[0], bytes[1]);
        assert_in_range(bytes[0], 1, 16 << 20);
    }
    psk_device_free(device);
}

static psk_device *refusing_device; /* of the two tests below */

static psk_status create(const attention_case *c) {
    psk_attention *attention;
    const psk_status status = psk_attention_create(refusing_device, &c->config, &c->shape, &attention);
    assert_true((status == PSK_OK) == (attention != NULL));
    psk_attention_free(attention);
    return status;
}

#define REFUSED(change, expected, ...)            REFUSED_OF(7, change, expected, __VA_ARGS__)
#define REFUSED_LOCAL_ONLY(change, expected, ...) REFUSED_OF(11, change, expected, __VA_ARGS__)
#define REFUSED_OF(variant_index, change, expected, ...)                                                               \
    do {                                                                                                               \
        attention_case c = make_case(&variants[variant_index], 16, 10, 12, 0);                                         \
        PSK_TEST_OK(create(&c));                                                                                       \
        change;                                                                                                        \
        PSK_TEST_FAILS(create(&c), expected, __VA_ARGS__);                                                             \
    } while (0)

static void create_refuses(void **state) {
    (void)state;
    refusing_device = open_device("reference", 1);
    REFUSED(c.config.degree = 3, PSK_ERROR_ARGUMENT, "degree", "3", "even");
    REFUSED(c.config.degree = 0, PSK_ERROR_ARGUMENT, "degree", "0");
    REFUSED(c.config.degree = -2, PSK_ERROR_ARGUMENT, "degree", "-2");
    REFUSED(c.config.block_size = 0, PSK_ERROR_ARGUMENT, "block_size", "0");
    REFUSED(c.config.sketch_size = 0, PSK_ERROR_ARGUMENT, "sketch_size", "0");
    REFUSED(c.config.mechanism = (psk_mechanism)17, PSK_ERROR_ARGUMENT, "mechanism", "17");
    REFUSED(c.config.sketch = (psk_sketch)18, PSK_ERROR_ARGUMENT, "sketch", "18");
    REFUSED(c.config.local = (psk_local)19, PSK_ERROR_ARGUMENT, "local", "19");
    REFUSED(c.config.direction = (psk_direction)20, PSK_ERROR_ARGUMENT, "direction", "20");
    REFUSED(c.config.denominator_bias = -1.0f, PSK_ERROR_ARGUMENT, "denominator_bias", "-1");
    REFUSED(c.config.denominator_bias = NAN, PSK_ERROR_ARGUMENT, "denominator_bias", "nan");
    REFUSED(c.config.far_scale = INFINITY, PSK_ERROR_ARGUMENT, "far_scale", "inf");
    REFUSED(c.config.direction = PSK_BIDIRECTIONAL, PSK_ERROR_UNSUPPORTED, "local", "window", "bidirectional");
    REFUSED(c.config.local_only = 1, PSK_ERROR_UNSUPPORTED, "local_only is 1", "polysketch");
    REFUSED_LOCAL_ONLY(c.config.local = PSK_LOCAL_NONE, PSK_ERROR_ARGUMENT, "local_only is 1", "local is none");
    REFUSED_LOCAL_ONLY(c.config.local = (psk_local)19, PSK_ERROR_ARGUMENT, "local is 19");
    REFUSED_LOCAL_ONLY(c.config.block_size = 0, PSK_ERROR_ARGUMENT, "block_size", "0");
    REFUSED_LOCAL_ONLY(c.config.direction = PSK_BIDIRECTIONAL, PSK_ERROR_UNSUPPORTED, "window", "bidirectional");
    REFUSED(c.shape.B = 0, PSK_ERROR_ARGUMENT, "B", "0");
    REFUSED(c.shape.H = 0, PSK_ERROR_ARGUMENT, "H", "0");
    REFUSED(c.shape.Hkv = -1, PSK_ERROR_ARGUMENT, "Hkv", "-1");
    REFUSED(c.shape.Nq = 0, PSK_ERROR_ARGUMENT, "Nq", "0");
    REFUSED(c.shape.Nk = 0, PSK_ERROR_ARGUMENT, "Nk", "0");
    REFUSED(c.shape.h = 0, PSK_ERROR_ARGUMENT, "h", "0");
    REFUSED(c.shape.d = 0, PSK_ERROR_ARGUMENT, "d", "0");
    REFUSED(c.shape.r = 4, PSK_ERROR_ARGUMENT, "r", "4", "3");
    REFUSED(c.shape.H = 5; c.shape.Hkv = 3, PSK_ERROR_ARGUMENT, "H", "5", "Hkv", "3");
    REFUSED(c.shape.Nq = 13, PSK_ERROR_ARGUMENT, "Nq", "13", "12");
    REFUSED(c.config.mechanism = PSK_SOFTMAX, PSK_ERROR_ARGUMENT, "r", "0");
    psk_device_free(refusing_device);
}

/* Tries forward and backward; both must refuse alike, unless forward does not read what is wrong. */
#define CALL_REFUSED(variant_index, change, ...)                                                                       \
    do {                                                                                                               \
        attention_case c = packed_case(variant_index, 0);                                                              \
        c.cu_seqlens = NULL;                                                                                           \
        psk_attention_tensors t = make_tensors(&c), u = t;                                                             \
        psk_attention *attention;                                                                                      \
        PSK_TEST_OK(psk_attention_create(refusing_device, &c.config, &c.shape, &attention));                           \
        change;                                                                                                        \
        const psk_status forward = psk_attention_forward(attention, &u);                                               \
        PSK_TEST_FAILS(forward == PSK_OK ? psk_attention_backward(attention, &u) : forward, PSK_ERROR_ARGUMENT,        \
                       __VA_ARGS__);                                                                                   \
        psk_attention_free(attention);                                                                                 \
        free_tensors(&t);                                                                                              \
    } while (0)

static void calls_refuse(void **state) {
    (void)state;
    static const int64_t late[] = {1, 42, 84}, early[] = {0, 42, 83}, back[] = {0, 20, 20, 42, 84};
    static const int64_t across[] = {0, 41, 43, 84}, right[] = {0, 42, 84};
    float number = 0;
    refusing_device = open_device("reference", 1);
    CALL_REFUSED(7, u.q = NULL, "q", "NULL");
    CALL_REFUSED(7, u.a = NULL, "a", "NULL");
    CALL_REFUSED(0, u.v = NULL, "v", "NULL");
    CALL_REFUSED(0, u.normaliser = NULL, "normaliser", "NULL");
    CALL_REFUSED(7, u.dout = NULL, "dout", "NULL");
    CALL_REFUSED(7, u.db = NULL, "db", "NULL");
    CALL_REFUSED(0, u.state1 = &number, "state1", "softmax");
    CALL_REFUSED(2, u.dstate1 = &number, "dstate1", "polynomial");
    CALL_REFUSED(11, u.state1 = &number, "state1", "softmax");
    CALL_REFUSED(7, u.cu_seqlens = right; u.documents = 2; u.state0 = &number, "state0", "cu_seqlens");
    CALL_REFUSED(7, u.cu_seqlens = late; u.documents = 2, "cu_seqlens", "1", "84");
    CALL_REFUSED(7, u.cu_seqlens = early; u.documents = 2, "cu_seqlens", "83", "84");
    CALL_REFUSED(7, u.cu_seqlens = back; u.documents = 4, "cu_seqlens[2]", "20", "increase");
    CALL_REFUSED(7, u.cu_seqlens = across; u.documents = 3, "41", "43", "42");
    CALL_REFUSED(7, u.cu_seqlens = right; u.documents = 1, "documents", "1", "2");
    psk_device_free(refusing_device);
}

/* A case and its tensors, made before allocations fail. */
typedef struct prepared_call {
    attention_case c;
    psk_attention_tensors t;
} prepared_call;

static psk_status create_run_and_free(void *argument) {
    const prepared_call *call = argument;
    psk_attention *attention;
    PSK_TRY(psk_attention_create(refusing_device, &call->c.config, &call->c.shape, &attention));
    const psk_status status = psk_attention_forward(attention, &call->t);
    psk_attention_free(attention);
    return status;
}

static void create_survives_failing_allocations(void **state) {
    (void)state;
    prepared_call call = {.c = make_case(&variants[7], 16, 10, 12, 0)};
    call.t = make_tensors(&call.c);
    refusing_device = open_device("reference", 1);
    assert_true(psk_test_allocation_failures(create_run_and_free, &call) >= 3);
    psk_device_free(refusing_device);
    free_tensors(&call.t);
}

static void names_are_those_of_the_files(void **state) {
    (void)state;
    assert_string_equal(psk_mechanism_name(PSK_POLYSKETCH), "polysketch");
    assert_string_equal(psk_sketch_name(PSK_SKETCH_LEARNED_LINEAR), "learned_linear");
    assert_string_equal(psk_local_name(PSK_LOCAL_WINDOW), "window");
    assert_null(psk_mechanism_name((psk_mechanism)4));
    assert_null(psk_sketch_name((psk_sketch)4));
    assert_null(psk_local_name((psk_local)3));
    assert_null(psk_local_name((psk_local)-1));
    psk_attention_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_its_definition),
        cmocka_unit_test(equals_its_definition_across_tiles),
        cmocka_unit_test(equals_its_definition_with_many_groups),
        cmocka_unit_test(equals_its_definition_with_a_cache),
        cmocka_unit_test(equals_its_definition_with_few_keys),
        cmocka_unit_test(equals_its_definition_with_states),
        cmocka_unit_test(equals_its_definition_with_documents),
        cmocka_unit_test(takes_the_gradient_of_a_sum),
        cmocka_unit_test(a_cut_sequence_equals_the_whole),
        cmocka_unit_test(documents_do_not_see_each_other),
        cmocka_unit_test(unseen_keys_are_not_read),
        cmocka_unit_test(thread_counts_give_the_same_bits),
        cmocka_unit_test(a_batch_gives_the_bits_of_its_sequences),
        cmocka_unit_test(large_activations_stay_finite),
        cmocka_unit_test(sketched_weights_are_not_negative),
        cmocka_unit_test(features_of_degree_two_are_exact),
        cmocka_unit_test(the_core_takes_strides_and_no_queries),
        cmocka_unit_test(tail_is_what_the_state_lacks),
        cmocka_unit_test(workspace_is_bounded),
        cmocka_unit_test(create_refuses),
        cmocka_unit_test(calls_refuse),
        cmocka_unit_test(create_survives_failing_allocations),
        cmocka_unit_test(names_are_those_of_the_files),
    };
    return cmocka_run_group_tests_name("attention", tests, NULL, NULL);
}
