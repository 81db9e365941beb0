/* Attention against its definition, and what must hold whatever the mechanism. */
#include "attention_cases.h"

#include "base/memory.h"
#include "reference/ref_attention.h"

#include <stdio.h>

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
            PSK_TEST_OK(run_planned(device, &c.config, &c.shape, &y));
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
            PSK_TEST_OK(run_planned(device, &c.config, &c.shape, &y));
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
        PSK_TEST_OK(run_planned(device, &squared.config, &squared.shape, &y));
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
        cmocka_unit_test(names_are_those_of_the_files),
    };
    return cmocka_run_group_tests_name("attention", tests, NULL, NULL);
}
