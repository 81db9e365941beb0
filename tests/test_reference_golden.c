/* The reference mechanisms and sketches against the golden vectors (test_reference_golden [DIR]: of that folder). */
#include "reference_sketch.h"

#include "base/files.h"
#include "io/safetensors.h"
#include "reference/ref_attention.h"

#include <stdlib.h>

static const char *golden_folder = PSK_GOLDEN_DIR;

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
        cmocka_unit_test(attention_agrees_with_golden_vectors),
        cmocka_unit_test(sketches_agree_with_golden_vectors),
    };
    return cmocka_run_group_tests_name("reference golden", tests, NULL, NULL);
}
