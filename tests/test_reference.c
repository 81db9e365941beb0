/* The reference attention: its gradients against finite differences, and sequences cut in two against whole ones. */
#include "reference/ref_attention.h"
#include "reference_support.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_backward_is_the_gradient),
        cmocka_unit_test(attention_of_a_cut_sequence_is_that_of_the_whole),
        cmocka_unit_test(attention_without_any_weight_is_zero),
        cmocka_unit_test(local_only_sees_its_keys_alone),
        cmocka_unit_test(normaliser_is_the_sum_of_the_weights),
    };
    return cmocka_run_group_tests_name("reference", tests, NULL, NULL);
}
