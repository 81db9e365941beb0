/* Products of bfloat16: the dense product of the CPU device, and the precision of a device. */
#include "base/bf16.h"
#include "device/device.h"
#include "support.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

static psk_device *make_device(int threads) {
    psk_device *device;
    PSK_TEST_OK(psk_device_create("cpu", threads, &device));
    return device;
}

typedef struct product_case {
    int64_t m, n, k, spare; /* spare: columns beside every matrix */
    psk_orientation a_orientation, b_orientation;
    float beta;
} product_case;

static int64_t stored_ld(psk_orientation orientation, int64_t rows, int64_t columns, int64_t spare) {
    return (orientation == PSK_PLAIN ? columns : rows) + spare;
}

static int64_t stored_rows(psk_orientation orientation, int64_t rows, int64_t columns) {
    return orientation == PSK_PLAIN ? rows : columns;
}

static double element(const float *x, int64_t ld, psk_orientation orientation, int64_t i, int64_t j) {
    const float value = orientation == PSK_PLAIN ? x[i * ld + j] : x[j * ld + i];
    return (double)psk_bf16_to_float(psk_bf16_from_float(value));
}

/* c = op(A) op(B) + beta c of the rounded operands, sums in double. */
static void expect(const psk_matmul_args *p, float *c) {
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            double sum = p->beta == 0.0f ? 0.0 : (double)c[i * p->ldc + j];
            for (int64_t l = 0; l < p->k; l++)
                sum += element(p->a, p->lda, p->a_orientation, i, l) * element(p->b, p->ldb, p->b_orientation, l, j);
            c[i * p->ldc + j] = (float)sum;
        }
}

static double c_error(const psk_matmul_args *p, const float *got, const float *want) {
    double error = 0, size = 0;
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            const double w = (double)want[i * p->ldc + j], off = (double)got[i * p->ldc + j] - w;
            error += off * off;
            size += w * w;
        }
    return sqrt(error / size);
}

/* The columns beside C keep what they held. */
static void check_spare(const psk_matmul_args *p, const float *got, const float *before) {
    for (int64_t i = 0; i < p->m; i++)
        assert_memory_equal(got + i * p->ldc + p->n, before + i * p->ldc + p->n,
                            (size_t)(p->ldc - p->n) * sizeof(float));
}

static void check_product(psk_device *device, const product_case *c) {
    const int64_t lda = stored_ld(c->a_orientation, c->m, c->k, c->spare),
                  ldb = stored_ld(c->b_orientation, c->k, c->n, c->spare), ldc = c->n + c->spare;
    const int64_t a_count = stored_rows(c->a_orientation, c->m, c->k) * lda,
                  b_count = stored_rows(c->b_orientation, c->k, c->n) * ldb, c_count = c->m * ldc;
    float *a = psk_test_random(a_count, 1, "a"), *b = psk_test_random(b_count, 1, "b"), *got = psk_test_buffer(c_count),
          *want = psk_test_buffer(c_count),
          *before = c->beta == 0.0f ? psk_test_buffer(c_count) : psk_test_random(c_count, 1, "c");
    memcpy(got, before, (size_t)c_count * sizeof(float));
    memcpy(want, before, (size_t)c_count * sizeof(float));
    psk_matmul_args args = {.batch = 1,
                            .m = c->m,
                            .n = c->n,
                            .k = c->k,
                            .a = a,
                            .lda = lda,
                            .b = b,
                            .ldb = ldb,
                            .c = got,
                            .ldc = ldc,
                            .alpha = 1,
                            .beta = c->beta,
                            .a_orientation = c->a_orientation,
                            .b_orientation = c->b_orientation};
    PSK_TEST_OK(device->ops->matmul(device, &args));
    check_spare(&args, got, before);
    expect(&args, want);
    const double error = c_error(&args, got, want);
    if (!(error <= 1e-5))
        fail_msg("%lld x %lld x %lld, orientations %d %d, beta %g: error %.2g", (long long)c->m, (long long)c->n,
                 (long long)c->k, c->a_orientation, c->b_orientation, (double)c->beta, error);
    psk_test_free(a);
    psk_test_free(b);
    psk_test_free(got);
    psk_test_free(want);
    psk_test_free(before);
}

/* Sizes at the edges of what is served, of parts (64 to 768) with few rows in the last, of steps along k (768)
 * and pieces (8192, or 2048 where tiles share parts), and of a C that is written past the caches (4 MiB). */
static const int64_t sizes[][3] = {{64, 64, 32},    {65, 67, 33},     {257, 97, 300},  {64, 769, 129},
                                   {300, 70, 2048}, {70, 130, 2049},  {66, 64, 4100},  {2100, 64, 2050},
                                   {64, 65, 8200},  {200, 210, 2080}, {1030, 1025, 40}};

static void test_products(void **state) {
    (void)state;
    psk_device *device = make_device(2);
    if (!device->has_bf16)
        skip();
    PSK_TEST_OK(psk_device_set_precision(device, PSK_PRECISION_BF16));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int form = 0; form < 8; form++) {
            const product_case c = {.m = sizes[i][0],
                                    .n = sizes[i][1],
                                    .k = sizes[i][2],
                                    .spare = form % 2 == 0 ? 0 : 5,
                                    .a_orientation = form & 1 ? PSK_TRANSPOSED : PSK_PLAIN,
                                    .b_orientation = form & 2 ? PSK_TRANSPOSED : PSK_PLAIN,
                                    .beta = form & 4 ? 1.0f : 0.0f};
            check_product(device, &c);
        }
    psk_device_free(device);
}

/* m x n of one product on a device of so many threads. */
static float *product_with(int threads, psk_precision precision, int64_t m, int64_t n, int64_t k) {
    psk_device *device = make_device(threads);
    float *a = psk_test_random(m * k, 1, "a"), *b = psk_test_random(k * n, 1, "b"), *c = psk_test_buffer(m * n);
    PSK_TEST_OK(psk_device_set_precision(device, precision));
    PSK_TEST_OK(psk_matmul(device, m, n, k, a, b, c));
    psk_device_free(device);
    psk_test_free(a);
    psk_test_free(b);
    return c;
}

static bool has_bf16(void) {
    psk_device *device = make_device(1);
    const bool has = device->has_bf16;
    psk_device_free(device);
    return has;
}

static void test_bits_do_not_depend_on_threads(void **state) {
    (void)state;
    if (!has_bf16())
        skip();
    const int64_t m = 700, n = 530, k = 2300;
    float *want = product_with(1, PSK_PRECISION_BF16, m, n, k);
    const int threads[] = {2, 3, 8};
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        float *got = product_with(threads[i], PSK_PRECISION_BF16, m, n, k);
        assert_memory_equal(got, want, (size_t)(m * n) * sizeof(float));
        psk_test_free(got);
    }
    psk_test_free(want);
}

/* The precision that is asked for is the one that is used. */
static void test_operands_are_rounded(void **state) {
    (void)state;
    if (!has_bf16())
        skip();
    const int64_t n = 128;
    float *fine = product_with(2, PSK_PRECISION_F32, n, n, n), *rounded = product_with(2, PSK_PRECISION_BF16, n, n, n);
    const psk_matmul_args shape = {.m = n, .n = n, .ldc = n};
    const double error = c_error(&shape, rounded, fine);
    if (!(error > 1e-4 && error < 1e-2))
        fail_msg("rms difference between the precisions is %.2g, expected that of bfloat16, about 2e-3", error);
    psk_test_free(fine);
    psk_test_free(rounded);
}

/* More shapes than are kept: all are made afresh, none is mistaken for another. */
static void test_many_shapes(void **state) {
    (void)state;
    psk_device *device = make_device(1);
    if (!device->has_bf16)
        skip();
    PSK_TEST_OK(psk_device_set_precision(device, PSK_PRECISION_BF16));
    for (int64_t i = 0; i < 300; i++)
        check_product(device, &(product_case){.m = 64 + i % 17, .n = 64 + i % 13, .k = 32 + i % 19, .beta = 0});
    psk_device_free(device);
}

static void test_device_precision(void **state) {
    (void)state;
    psk_device *device;
    PSK_TEST_OK(psk_device_create("reference", 1, &device));
    assert_int_equal(psk_device_precision(device), PSK_PRECISION_F32);
    PSK_TEST_OK(psk_device_set_precision(device, PSK_PRECISION_F32));
    PSK_TEST_FAILS(psk_device_set_precision(device, PSK_PRECISION_BF16), PSK_ERROR_UNSUPPORTED, "no instructions");
    PSK_TEST_FAILS(psk_device_set_precision(device, (psk_precision)7), PSK_ERROR_ARGUMENT, "precision 7");
    assert_int_equal(psk_device_precision(device), PSK_PRECISION_F32);
    assert_string_equal(psk_precision_name(PSK_PRECISION_BF16), "bfloat16");
    assert_null(psk_precision_name((psk_precision)7));
    psk_device_free(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_bits_do_not_depend_on_threads),
        cmocka_unit_test(test_operands_are_rounded),
        cmocka_unit_test(test_many_shapes),
        cmocka_unit_test(test_device_precision),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
