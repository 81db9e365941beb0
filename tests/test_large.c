/* Very large activations over 32k keys, in float32 and bfloat16: outputs and gradients are finite, outputs are still
 * means of the values, and the gradients of the values still add up to those of the outputs. (The limits are in
 * docs/numerics.md.) */
#include "support.h"

#include "attention/attention.h"

#include <math.h>
#include <stdio.h>

#define SEED           20250301u
#define TOKENS         32768
#define FEW_QUERIES    96   /* of the quadratic forms: each sees nearly all keys */
#define LARGEST_WEIGHT 1e30 /* of the polynomial and sketched forms: the sum of 32k stays below 3e38 */
#define INEXACT_SCORE  1e30 /* softmax: finite, but no longer exact */
#define COUNT(array)   ((int64_t)(sizeof(array) / sizeof(array)[0]))

typedef struct large_case {
    psk_attention_config config;
    psk_attention_shape shape;
    double product, product_ab; /* <q,k> and <a,b> of large rows that are alike */
} large_case;

#define STATE(c) 0
#include "attention_tensors.h"

static const struct {
    psk_mechanism mechanism;
    psk_local local;
    int64_t degree;
    double softmax_product;
} variants[] = {
    {PSK_POLYSKETCH, PSK_LOCAL_NONE, 4, 0},   {PSK_POLYSKETCH, PSK_LOCAL_BLOCK, 4, 0},
    {PSK_POLYSKETCH, PSK_LOCAL_WINDOW, 4, 0}, {PSK_POLYSKETCH, PSK_LOCAL_WINDOW, 8, 0},
    {PSK_POLYNOMIAL, PSK_LOCAL_NONE, 4, 0},   {PSK_POLYNOMIAL, PSK_LOCAL_NONE, 8, 0},
    {PSK_SOFTMAX, PSK_LOCAL_NONE, 2, 100},    {PSK_SOFTMAX, PSK_LOCAL_NONE, 2, INEXACT_SCORE},
};

static large_case make_case(int64_t v) {
    large_case c = {.config = psk_attention_config_default(),
                    .shape = {.B = 1, .H = 1, .Hkv = 1, .Nq = TOKENS, .Nk = TOKENS, .h = 16, .d = 9, .r = 12}};
    c.config.mechanism = variants[v].mechanism;
    c.config.local = variants[v].local;
    c.config.degree = variants[v].degree;
    c.config.sketch_size = c.shape.r;
    if (!psk_attention_uses_ab(&c.config)) {
        c.shape.r = 0;
        c.shape.Nq = FEW_QUERIES;
    }
    c.product = pow(LARGEST_WEIGHT, 1.0 / (double)c.config.degree);
    if (c.config.mechanism == PSK_SOFTMAX)
        c.product = variants[v].softmax_product;
    c.product_ab = sqrt(LARGEST_WEIGHT);
    return c;
}

typedef enum rows_kind { ALIKE, RANDOM, ONE_LARGE, KINDS } rows_kind;
static const char *const kind_names[KINDS] = {"alike", "random", "one ten times as long"};

/* Rows of n numbers: all the same; N(0, 1) times a factor; or such rows, all but one of a tenth of the length. */
static float *make_rows(rows_kind kind, int64_t rows, int64_t n, double product, const char *name) {
    float *x = psk_test_random(rows * n, SEED, name);
    const double size = sqrt(product / (double)n);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < n; j++)
            if (kind == ALIKE)
                x[i * n + j] = (float)(j % 2 == 0 ? size : -size);
            else
                x[i * n + j] *= (float)(kind == RANDOM || i == rows / 2 ? size : size / 10);
    return x;
}

static psk_attention_tensors make_tensors(const large_case *c, rows_kind kind) {
    const psk_attention_shape *s = &c->shape;
    psk_attention_tensors t = {0};
    if (psk_attention_uses_qk(&c->config)) {
        t.q = make_rows(kind, QUERIES(c), s->h, c->product, "q");
        t.k = make_rows(kind, KEYS(c), s->h, c->product, "k");
    }
    if (s->r > 0) {
        t.a = make_rows(kind, QUERIES(c), s->r, c->product_ab, "a");
        t.b = make_rows(kind, KEYS(c), s->r, c->product_ab, "b");
    }
    t.v = psk_test_random(KEYS(c) * s->d, SEED, "v");
    t.dout = psk_test_random(QUERIES(c) * s->d, SEED, "dout");
#define X(name, count) t.name = (count) > 0 ? psk_test_buffer(count) : NULL;
    OUTPUTS(X)
#undef X
    return t;
}

static double largest_of(const float *x, int64_t n) {
    double largest = 0;
    for (int64_t i = 0; i < n; i++)
        largest = fabs((double)x[i]) <= largest ? largest : fabs((double)x[i]); /* NaN stays */
    return largest;
}

/* rms over the columns of sum of dv - sum of dout (1 - beta / normaliser), relative to the latter: dv_j = sum_i w_ij
 * dout_i / normaliser_i. */
static double missing_gradient(const large_case *c, const psk_attention_tensors *t) {
    const int64_t d = c->shape.d;
    double off = 0, size = 0;
    for (int64_t column = 0; column < d; column++) {
        double got = 0, want = 0;
        for (int64_t i = 0; i < KEYS(c); i++)
            got += (double)t->dv[i * d + column];
        for (int64_t i = 0; i < QUERIES(c); i++) {
            const double beta = c->config.mechanism == PSK_SOFTMAX ? 0 : (double)c->config.denominator_bias;
            want += (double)t->dout[i * d + column] * (1 - beta / (double)t->normaliser[i]);
        }
        off += (got - want) * (got - want);
        size += want * want;
    }
    return sqrt(off / size);
}

/* The number of things that are wrong. `rounding`: of an operand; dV has been through four, and sums of 32k floats. */
static int check(const large_case *c, const psk_attention_tensors *t, double rounding, const char *what) {
    int failures = 0;
#define X(name, count)                                                                                                 \
    if ((count) > 0 && !isfinite(largest_of(t->name, count))) {                                                        \
        print_message("%s: " #name " is not finite\n", what);                                                          \
        failures++;                                                                                                    \
    }
    OUTPUTS(X)
#undef X
    const double reach = largest_of(t->out, QUERIES(c) * c->shape.d) / largest_of(t->v, KEYS(c) * c->shape.d);
    if (!(reach <= 1 + 4 * rounding)) {
        print_message("%s: an output is %g times the largest value\n", what, reach);
        failures++;
    }
    const double missing = missing_gradient(c, t), limit = 4 * rounding + sqrt(TOKENS) * 0x1p-24;
    if (!(c->product >= INEXACT_SCORE || missing <= limit)) {
        print_message("%s: %g of dv is missing, limit %g\n", what, missing, limit);
        failures++;
    }
    return failures;
}

static int run_case(psk_device *device, const large_case *c, rows_kind kind) {
    const psk_precision precision = psk_device_precision(device);
    char what[128];
    psk_attention *attention;
    psk_attention_tensors t = make_tensors(c, kind);
    PSK_TEST_OK(psk_attention_create(device, &c->config, &c->shape, &attention));
    PSK_TEST_OK(psk_attention_forward(attention, &t));
    PSK_TEST_OK(psk_attention_backward(attention, &t));
    psk_attention_free(attention);
    snprintf(what, sizeof what, "%s, local %s, degree %d, %s, rows %s (seed %u)",
             psk_mechanism_name(c->config.mechanism), psk_local_name(c->config.local), (int)c->config.degree,
             psk_precision_name(precision), kind_names[kind], SEED);
    const int failures = check(c, &t, precision == PSK_PRECISION_BF16 ? 0x1p-9 : 0x1p-24, what);
    free_tensors(&t);
    return failures;
}

static void all_is_finite(void **state) {
    const psk_precision precision = *(const psk_precision *)*state;
    psk_device *device;
    int failures = 0;
    PSK_TEST_OK(psk_device_create("cpu", 2, &device));
    PSK_TEST_OK(psk_device_set_precision(device, precision));
    for (int64_t v = 0; v < COUNT(variants); v++)
        for (rows_kind kind = 0; kind < KINDS; kind++) {
            const large_case c = make_case(v);
            failures += run_case(device, &c, kind);
        }
    psk_device_free(device);
    assert_int_equal(failures, 0);
}

int main(void) {
    psk_precision f32 = PSK_PRECISION_F32, bf16 = PSK_PRECISION_BF16;
    const struct CMUnitTest tests[] = {
        {"float32_is_finite", all_is_finite, NULL, NULL, &f32},
        {"bfloat16_is_finite", all_is_finite, NULL, NULL, &bf16},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
