/* Public functions for measuring (psk_matmul, psk_sketch_bench), and the text of a token. */
#include "support.h"

#include "polysketch.h"

#include <math.h>

#define SEED 11

static psk_device *cpu, *reference;

static int set_up(void **state) {
    (void)state;
    print_message("seed %d\n", SEED);
    PSK_TEST_OK(psk_device_create("cpu", 2, &cpu));
    PSK_TEST_OK(psk_device_create("reference", 1, &reference));
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    psk_device_free(cpu);
    psk_device_free(reference);
    return 0;
}

static void check_matmul(int64_t m, int64_t n, int64_t k) {
    float *const a = psk_test_random(m * k, SEED, "a"), *const b = psk_test_random(k * n, SEED, "b");
    float *const c = psk_test_buffer(m * n), *const want = psk_test_buffer(m * n);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += (double)a[i * k + l] * (double)b[l * n + j];
            want[i * n + j] = (float)sum;
        }
    PSK_TEST_OK(psk_matmul(cpu, m, n, k, a, b, c));
    PSK_TEST_AT_MOST(psk_test_relative_rms(c, want, m * n), 1e-6);
    psk_test_free(a);
    psk_test_free(b);
    psk_test_free(c);
    psk_test_free(want);
}

static void test_matmul(void **state) {
    (void)state;
    check_matmul(1, 1, 1);
    check_matmul(2, 3, 5);
    check_matmul(33, 17, 65);
    float x = 0;
    PSK_TEST_FAILS(psk_matmul(cpu, -1, 1, 1, &x, &x, &x), PSK_ERROR_ARGUMENT, "-1 x 1 x 1");
    PSK_TEST_FAILS(psk_matmul(cpu, INT64_MAX, 1, 2, &x, &x, &x), PSK_ERROR_ARGUMENT, "");
}

/* On both devices: sketches of `rows` rows and their gradient. */
static void check_sketch(psk_attention_config config, int64_t h, int64_t rows) {
    const int64_t r = config.sketch_size;
    psk_device *const devices[2] = {cpu, reference};
    float *const x = psk_test_random(rows * h, SEED, "x");
    float *s[2], *ds[2], *dx[2];
    for (int i = 0; i < 2; i++) {
        psk_sketch_bench *bench;
        s[i] = psk_test_buffer(rows * r);
        ds[i] = psk_test_random(rows * r, SEED, "ds");
        dx[i] = psk_test_buffer(rows * h);
        PSK_TEST_OK(psk_sketch_bench_create(devices[i], &config, h, rows, &bench));
        PSK_TEST_OK(psk_sketch_bench_run(bench, x, s[i], NULL, NULL));
        PSK_TEST_OK(psk_sketch_bench_run(bench, x, s[i], ds[i], dx[i]));
        psk_sketch_bench_free(bench);
    }
    PSK_TEST_AT_MOST(psk_test_relative_rms(s[0], s[1], rows * r), 1e-5);
    PSK_TEST_AT_MOST(psk_test_relative_rms(dx[0], dx[1], rows * h), 1e-5);
    for (int i = 0; i < 2; i++) {
        psk_test_free(s[i]);
        psk_test_free(ds[i]);
        psk_test_free(dx[i]);
    }
    psk_test_free(x);
}

static void test_sketches(void **state) {
    (void)state;
    psk_attention_config config = psk_attention_config_default();
    psk_sketch_bench *bench;
    for (int sketch = 0; psk_sketch_name((psk_sketch)sketch); sketch++) {
        config.sketch = (psk_sketch)sketch;
        config.sketch_size = 8;
        check_sketch(config, 16, 1);
        check_sketch(config, 16, 37);
    }
    config.mechanism = PSK_PERFORMER;
    check_sketch(config, 16, 37);
    PSK_TEST_FAILS(psk_sketch_bench_create(cpu, &config, 16, 0, &bench), PSK_ERROR_ARGUMENT, "0 rows");
    assert_null(bench);
    PSK_TEST_FAILS(psk_sketch_bench_create(cpu, &config, 0, 5, &bench), PSK_ERROR_ARGUMENT, "0");
    config.mechanism = PSK_SOFTMAX;
    PSK_TEST_FAILS(psk_sketch_bench_create(cpu, &config, 16, 5, &bench), PSK_ERROR_ARGUMENT, "softmax");
    psk_sketch_bench_free(NULL);
}

/* Mean of scale <x_i,x_j>^power over pairs of different rows. */
static double mean_weight(const float *x, int64_t rows, int64_t n, double power, double scale) {
    double sum = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < i; j++) {
            double product = 0;
            for (int64_t c = 0; c < n; c++)
                product += (double)x[i * n + c] * (double)x[j * n + c];
            sum += scale * pow(product, power);
        }
    return sum / ((double)rows * (double)(rows - 1) / 2);
}

/* Independent rows of mean 0 and variance 1, as LayerNorm leaves them. */
static float *normed_rows(int64_t rows, int64_t h) {
    float *const x = psk_test_random(rows * h, SEED, "rows");
    for (float *row = x; row < x + rows * h; row += h) {
        double mean = 0, square = 0;
        for (int64_t c = 0; c < h; c++)
            mean += (double)row[c] / (double)h;
        for (int64_t c = 0; c < h; c++)
            square += pow((double)row[c] - mean, 2) / (double)h;
        for (int64_t c = 0; c < h; c++)
            row[c] = (float)(((double)row[c] - mean) / sqrt(square));
    }
    return x;
}

/* Far weight over near weight of unrelated rows, of a model that has not learned yet. */
static double far_over_near(psk_sketch sketch, int64_t degree, int64_t h, int64_t r) {
    enum { ROWS = 400 };
    psk_attention_config config = psk_attention_config_default();
    psk_sketch_bench *bench;
    config.sketch = sketch;
    config.degree = degree;
    config.sketch_size = r;
    const psk_model_config model = {.n_embd = h, .n_head = 1, .n_positions = 1, .attention = config};
    float *const x = normed_rows(ROWS, h), *const s = psk_test_buffer(ROWS * r);
    PSK_TEST_OK(psk_sketch_bench_create(reference, &config, h, ROWS, &bench));
    PSK_TEST_OK(psk_sketch_bench_run(bench, x, s, NULL, NULL));
    const double far = mean_weight(s, ROWS, r, 2, (double)psk_default_far_scale(&model)),
                 near = mean_weight(x, ROWS, h, (double)degree, 1);
    psk_sketch_bench_free(bench);
    psk_test_free(x);
    psk_test_free(s);
    return far / near;
}

/* What psk_default_far_scale is for; the network starts a fortieth as loud. The estimate is of leading order in 1/r and
 * 1/h, and a sketch is one draw. */
static void test_far_and_near_weights_start_even(void **state) {
    (void)state;
    static const struct {
        psk_sketch sketch;
        int64_t degree, h, r;
    } cases[] = {
        {PSK_SKETCH_RANDOM, 4, 64, 32},         {PSK_SKETCH_RANDOM, 4, 32, 8},
        {PSK_SKETCH_RANDOM, 8, 64, 32},         {PSK_SKETCH_RANDOM_HADAMARD, 4, 64, 32},
        {PSK_SKETCH_LEARNED_LINEAR, 4, 64, 32}, {PSK_SKETCH_LEARNED_LINEAR, 2, 64, 16},
        {PSK_SKETCH_LEARNED, 4, 64, 32},        {PSK_SKETCH_LEARNED, 4, 32, 16},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const double ratio = (cases[i].sketch == PSK_SKETCH_LEARNED ? 40 : 1) *
                             far_over_near(cases[i].sketch, cases[i].degree, cases[i].h, cases[i].r);
        print_message("%s, p %d, h %d, r %d: %.2f\n", psk_sketch_name(cases[i].sketch), (int)cases[i].degree,
                      (int)cases[i].h, (int)cases[i].r, ratio);
        PSK_TEST_AT_MOST(fabs(log2(ratio)), 0.5);
    }
}

static psk_status create_sketch(void *config) {
    psk_sketch_bench *bench;
    const psk_status status = psk_sketch_bench_create(reference, config, 16, 5, &bench);
    psk_sketch_bench_free(bench);
    return status;
}

static void test_out_of_memory(void **state) {
    (void)state;
    psk_attention_config config = psk_attention_config_default();
    assert_true(psk_test_allocation_failures(create_sketch, &config) >= 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul),
        cmocka_unit_test(test_sketches),
        cmocka_unit_test(test_far_and_near_weights_start_even),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests_name("measure", tests, set_up, tear_down);
}
