/* Tests of memory operations and the optimiser. */
#include "ops_harness.h"

#include <math.h>

/* batch, rows, n, gap behind x's rows and batches, gap behind y's */
static const int64_t cases_copy[][OPS_MAX_SIZES] = {
    {0, 2, 3},      {1, 1, 1},         {2, 0, 3},    {2, 3, 0},        {2, 3, 5, 1, 2},
    {1, 64, 65, 3}, {3, 63, 64, 0, 7}, {1, 1, 4099}, {7, 130, 129, 1}, {1, 3000, 7, 0, 1},
};

/* variant: bit 0 +=, bit 1 scaled, bit 2 in place (as x is laid out) */
static psk_status run_copy(ops_run *run, const int64_t *s, int64_t variant) {
    const bool add = variant & 1, scaled = variant & 2, in_place = variant & 4;
    const ops_layout from = {s[0], s[1], s[2], s[2] + s[3], s[1] * (s[2] + s[3]) + 3 * s[3]};
    const ops_layout to =
        in_place ? from : (ops_layout){s[0], s[1], s[2], s[2] + s[4], s[1] * (s[2] + s[4]) + 2 * s[4]};
    float *x = ops_new(run, "x", in_place ? OPS_INOUT : OPS_INPUT, from);
    float *y = in_place ? x : ops_new(run, "y", add ? OPS_INOUT : OPS_OUTPUT, to);
    ops_rounding(run, y, add || scaled ? 3 : 0, 0);
    OPS_CALL(run, copy, .batch = s[0], .rows = s[1], .n = s[2], .x_ld = from.ld, .x_stride = from.stride, .y_ld = to.ld,
             .y_stride = to.stride, .x = x, .y = y, .alpha = scaled ? -0.3F : 1, .write = add ? PSK_ADD : PSK_SET);
    return PSK_OK;
}

OPS_TEST(copy, 8);

static const int64_t cases_fill[][OPS_MAX_SIZES] = {{0}, {1}, {63}, {64}, {65}, {4099}, {100003}};

static psk_status run_fill(ops_run *run, const int64_t *s, int64_t variant) {
    float *x = ops_new(run, "x", OPS_OUTPUT, ops_flat(s[0]));
    ops_rounding(run, x, 0, 0);
    OPS_CALL(run, fill, .n = s[0], .x = x, .value = variant == 0 ? 0 : -2.5F);
    return PSK_OK;
}

OPS_TEST(fill, 2);

/* n, power of ten on x: squares beyond float32 */
static const int64_t cases_sum_squares[][OPS_MAX_SIZES] = {{0},    {1},       {63},      {64},      {65},
                                                           {4099}, {1000003}, {500, 25}, {500, -25}};

static psk_status run_sum_squares(ops_run *run, const int64_t *s, int64_t variant) {
    (void)variant;
    float *x = ops_new(run, "x", OPS_INPUT, ops_flat(s[0]));
    for (int64_t i = 0; i < s[0]; i++)
        x[i] *= powf(10, (float)s[1]);
    run->scalar = NAN;
    /* n positive numbers in float64: each partial sum is rounded by 2^-53, at random */
    run->scalar_limit = 0x1p-53 * (4 + 2 * sqrt((double)s[0]));
    OPS_CALL(run, sum_squares, .n = s[0], .x = x, .out = &run->scalar);
    return PSK_OK;
}

OPS_TEST(sum_squares, 1);

/* n, step, weight decay and grad_scale other than 0 and 1 */
static const int64_t cases_adamw[][OPS_MAX_SIZES] = {
    {0, 1}, {1, 1}, {7, 2, 1}, {63, 1, 1}, {64, 3}, {65, 1000, 1}, {4099, 100000, 1}, {100003, 17, 1},
};

static psk_status run_adamw(ops_run *run, const int64_t *s, int64_t variant) {
    (void)variant;
    const int64_t n = s[0];
    float *param = ops_new(run, "param", OPS_INOUT, ops_flat(n)), *m = ops_new(run, "m", OPS_INOUT, ops_flat(n));
    float *v = ops_new(run, "v", OPS_INOUT, ops_flat(n));
    const float *grad = ops_new(run, "grad", OPS_INPUT, ops_flat(n));
    for (int64_t i = 0; i < n; i++)
        v[i] = s[1] == 1 ? 0 : v[i] * v[i];
    for (int64_t i = 0; s[1] == 1 && i < n; i++)
        m[i] = 0;
    ops_rounding(run, param, 8, 0);
    ops_rounding(run, m, 6, 0);
    ops_rounding(run, v, 6, 0);
    OPS_CALL(run, adamw, .n = n, .step = s[1], .param = param, .m = m, .v = v, .grad = grad, .lr = 0.01F, .beta1 = 0.9F,
             .beta2 = 0.95F, .eps = 1e-8F, .weight_decay = s[2] ? 0.1F : 0, .grad_scale = s[2] ? 0.125F : 1);
    return PSK_OK;
}

OPS_TEST(adamw, 1);
