/* The reference mechanisms: their gradients against finite differences, sequences cut in two against whole ones, and
 * all of them against the golden vectors (test_reference [DIR]: of that folder). Everything is in double. */
#include "support.h"

#include "base/files.h"
#include "base/memory.h"
#include "base/rng.h"
#include "io/safetensors.h"
#include "reference/ref_attention.h"
#include "reference/ref_sketch.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEED      20240715
#define MAX_TAKEN 128

static const char *golden_folder = PSK_GOLDEN_DIR;

/* What one test has allocated, released together. */
typedef struct test_pool {
    double *taken[MAX_TAKEN];
    int64_t count;
} test_pool;

static double *take(test_pool *pool, int64_t n) {
    assert_true(pool->count < MAX_TAKEN);
    double *x;
    PSK_TEST_OK(psk_alloc((size_t)n * sizeof *x, "doubles of a test", (void **)&x));
    for (int64_t i = 0; i < n; i++)
        x[i] = NAN;
    pool->taken[pool->count++] = x;
    return x;
}

static double *take_random(test_pool *pool, int64_t n, const char *name) {
    double *x = take(pool, n);
    psk_rng rng = psk_rng_make(SEED, psk_rng_stream(name));
    for (int64_t i = 0; i < n; i++)
        x[i] = psk_rng_normal(&rng);
    return x;
}

static double *take_zero(test_pool *pool, int64_t n) {
    double *x = take(pool, n);
    memset(x, 0, (size_t)n * sizeof *x);
    return x;
}

static void release(test_pool *pool) {
    while (pool->count > 0)
        psk_free(pool->taken[--pool->count]);
}

static double rms(const double *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sqrt(sum / (double)n);
}

/* rms(got - want) / max(rms(want), floor), 0 if both are 0 everywhere, NaN if anything is. */
static double relative_error(const double *got, const double *want, int64_t n, double floor) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (got[i] - want[i]) * (got[i] - want[i]);
    const double reference = fmax(rms(want, n), floor);
    if (sum == 0 && reference == 0)
        return 0;
    return sqrt(sum / (double)n) / reference;
}

static void expect_close(const char *where, const char *what, double error, double limit) {
    if (!(error <= limit)) {
        print_error("%s: %s: relative rms error %.3g, limit %.3g (seed %d)\n", where, what, error, limit, SEED);
        fail();
    }
}

/* Central differences of order 4, (8 (f(x+e) - f(x-e)) - (f(x+2e) - f(x-2e))) / (12 e), for each x[i] with gradient[i].
 * Error of the formula e^4 f5 / 30, of rounding 2e-16 |f| / e: with e = 1e-3 both are about 1e-13 for numbers near 1.
 * A gradient that is 0 everywhere is held against rounding alone, 1e-4 of a loss near 1. */
typedef double (*functional)(const void *context);

static void expect_gradient(const char *where, const char *what, functional f, const void *context, double *x,
                            const double *gradient, int64_t n) {
    static const double step = 1e-3, limit = 1e-6;
    test_pool pool = {.count = 0};
    double *difference = take(&pool, n);
    for (int64_t i = 0; i < n; i++) {
        const double x0 = x[i];
        static const double at[4] = {1, -1, 2, -2}, factor[4] = {8, -8, -1, 1};
        difference[i] = 0;
        for (int64_t j = 0; j < 4; j++) {
            x[i] = x0 + at[j] * step;
            difference[i] += factor[j] * f(context) / (12 * step);
        }
        x[i] = x0;
    }
    expect_close(where, what, relative_error(gradient, difference, n, 1e-4), limit);
    release(&pool);
}

typedef struct attention_case {
    const char *name;
    psk_attention_config config;
    psk_attention_shape shape; /* B, H, Hkv, Nq, Nk, h, d, r */
    bool state;
    int64_t documents, cu_seqlens[6];
} attention_case;

#define EXACT(form, p, way)                                                                                            \
    { .mechanism = (form), .degree = (p), .denominator_bias = 1, .far_scale = 1, .direction = (way) }
#define NEAR(form, near, p, b)                                                                                         \
    { .mechanism = (form), .local = (near), .degree = (p), .block_size = (b), .denominator_bias = 1, .local_only = 1 }
#define SKETCHED(near, p, b, way)                                                                                      \
    {                                                                                                                  \
        .mechanism = PSK_POLYSKETCH, .local = (near), .degree = (p), .block_size = (b), .denominator_bias = 0.5F,      \
        .far_scale = 0.25F, .direction = (way)                                                                         \
    }

static const attention_case attention_cases[] = {
    {"softmax, one token", EXACT(PSK_SOFTMAX, 2, PSK_CAUSAL), {1, 1, 1, 1, 1, 1, 1, 0}, false, 0, {0}},
    {"softmax, grouped heads", EXACT(PSK_SOFTMAX, 2, PSK_CAUSAL), {2, 4, 2, 7, 7, 3, 2, 0}, false, 0, {0}},
    {"softmax, earlier keys", EXACT(PSK_SOFTMAX, 2, PSK_CAUSAL), {1, 3, 1, 2, 5, 5, 1, 0}, false, 0, {0}},
    {"softmax, more queries than keys",
     EXACT(PSK_SOFTMAX, 2, PSK_BIDIRECTIONAL),
     {1, 2, 2, 5, 3, 2, 3, 0},
     false,
     0,
     {0}},
    {"softmax, packed", EXACT(PSK_SOFTMAX, 2, PSK_CAUSAL), {2, 2, 1, 5, 5, 3, 2, 0}, false, 4, {0, 1, 5, 8, 10}},
    {"polynomial 2", EXACT(PSK_POLYNOMIAL, 2, PSK_CAUSAL), {1, 2, 2, 7, 7, 3, 4, 0}, false, 0, {0}},
    {"polynomial 4, one token", EXACT(PSK_POLYNOMIAL, 4, PSK_CAUSAL), {1, 1, 1, 1, 1, 3, 2, 0}, false, 0, {0}},
    {"polynomial 4, earlier keys", EXACT(PSK_POLYNOMIAL, 4, PSK_CAUSAL), {1, 4, 2, 3, 7, 3, 2, 0}, false, 0, {0}},
    {"polynomial 6, both ways", EXACT(PSK_POLYNOMIAL, 6, PSK_BIDIRECTIONAL), {2, 1, 1, 5, 5, 2, 3, 0}, false, 0, {0}},
    {"polynomial 8, packed", EXACT(PSK_POLYNOMIAL, 8, PSK_CAUSAL), {1, 2, 1, 9, 9, 3, 2, 0}, false, 3, {0, 4, 5, 9}},
    {"softmax, block 3", NEAR(PSK_SOFTMAX, PSK_LOCAL_BLOCK, 2, 3), {2, 4, 2, 8, 8, 3, 2, 0}, false, 0, {0}},
    {"softmax, window 3", NEAR(PSK_SOFTMAX, PSK_LOCAL_WINDOW, 2, 3), {1, 2, 1, 11, 11, 3, 2, 0}, false, 0, {0}},
    {"softmax, window 2, earlier keys",
     NEAR(PSK_SOFTMAX, PSK_LOCAL_WINDOW, 2, 2),
     {1, 2, 2, 4, 9, 3, 2, 0},
     false,
     0,
     {0}},
    {"softmax, window 2, packed",
     NEAR(PSK_SOFTMAX, PSK_LOCAL_WINDOW, 2, 2),
     {1, 2, 1, 11, 11, 2, 2, 0},
     false,
     3,
     {0, 3, 4, 11}},
    {"polynomial 4, block 1", NEAR(PSK_POLYNOMIAL, PSK_LOCAL_BLOCK, 4, 1), {1, 2, 1, 5, 5, 3, 2, 0}, false, 0, {0}},
    {"polynomial 4, window 3", NEAR(PSK_POLYNOMIAL, PSK_LOCAL_WINDOW, 4, 3), {1, 2, 1, 10, 10, 3, 2, 0}, false, 0, {0}},
    {"polynomial 2, window above N",
     NEAR(PSK_POLYNOMIAL, PSK_LOCAL_WINDOW, 2, 8),
     {2, 1, 1, 7, 7, 2, 2, 0},
     false,
     0,
     {0}},
    {"polynomial 6, block 4, packed",
     NEAR(PSK_POLYNOMIAL, PSK_LOCAL_BLOCK, 6, 4),
     {2, 2, 1, 7, 7, 2, 2, 0},
     false,
     4,
     {0, 2, 7, 8, 14}},
    {"sketch, one token", SKETCHED(PSK_LOCAL_NONE, 4, 4, PSK_CAUSAL), {1, 1, 1, 1, 1, 2, 1, 1}, true, 0, {0}},
    {"sketch", SKETCHED(PSK_LOCAL_NONE, 4, 4, PSK_CAUSAL), {2, 2, 2, 7, 7, 2, 3, 4}, false, 0, {0}},
    {"sketch, state", SKETCHED(PSK_LOCAL_NONE, 4, 3, PSK_CAUSAL), {2, 4, 2, 5, 5, 2, 3, 3}, true, 0, {0}},
    {"sketch, state, both ways",
     SKETCHED(PSK_LOCAL_NONE, 4, 3, PSK_BIDIRECTIONAL),
     {1, 2, 1, 3, 5, 2, 2, 3},
     true,
     0,
     {0}},
    {"sketch, packed", SKETCHED(PSK_LOCAL_NONE, 4, 3, PSK_CAUSAL), {2, 2, 1, 6, 6, 2, 2, 3}, false, 3, {0, 6, 7, 12}},
    {"block 3", SKETCHED(PSK_LOCAL_BLOCK, 4, 3, PSK_CAUSAL), {1, 2, 2, 7, 7, 3, 2, 2}, true, 0, {0}},
    {"block 1, degree 2", SKETCHED(PSK_LOCAL_BLOCK, 2, 1, PSK_CAUSAL), {1, 2, 1, 5, 5, 2, 3, 3}, true, 0, {0}},
    {"block above N, degree 6", SKETCHED(PSK_LOCAL_BLOCK, 6, 11, PSK_CAUSAL), {1, 1, 1, 7, 7, 2, 2, 3}, true, 0, {0}},
    {"block 4, degree 8, earlier keys",
     SKETCHED(PSK_LOCAL_BLOCK, 8, 4, PSK_CAUSAL),
     {1, 4, 2, 4, 9, 2, 2, 3},
     true,
     0,
     {0}},
    {"block 2, both ways", SKETCHED(PSK_LOCAL_BLOCK, 4, 2, PSK_BIDIRECTIONAL), {1, 2, 2, 5, 5, 2, 2, 3}, false, 0, {0}},
    {"block 2, packed",
     SKETCHED(PSK_LOCAL_BLOCK, 4, 2, PSK_CAUSAL),
     {2, 2, 1, 7, 7, 2, 2, 3},
     false,
     4,
     {0, 2, 7, 8, 14}},
    {"window 3", SKETCHED(PSK_LOCAL_WINDOW, 4, 3, PSK_CAUSAL), {1, 2, 1, 10, 10, 2, 2, 3}, true, 0, {0}},
    {"window 1, degree 6", SKETCHED(PSK_LOCAL_WINDOW, 6, 1, PSK_CAUSAL), {1, 1, 1, 5, 5, 2, 3, 2}, true, 0, {0}},
    {"window above N", SKETCHED(PSK_LOCAL_WINDOW, 2, 8, PSK_CAUSAL), {2, 1, 1, 7, 7, 2, 2, 2}, true, 0, {0}},
    {"window 2, earlier keys", SKETCHED(PSK_LOCAL_WINDOW, 8, 2, PSK_CAUSAL), {1, 2, 2, 4, 9, 2, 2, 3}, true, 0, {0}},
    {"window 2, packed",
     SKETCHED(PSK_LOCAL_WINDOW, 4, 2, PSK_CAUSAL),
     {1, 2, 1, 11, 11, 2, 2, 3},
     false,
     3,
     {0, 3, 4, 11}},
    {"performer", EXACT(PSK_PERFORMER, 2, PSK_CAUSAL), {1, 2, 1, 7, 7, 2, 3, 5}, true, 0, {0}},
    {"performer, earlier keys", EXACT(PSK_PERFORMER, 2, PSK_CAUSAL), {2, 2, 2, 2, 5, 2, 1, 3}, true, 0, {0}},
    {"performer, both ways", EXACT(PSK_PERFORMER, 2, PSK_BIDIRECTIONAL), {1, 4, 2, 5, 3, 2, 2, 3}, false, 0, {0}},
};
#define ATTENTION_CASES (sizeof attention_cases / sizeof attention_cases[0])

typedef struct attention_input {
    const char *name;
    double *x, *dx;
    int64_t count;
} attention_input;

/* A case with its tensors; input lists those that have a gradient. */
typedef struct problem {
    psk_attention_config config;
    psk_attention_shape shape;
    psk_ref_attention_tensors tensors;
    attention_input input[6];
    int64_t inputs, out_count, state_count;
    test_pool pool;
} problem;

static double *add_input(problem *p, const char *name, int64_t count, double **gradient) {
    attention_input *input = &p->input[p->inputs++];
    *input = (attention_input){name, take_random(&p->pool, count, name), take(&p->pool, count), count};
    *gradient = input->dx;
    return input->x;
}

/* Features of performer are positive. */
static void make_positive(double *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        x[i] = exp(0.5 * x[i]);
}

static void add_features(problem *p) {
    const psk_attention_shape *s = &p->shape;
    const int64_t queries = s->B * s->H * s->Nq * s->r, keys = s->B * s->Hkv * s->Nk * s->r;
    double *a = add_input(p, "a", queries, &p->tensors.da), *b = add_input(p, "b", keys, &p->tensors.db);
    if (p->config.mechanism == PSK_PERFORMER) {
        make_positive(a, queries);
        make_positive(b, keys);
    }
    p->tensors.a = a;
    p->tensors.b = b;
}

static void add_state(problem *p) {
    const psk_attention_shape *s = &p->shape;
    const int64_t m = psk_ref_state_rows(&p->config, s->r), count = s->B * s->Hkv * m * (s->d + 1);
    double *state0 = add_input(p, "state0", count, &p->tensors.dstate0);
    make_positive(state0, count); /* its last column is a sum of weights */
    p->tensors.state0 = state0;
    p->tensors.state1 = take(&p->pool, count);
    p->tensors.dstate1 = take_random(&p->pool, count, "dstate1");
    p->state_count = count;
}

static void make_problem(problem *p, const attention_case *c) {
    *p = (problem){.config = c->config, .shape = c->shape};
    const psk_attention_shape *s = &p->shape;
    psk_ref_attention_tensors *t = &p->tensors;
    const bool exact = c->config.mechanism == PSK_SOFTMAX || c->config.mechanism == PSK_POLYNOMIAL;
    if (exact || (c->config.mechanism == PSK_POLYSKETCH && c->config.local != PSK_LOCAL_NONE)) {
        t->q = add_input(p, "q", s->B * s->H * s->Nq * s->h, &t->dq);
        t->k = add_input(p, "k", s->B * s->Hkv * s->Nk * s->h, &t->dk);
    }
    t->v = add_input(p, "v", s->B * s->Hkv * s->Nk * s->d, &t->dv);
    if (!exact)
        add_features(p);
    if (c->state)
        add_state(p);
    if (c->documents > 0) {
        t->cu_seqlens = c->cu_seqlens;
        t->documents = c->documents;
    }
    p->out_count = s->B * s->H * s->Nq * s->d;
    t->out = take(&p->pool, p->out_count);
    t->normaliser = take(&p->pool, s->B * s->H * s->Nq);
    t->dout = take_random(&p->pool, p->out_count, "dout");
}

/* <dout, out> + <dstate1, state1> */
static double attention_loss(const void *context) {
    const problem *p = context;
    double loss = 0;
    PSK_TEST_OK(psk_ref_attention_forward(&p->config, &p->shape, &p->tensors));
    for (int64_t i = 0; i < p->out_count; i++)
        loss += p->tensors.dout[i] * p->tensors.out[i];
    for (int64_t i = 0; i < p->state_count; i++)
        loss += p->tensors.dstate1[i] * p->tensors.state1[i];
    return loss;
}

static void attention_backward_is_the_gradient(void **unused) {
    (void)unused;
    for (size_t i = 0; i < ATTENTION_CASES; i++) {
        problem p;
        make_problem(&p, &attention_cases[i]);
        PSK_TEST_OK(psk_ref_attention_backward(&p.config, &p.shape, &p.tensors));
        for (int64_t j = 0; j < p.inputs; j++)
            expect_gradient(attention_cases[i].name, p.input[j].name, attention_loss, &p, p.input[j].x, p.input[j].dx,
                            p.input[j].count);
        release(&p.pool);
    }
}

/* Tokens from ... to - 1 of each of the heads. */
static double *rows_of(test_pool *pool, const double *x, int64_t heads, int64_t N, int64_t from, int64_t to,
                       int64_t n) {
    if (x == NULL)
        return NULL;
    double *part = take(pool, heads * (to - from) * n);
    for (int64_t i = 0; i < heads; i++)
        memcpy(part + i * (to - from) * n, x + (i * N + from) * n, (size_t)((to - from) * n) * sizeof *x);
    return part;
}

/* Makes `part` the call with keys first_key ... end - 1 and queries first_query ... end - 1 of `whole`. */
static void take_part(test_pool *pool, const problem *whole, problem *part, int64_t first_key, int64_t first_query,
                      int64_t end) {
    const psk_attention_shape *s = &whole->shape;
    const psk_ref_attention_tensors *t = &whole->tensors;
    const int64_t queries = s->B * s->H, keys = s->B * s->Hkv, N = s->Nk;
    *part = (problem){.config = whole->config, .shape = *s};
    part->shape.Nq = end - first_query;
    part->shape.Nk = end - first_key;
    part->tensors = (psk_ref_attention_tensors){
        .q = rows_of(pool, t->q, queries, N, first_query, end, s->h),
        .k = rows_of(pool, t->k, keys, N, first_key, end, s->h),
        .v = rows_of(pool, t->v, keys, N, first_key, end, s->d),
        .a = rows_of(pool, t->a, queries, N, first_query, end, s->r),
        .b = rows_of(pool, t->b, keys, N, first_key, end, s->r),
        .out = take(pool, queries * part->shape.Nq * s->d),
        .normaliser = take(pool, queries * part->shape.Nq),
        .state1 = whole->state_count > 0 ? take(pool, whole->state_count) : NULL,
    };
}

/* The rule of psk_attention_tail, as polysketch.h puts it. */
static int64_t tail_of(const psk_attention_config *config, int64_t Nk) {
    const int64_t b = config->block_size;
    if (!config->local_only && (config->mechanism == PSK_SOFTMAX || config->mechanism == PSK_POLYNOMIAL))
        return Nk;
    if (config->mechanism == PSK_PERFORMER || config->local == PSK_LOCAL_NONE)
        return 0;
    if (config->local == PSK_LOCAL_BLOCK)
        return Nk % b;
    return Nk < b ? Nk : b + Nk % b;
}

/* First the tokens before `cut`, then the rest with the tail and the state of the first call: the same rows, the same
 * state. */
static void expect_cut_is_whole(const char *name, const problem *whole, int64_t cut) {
    const psk_attention_shape *s = &whole->shape;
    const int64_t heads = s->B * s->H, rest = s->Nk - cut;
    test_pool pool = {.count = 0};
    problem first, second;
    take_part(&pool, whole, &first, 0, 0, cut);
    first.tensors.state0 = whole->tensors.state0;
    PSK_TEST_OK(psk_ref_attention_forward(&first.config, &first.shape, &first.tensors));
    take_part(&pool, whole, &second, cut - tail_of(&whole->config, cut), cut, s->Nk);
    second.tensors.state0 = first.tensors.state1;
    PSK_TEST_OK(psk_ref_attention_forward(&second.config, &second.shape, &second.tensors));
    expect_close(name, "rows before the cut",
                 relative_error(first.tensors.out, rows_of(&pool, whole->tensors.out, heads, s->Nk, 0, cut, s->d),
                                heads * cut * s->d, 0),
                 1e-12);
    expect_close(name, "rows after the cut",
                 relative_error(second.tensors.out, rows_of(&pool, whole->tensors.out, heads, s->Nk, cut, s->Nk, s->d),
                                heads * rest * s->d, 0),
                 1e-12);
    if (whole->state_count > 0)
        expect_close(name, "state", relative_error(second.tensors.state1, whole->tensors.state1, whole->state_count, 0),
                     1e-12);
    release(&pool);
}

static void attention_of_a_cut_sequence_is_that_of_the_whole(void **unused) {
    (void)unused;
    for (size_t i = 0; i < ATTENTION_CASES; i++) {
        const attention_case *c = &attention_cases[i];
        const bool stateful = psk_ref_state_rows(&c->config, c->shape.r) > 0;
        if (c->config.direction != PSK_CAUSAL || c->shape.Nq != c->shape.Nk || c->documents > 0 || c->state != stateful)
            continue;
        problem whole;
        make_problem(&whole, c);
        PSK_TEST_OK(psk_ref_attention_forward(&whole.config, &whole.shape, &whole.tensors));
        for (int64_t cut = 1; cut < c->shape.Nk; cut++)
            expect_cut_is_whole(c->name, &whole, cut);
        release(&whole.pool);
    }
}

/* With local_only a row is what all keys give where there are no keys but those of its block, or of its window. */
static void local_only_sees_its_keys_alone(void **unused) {
    (void)unused;
    const int64_t N = 23, b = 4, h = 3, d = 2;
    test_pool pool = {.count = 0};
    const double *q = take_random(&pool, N * h, "q"), *k = take_random(&pool, N * h, "k"),
                 *v = take_random(&pool, N * d, "v");
    double *out = take(&pool, N * d), *normaliser = take(&pool, N), row[2], sum;
    for (int form = 0; form < 4; form++) {
        psk_attention_config config =
            NEAR(form % 2 ? PSK_POLYNOMIAL : PSK_SOFTMAX, form < 2 ? PSK_LOCAL_BLOCK : PSK_LOCAL_WINDOW, 4, b);
        const psk_ref_attention_tensors all = {.q = q, .k = k, .v = v, .out = out, .normaliser = normaliser};
        PSK_TEST_OK(psk_ref_attention_forward(&config, &(psk_attention_shape){1, 1, 1, N, N, h, d, 0}, &all));
        config.local_only = 0;
        for (int64_t i = 0; i < N; i++) {
            const int64_t back = i % b + (form >= 2 && i >= b ? b : 0), first = i - back;
            const psk_ref_attention_tensors near = {
                .q = q + i * h, .k = k + first * h, .v = v + first * d, .out = row, .normaliser = &sum};
            PSK_TEST_OK(
                psk_ref_attention_forward(&config, &(psk_attention_shape){1, 1, 1, 1, back + 1, h, d, 0}, &near));
            assert_true(row[0] == out[i * d] && row[1] == out[i * d + 1] && sum == normaliser[i]);
        }
    }
    release(&pool);
}

/* By hand: scores 4 and 0, so softmax has the weights exp(4 / sqrt(4)) and 1, the polynomial 4^2 and 0 beside beta. */
static void normaliser_is_the_sum_of_the_weights(void **unused) {
    (void)unused;
    const psk_attention_shape shape = {1, 1, 1, 1, 2, 4, 1, 0};
    const double q[4] = {1, 1, 1, 1}, k[8] = {1, 1, 1, 1, 1, -1, 1, -1}, v[2] = {1, 0};
    double out[1], normaliser[1];
    const psk_ref_attention_tensors tensors = {.q = q, .k = k, .v = v, .out = out, .normaliser = normaliser};
    psk_attention_config config = EXACT(PSK_SOFTMAX, 2, PSK_CAUSAL);
    PSK_TEST_OK(psk_ref_attention_forward(&config, &shape, &tensors));
    PSK_TEST_AT_MOST(fabs(normaliser[0] - log(exp(2) + 1)), 1e-15);
    PSK_TEST_AT_MOST(fabs(out[0] - exp(2) / (exp(2) + 1)), 1e-15);
    config.mechanism = PSK_POLYNOMIAL;
    PSK_TEST_OK(psk_ref_attention_forward(&config, &shape, &tensors));
    assert_true(normaliser[0] == 17 && out[0] == 16.0 / 17);
}

static void attention_without_any_weight_is_zero(void **unused) {
    (void)unused;
    const psk_attention_config config = {.mechanism = PSK_POLYNOMIAL, .degree = 4};
    const psk_attention_shape shape = {1, 1, 1, 1, 1, 2, 1, 0};
    const double q[2] = {1, 2}, k[2] = {0, 0}, v[1] = {3}, dout[1] = {1};
    double out[1] = {NAN}, normaliser[1] = {NAN}, dq[2] = {NAN, NAN}, dk[2] = {NAN, NAN}, dv[1] = {NAN};
    const psk_ref_attention_tensors tensors = {
        .q = q, .k = k, .v = v, .out = out, .normaliser = normaliser, .dout = dout, .dq = dq, .dk = dk, .dv = dv};
    PSK_TEST_OK(psk_ref_attention_forward(&config, &shape, &tensors));
    PSK_TEST_OK(psk_ref_attention_backward(&config, &shape, &tensors));
    assert_true(out[0] == 0 && normaliser[0] == 0 && dq[0] == 0 && dk[1] == 0 && dv[0] == 0);
}

typedef enum { RANDOM, LEARNED, LINEAR, PERFORMER } sketch_form;

/* A sketch of any form with rows x -> out and all that has a gradient. */
typedef struct sketch_problem {
    sketch_form form;
    int64_t rows, h, r;
    psk_ref_random_sketch random;
    psk_ref_learned_sketch learned, dlearned;
    psk_ref_linear_sketch linear, dlinear;
    psk_ref_performer performer;
    double *x, *dx, *out, *dout;
    test_pool pool;
} sketch_problem;

static void sketch_forward(const sketch_problem *p, double *out) {
    switch (p->form) {
    case RANDOM:
        PSK_TEST_OK(psk_ref_random_sketch_forward(&p->random, p->rows, p->x, out));
        break;
    case LEARNED:
        PSK_TEST_OK(psk_ref_learned_sketch_forward(&p->learned, p->rows, p->x, out));
        break;
    case LINEAR:
        psk_ref_linear_sketch_forward(&p->linear, p->rows, p->x, out);
        break;
    case PERFORMER:
        psk_ref_performer_forward(&p->performer, p->rows, p->x, out);
        break;
    }
}

static void sketch_backward(const sketch_problem *p) {
    switch (p->form) {
    case RANDOM:
        PSK_TEST_OK(psk_ref_random_sketch_backward(&p->random, p->rows, p->x, p->dout, p->dx));
        break;
    case LEARNED:
        PSK_TEST_OK(psk_ref_learned_sketch_backward(&p->learned, p->rows, p->x, p->dout, p->dx, &p->dlearned));
        break;
    case LINEAR:
        psk_ref_linear_sketch_backward(&p->linear, p->rows, p->x, p->dout, p->dx, &p->dlinear);
        break;
    case PERFORMER:
        psk_ref_performer_backward(&p->performer, p->rows, p->x, p->dout, p->dx);
        break;
    }
}

static double sketch_loss(const void *context) {
    const sketch_problem *p = context;
    double loss = 0;
    sketch_forward(p, p->out);
    for (int64_t i = 0; i < p->rows * p->r; i++)
        loss += p->dout[i] * p->out[i];
    return loss;
}

static void make_sketch_problem(sketch_problem *p, sketch_form form, int64_t rows, int64_t h, int64_t r) {
    *p = (sketch_problem){.form = form, .rows = rows, .h = h, .r = r};
    p->x = take_random(&p->pool, rows * h, "x");
    p->dx = take(&p->pool, rows * h);
    p->out = take(&p->pool, rows * r);
    p->dout = take_random(&p->pool, rows * r, "dout");
}

static void expect_sketch_gradient(const sketch_problem *p, const char *where, const char *what, double *x,
                                   const double *gradient, int64_t n) {
    expect_gradient(where, what, sketch_loss, p, x, gradient, n);
}

static void random_sketch_backward_is_the_gradient(void **unused) {
    (void)unused;
    static const int64_t sizes[][4] = {
        /* rows, h, r, p */ {3, 4, 4, 2}, {3, 5, 3, 4}, {1, 1, 1, 4}, {2, 3, 5, 8}, {2, 4, 3, 16}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const int64_t h = sizes[i][1], r = sizes[i][2], degree = sizes[i][3];
        const double *g[14];
        char where[64];
        sketch_problem p;
        make_sketch_problem(&p, RANDOM, sizes[i][0], h, r);
        for (int64_t j = 0; j < degree - 2; j++) {
            snprintf(where, sizeof where, "g.%" PRId64, j);
            g[j] = take_random(&p.pool, (h > r ? h : r) * r, where);
        }
        p.random = (psk_ref_random_sketch){.h = h, .r = r, .p = degree, .g = g};
        sketch_backward(&p);
        snprintf(where, sizeof where, "random sketch of degree %" PRId64, degree);
        expect_sketch_gradient(&p, where, "x", p.x, p.dx, p.rows * h);
        release(&p.pool);
    }
}

/* The tensors of one level, in the order of psk_ref_level. */
#define LEVEL_TENSORS 4
static const char *const level_tensor[LEVEL_TENSORS] = {"norm.weight", "norm.bias", "up.weight", "down.weight"};

static int64_t level_count(const psk_ref_learned_sketch *sketch, int64_t level, int64_t tensor) {
    const int64_t in = level == 0 ? sketch->h : sketch->r;
    const int64_t count[LEVEL_TENSORS] = {in, in, sketch->hidden * in, sketch->r * sketch->hidden};
    return count[tensor];
}

static double **level_place(psk_ref_level *level, int64_t tensor) {
    double **const place[LEVEL_TENSORS] = {&level->norm_weight, &level->norm_bias, &level->up, &level->down};
    return place[tensor];
}

typedef void (*level_visitor)(sketch_problem *p, psk_ref_level *weights, psk_ref_level *gradients, int64_t tensor,
                              int64_t count, const char *name, const void *context);

static void for_learned_tensors(sketch_problem *p, level_visitor visit, const void *context) {
    for (int64_t net = 0; net < 2; net++)
        for (int64_t level = 0; level < PSK_REF_LEVELS; level++)
            for (int64_t tensor = 0; tensor < LEVEL_TENSORS; tensor++) {
                char name[64];
                snprintf(name, sizeof name, "sketch.%c.%d.%s", net == 0 ? 'a' : 'b', (int)level, level_tensor[tensor]);
                visit(p, &p->learned.net[net][level], &p->dlearned.net[net][level], tensor,
                      level_count(&p->learned, level, tensor), name, context);
            }
}

static void make_learned_tensor(sketch_problem *p, psk_ref_level *weights, psk_ref_level *gradients, int64_t tensor,
                                int64_t count, const char *name, const void *context) {
    (void)context;
    *level_place(weights, tensor) = take_random(&p->pool, count, name);
    *level_place(gradients, tensor) = take_zero(&p->pool, count);
}

static void expect_learned_tensor(sketch_problem *p, psk_ref_level *weights, psk_ref_level *gradients, int64_t tensor,
                                  int64_t count, const char *name, const void *context) {
    (void)context;
    expect_sketch_gradient(p, "learned sketch", name, *level_place(weights, tensor), *level_place(gradients, tensor),
                           count);
}

static void learned_sketch_backward_is_the_gradient(void **unused) {
    (void)unused;
    static const int64_t sizes[][4] = {/* rows, h, r, hidden */ {3, 5, 3, 7}, {1, 3, 5, 4}, {2, 4, 4, 9}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        sketch_problem p;
        make_sketch_problem(&p, LEARNED, sizes[i][0], sizes[i][1], sizes[i][2]);
        p.learned = (psk_ref_learned_sketch){.h = p.h, .r = p.r, .hidden = sizes[i][3]};
        for_learned_tensors(&p, make_learned_tensor, NULL);
        sketch_backward(&p);
        expect_sketch_gradient(&p, "learned sketch", "x", p.x, p.dx, p.rows * p.h);
        for_learned_tensors(&p, expect_learned_tensor, NULL);
        release(&p.pool);
    }
}

static void linear_sketch_backward_is_the_gradient(void **unused) {
    (void)unused;
    static const int64_t sizes[][3] = {/* rows, h, r */ {3, 5, 3}, {1, 1, 1}, {2, 3, 7}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        sketch_problem p;
        make_sketch_problem(&p, LINEAR, sizes[i][0], sizes[i][1], sizes[i][2]);
        p.linear = (psk_ref_linear_sketch){
            p.h, p.r, {take_random(&p.pool, p.r * p.h, "Wa"), take_random(&p.pool, p.r * p.h, "Wb")}};
        p.dlinear = (psk_ref_linear_sketch){p.h, p.r, {take_zero(&p.pool, p.r * p.h), take_zero(&p.pool, p.r * p.h)}};
        sketch_backward(&p);
        expect_sketch_gradient(&p, "linear sketch", "x", p.x, p.dx, p.rows * p.h);
        expect_sketch_gradient(&p, "linear sketch", "Wa", p.linear.weight[0], p.dlinear.weight[0], p.r * p.h);
        expect_sketch_gradient(&p, "linear sketch", "Wb", p.linear.weight[1], p.dlinear.weight[1], p.r * p.h);
        release(&p.pool);
    }
}

/* By hand: x = (1, 2) meets (3, 4) and (5, 6): 11 * 17 / sqrt(1). With r = 4 equal rows: half of it. */
static void linear_sketch_by_hand(void **unused) {
    (void)unused;
    const double x[2] = {1, 2};
    double a[8] = {3, 4, 3, 4, 3, 4, 3, 4}, b[8] = {5, 6, 5, 6, 5, 6, 5, 6}, out[4];
    psk_ref_linear_sketch_forward(&(psk_ref_linear_sketch){2, 1, {a, b}}, 1, x, out);
    assert_true(out[0] == 187);
    psk_ref_linear_sketch_forward(&(psk_ref_linear_sketch){2, 4, {a, b}}, 1, x, out);
    assert_true(out[0] == 93.5 && out[3] == 93.5);
}

static void performer_backward_is_the_gradient(void **unused) {
    (void)unused;
    static const int64_t sizes[][3] = {/* rows, h, m */ {3, 5, 3}, {1, 1, 1}, {2, 4, 7}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        sketch_problem p;
        make_sketch_problem(&p, PERFORMER, sizes[i][0], sizes[i][1], sizes[i][2]);
        p.performer = (psk_ref_performer){p.h, p.r, take_random(&p.pool, p.r * p.h, "projection")};
        sketch_backward(&p);
        expect_sketch_gradient(&p, "performer features", "x", p.x, p.dx, p.rows * p.h);
        release(&p.pool);
    }
}

/* The golden files are float32: 6e-8 of rounding in the inputs, some times that in a product of degree 8 or 16. */
static const double golden_limit = 1e-6;

static double *golden_read(test_pool *pool, const psk_safetensors *file, const char *name) {
    const psk_tensor_view *view = psk_safetensors_find(file, name);
    if (view == NULL)
        return NULL;
    float *floats;
    PSK_TEST_OK(psk_alloc((size_t)view->count * sizeof *floats, name, (void **)&floats));
    PSK_TEST_OK(psk_safetensors_read_floats(file, name, view->dims, view->shape, floats));
    double *x = take(pool, view->count);
    for (int64_t i = 0; i < view->count; i++)
        x[i] = floats[i];
    psk_free(floats);
    return x;
}

static void golden_expect(test_pool *pool, const psk_safetensors *file, const char *name, const double *got) {
    const psk_tensor_view *view = psk_safetensors_find(file, name);
    if (view == NULL || got == NULL) {
        print_error("%s: %s is in only one of file and test\n", psk_safetensors_path(file), name);
        fail();
        return;
    }
    expect_close(psk_safetensors_path(file), name, relative_error(got, golden_read(pool, file, name), view->count, 0),
                 golden_limit);
}

static double golden_number(const psk_safetensors *file, const char *key, double absent) {
    const char *text = psk_safetensors_metadata(file, key);
    return text == NULL ? absent : strtod(text, NULL);
}

static psk_attention_config golden_config(const psk_safetensors *file) {
    const char *name = psk_safetensors_metadata(file, "mechanism"), *causal = psk_safetensors_metadata(file, "causal");
    assert_non_null(name);
    psk_attention_config config = {.mechanism = PSK_POLYSKETCH, .far_scale = 1};
    if (strstr(name, "softmax") != NULL)
        config.mechanism = PSK_SOFTMAX;
    else if (strstr(name, "polynomial") != NULL)
        config.mechanism = PSK_POLYNOMIAL;
    else if (strstr(name, "performer") != NULL)
        config.mechanism = PSK_PERFORMER;
    else if (strstr(name, "local") != NULL)
        config.local = PSK_LOCAL_BLOCK;
    else if (strstr(name, "window") != NULL)
        config.local = PSK_LOCAL_WINDOW;
    else
        assert_non_null(strstr(name, "squared"));
    config.degree = (int64_t)golden_number(file, "degree", 2);
    config.block_size = (int64_t)golden_number(file, "block_size", 16);
    config.denominator_bias = (float)golden_number(file, "denominator_bias", 0);
    config.direction = causal != NULL && strcmp(causal, "false") == 0 ? PSK_BIDIRECTIONAL : PSK_CAUSAL;
    return config;
}

static psk_attention_shape golden_shape(const psk_safetensors *file) {
    const psk_tensor_view *query = psk_safetensors_find(file, "q"), *features = psk_safetensors_find(file, "a");
    const psk_tensor_view *value = psk_safetensors_find(file, "v"), *projection = psk_safetensors_find(file, "proj");
    const psk_tensor_view *rows = query != NULL ? query : features;
    assert_non_null(rows);
    assert_non_null(value);
    const int64_t h = query == NULL ? 1 : query->shape[3];
    const int64_t r = features != NULL ? features->shape[3] : projection != NULL ? projection->shape[0] : 0;
    return (psk_attention_shape){
        rows->shape[0], rows->shape[1], value->shape[1], rows->shape[2], value->shape[2], h, value->shape[3], r};
}

/* Packed pairs from the symmetric r x r of each head: z_xy for x <= y, or z_xy + z_yx (x < y) for a gradient, since the
 * one packed number stands for both. */
static double *pack_state(test_pool *pool, const double *full, const psk_attention_shape *s, bool gradient) {
    if (full == NULL)
        return NULL;
    const int64_t r = s->r, n = s->d + 1, heads = s->B * s->Hkv;
    double *packed = take(pool, heads * r * (r + 1) / 2 * n), *next = packed;
    for (int64_t head = 0; head < heads; head++)
        for (int64_t x = 0; x < r; x++)
            for (int64_t y = x; y < r; y++)
                for (int64_t c = 0; c < n; c++) {
                    const double upper = full[((head * r + x) * r + y) * n + c],
                                 lower = full[((head * r + y) * r + x) * n + c];
                    *next++ = gradient && x < y ? upper + lower : upper;
                }
    return packed;
}

static void golden_state_expect(test_pool *pool, const psk_safetensors *file, const char *name,
                                const psk_attention_shape *s, const double *got, bool gradient) {
    double *full = golden_read(pool, file, name);
    if (full == NULL)
        return;
    const double *want = pack_state(pool, full, s, gradient);
    expect_close(psk_safetensors_path(file), name,
                 relative_error(got, want, s->B * s->Hkv * s->r * (s->r + 1) / 2 * (s->d + 1), 0), golden_limit);
}

/* a = f(q), b = f(k) */
static void golden_features(test_pool *pool, const psk_ref_performer *performer, const psk_attention_shape *s,
                            psk_ref_attention_tensors *t) {
    double *a = take(pool, s->B * s->H * s->Nq * s->r), *b = take(pool, s->B * s->Hkv * s->Nk * s->r);
    psk_ref_performer_forward(performer, s->B * s->H * s->Nq, t->q, a);
    psk_ref_performer_forward(performer, s->B * s->Hkv * s->Nk, t->k, b);
    t->a = a;
    t->b = b;
}

static void golden_documents(const psk_safetensors *file, int64_t *cu_seqlens, psk_ref_attention_tensors *t) {
    const psk_tensor_view *view = psk_safetensors_find(file, "cu_seqlens");
    if (view == NULL)
        return;
    assert_int_equal(view->dtype, PSK_I32);
    for (int64_t i = 0; i < view->count; i++) {
        int32_t value;
        memcpy(&value, (const char *)view->data + i * (int64_t)sizeof value, sizeof value);
        cu_seqlens[i] = value;
    }
    t->cu_seqlens = cu_seqlens;
    t->documents = view->count - 1;
}

static void golden_gradients(test_pool *pool, const psk_safetensors *file, const psk_attention_shape *s,
                             psk_ref_attention_tensors *t) {
    const int64_t queries = s->B * s->H * s->Nq, keys = s->B * s->Hkv * s->Nk;
    t->dq = t->q == NULL ? NULL : take(pool, queries * s->h);
    t->dk = t->k == NULL ? NULL : take(pool, keys * s->h);
    t->dv = take(pool, keys * s->d);
    t->da = t->a == NULL ? NULL : take(pool, queries * s->r);
    t->db = t->b == NULL ? NULL : take(pool, keys * s->r);
    t->dout = golden_read(pool, file, "dout");
    assert_non_null(t->dout);
}

static void check_golden_attention(const psk_safetensors *file) {
    test_pool pool = {.count = 0};
    const psk_attention_config config = golden_config(file);
    const psk_attention_shape s = golden_shape(file);
    const psk_ref_performer performer = {s.h, s.r, golden_read(&pool, file, "proj")};
    int64_t cu_seqlens[8];
    psk_ref_attention_tensors t = {.q = golden_read(&pool, file, "q"),
                                   .k = golden_read(&pool, file, "k"),
                                   .v = golden_read(&pool, file, "v"),
                                   .a = golden_read(&pool, file, "a"),
                                   .b = golden_read(&pool, file, "b")};
    if (config.mechanism == PSK_PERFORMER)
        golden_features(&pool, &performer, &s, &t);
    golden_documents(file, cu_seqlens, &t);
    t.state0 = pack_state(&pool, golden_read(&pool, file, "state0"), &s, false);
    t.dstate1 = pack_state(&pool, golden_read(&pool, file, "dstate1"), &s, true);
    const int64_t state_count = s.B * s.Hkv * s.r * (s.r + 1) / 2 * (s.d + 1);
    const bool stateful = config.mechanism == PSK_POLYSKETCH && t.cu_seqlens == NULL;
    t.state1 = stateful ? take(&pool, state_count) : NULL;
    t.dstate0 = t.state0 != NULL ? take(&pool, state_count) : NULL;
    t.out = take(&pool, s.B * s.H * s.Nq * s.d);
    golden_gradients(&pool, file, &s, &t);
    PSK_TEST_OK(psk_ref_attention_forward(&config, &s, &t));
    PSK_TEST_OK(psk_ref_attention_backward(&config, &s, &t));
    if (config.mechanism == PSK_PERFORMER) {
        psk_ref_performer_backward(&performer, s.B * s.H * s.Nq, t.q, t.da, t.dq);
        psk_ref_performer_backward(&performer, s.B * s.Hkv * s.Nk, t.k, t.db, t.dk);
    } else if (t.a != NULL) {
        golden_expect(&pool, file, "da", t.da);
        golden_expect(&pool, file, "db", t.db);
    }
    if (t.q != NULL) {
        golden_expect(&pool, file, "dq", t.dq);
        golden_expect(&pool, file, "dk", t.dk);
    }
    golden_expect(&pool, file, "out", t.out);
    golden_expect(&pool, file, "dv", t.dv);
    golden_state_expect(&pool, file, "state", &s, t.state1, false);
    golden_state_expect(&pool, file, "state1", &s, t.state1, false);
    golden_state_expect(&pool, file, "dstate0", &s, t.dstate0, true);
    release(&pool);
}

static void golden_learned_read(sketch_problem *p, psk_ref_level *weights, psk_ref_level *gradients, int64_t tensor,
                                int64_t count, const char *name, const void *file) {
    *level_place(weights, tensor) = golden_read(&p->pool, file, name);
    *level_place(gradients, tensor) = take_zero(&p->pool, count);
}

static void golden_learned_expect(sketch_problem *p, psk_ref_level *weights, psk_ref_level *gradients, int64_t tensor,
                                  int64_t count, const char *name, const void *file) {
    (void)weights, (void)count;
    char gradient[72];
    snprintf(gradient, sizeof gradient, "d%s", name);
    golden_expect(&p->pool, file, gradient, *level_place(gradients, tensor));
}

static void check_golden_sketch(const psk_safetensors *file) {
    const psk_tensor_view *x = psk_safetensors_find(file, "x");
    assert_non_null(x);
    const int64_t h = x->shape[x->dims - 1], degree = (int64_t)golden_number(file, "degree", 0);
    const int64_t r = (int64_t)golden_number(file, "sketch_size", 0);
    const double *g[14];
    char name[32];
    sketch_problem p;
    make_sketch_problem(&p, degree > 0 ? RANDOM : LEARNED, x->count / h, h, r);
    p.x = golden_read(&p.pool, file, "x");
    p.dout = golden_read(&p.pool, file, "dout");
    for (int64_t j = 0; j < degree - 2; j++) {
        snprintf(name, sizeof name, "g.%" PRId64, j);
        g[j] = golden_read(&p.pool, file, name);
    }
    p.random = (psk_ref_random_sketch){.h = h, .r = r, .p = degree, .g = g};
    p.learned = (psk_ref_learned_sketch){.h = h, .r = r, .hidden = r * (int64_t)golden_number(file, "expansion", 0)};
    if (p.form == LEARNED)
        for_learned_tensors(&p, golden_learned_read, file);
    sketch_forward(&p, p.out);
    sketch_backward(&p);
    golden_expect(&p.pool, file, "out", p.out);
    golden_expect(&p.pool, file, "dx", p.dx);
    if (p.form == LEARNED)
        for_learned_tensors(&p, golden_learned_expect, file);
    release(&p.pool);
}

/* check() on each file of the golden folder whose name starts so; returns how many there were. */
static int64_t for_golden(const char *prefix, void (*check)(const psk_safetensors *file)) {
    char **names;
    int64_t count, found = 0;
    PSK_TEST_OK(psk_list_folder(golden_folder, &names, &count));
    for (int64_t i = 0; i < count; i++) {
        if (strncmp(names[i], prefix, strlen(prefix)) != 0)
            continue;
        char *path;
        psk_safetensors *file;
        PSK_TEST_OK(psk_join_path(golden_folder, names[i], &path));
        PSK_TEST_OK(psk_safetensors_open(path, &file));
        check(file);
        psk_safetensors_close(file);
        psk_free(path);
        found++;
    }
    psk_free_names(names, count);
    return found;
}

static void attention_agrees_with_golden_vectors(void **unused) {
    (void)unused;
    assert_true(for_golden("attention_", check_golden_attention) > 0);
}

static void sketches_agree_with_golden_vectors(void **unused) {
    (void)unused;
    assert_true(for_golden("sketch_", check_golden_sketch) > 0);
}

int main(int argc, char **argv) {
    if (argc > 1)
        golden_folder = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_backward_is_the_gradient),
        cmocka_unit_test(attention_of_a_cut_sequence_is_that_of_the_whole),
        cmocka_unit_test(attention_without_any_weight_is_zero),
        cmocka_unit_test(local_only_sees_its_keys_alone),
        cmocka_unit_test(normaliser_is_the_sum_of_the_weights),
        cmocka_unit_test(random_sketch_backward_is_the_gradient),
        cmocka_unit_test(learned_sketch_backward_is_the_gradient),
        cmocka_unit_test(linear_sketch_backward_is_the_gradient),
        cmocka_unit_test(linear_sketch_by_hand),
        cmocka_unit_test(performer_backward_is_the_gradient),
        cmocka_unit_test(attention_agrees_with_golden_vectors),
        cmocka_unit_test(sketches_agree_with_golden_vectors),
    };
    return cmocka_run_group_tests_name("reference", tests, NULL, NULL);
}
