/* Tests of the way from rows of tokens to heads and back. */
#include "ops_harness.h"

/* B, N, H, Hkv, h, highest position, gap behind each head's keys */
#define HEAD_CASES                                                                                                     \
    {0, 3, 1, 1, 4, 9}, {2, 0, 1, 1, 4, 9}, {1, 1, 1, 1, 1, 5}, {1, 1, 1, 1, 2, 1000000}, {2, 5, 4, 2, 3, 100, 1},     \
        {1, 7, 3, 1, 7, 50, 70}, {2, 9, 2, 2, 8, 2000000, 16}, {1, 63, 2, 1, 64, 4096}, {3, 65, 6, 3, 33, 131072, 5},  \
    {                                                                                                                  \
        2, 130, 4, 4, 64, 1048577                                                                                      \
    }

static const int64_t cases_split_heads_forward[][OPS_MAX_SIZES] = {HEAD_CASES};

static psk_status run_split_heads_forward(ops_run *run, const int64_t *s, int64_t variant) {
    (void)variant;
    const int64_t B = s[0], N = s[1], H = s[2], Hkv = s[3], h = s[4], kv_stride = N * h + s[6];
    const ops_layout kv_layout = {B * Hkv, N, h, h, kv_stride};
    const float *qkv = ops_new(run, "qkv", OPS_INPUT, ops_packed(B * N, (H + 2 * Hkv) * h));
    const int32_t *positions = ops_integers(run, "positions", B * N, s[5]);
    float *q = ops_new(run, "q", OPS_OUTPUT, ops_packed(B * H * N, h));
    float *k = ops_new(run, "k", OPS_OUTPUT, kv_layout), *v = ops_new(run, "v", OPS_OUTPUT, kv_layout);
    ops_rounding(run, q, 4, 0);
    ops_rounding(run, k, 4, 0);
    OPS_CALL(run, split_heads_forward, .B = B, .N = N, .H = H, .Hkv = Hkv, .h = h, .qkv = qkv, .positions = positions,
             .q = q, .k = k, .v = v, .kv_stride = kv_stride);
    return PSK_OK;
}

OPS_TEST(split_heads_forward, 1);

static const int64_t cases_split_heads_backward[][OPS_MAX_SIZES] = {HEAD_CASES};

static psk_status run_split_heads_backward(ops_run *run, const int64_t *s, int64_t variant) {
    (void)variant;
    const int64_t B = s[0], N = s[1], H = s[2], Hkv = s[3], h = s[4];
    const float *dq = ops_new(run, "dq", OPS_INPUT, ops_packed(B * H * N, h));
    const float *dk = ops_new(run, "dk", OPS_INPUT, ops_packed(B * Hkv * N, h));
    const float *dv = ops_new(run, "dv", OPS_INPUT, ops_packed(B * Hkv * N, h));
    const int32_t *positions = ops_integers(run, "positions", B * N, s[5]);
    float *dqkv = ops_new(run, "dqkv", OPS_OUTPUT, ops_packed(B * N, (H + 2 * Hkv) * h));
    ops_rounding(run, dqkv, 4, 0);
    OPS_CALL(run, split_heads_backward, .B = B, .N = N, .H = H, .Hkv = Hkv, .h = h, .dq = dq, .dk = dk, .dv = dv,
             .positions = positions, .dqkv = dqkv);
    return PSK_OK;
}

static const int64_t small_split_heads_backward[][OPS_MAX_SIZES] = {{1, 1, 1, 1, 1}, {2, 2, 2, 1, 3}, {1, 3, 1, 1, 4}};

static psk_status gradient_split_heads_backward(ops_gradient *g, const int64_t *s) {
    const int64_t B = s[0], N = s[1], H = s[2], Hkv = s[3], h = s[4], queries = B * H * N * h, keys = B * Hkv * N * h;
    float *dqkv;
    const float *qkv = ops_variable_new(g, "qkv", B * N * (H + 2 * Hkv) * h, 0, 1, &dqkv);
    const int32_t *positions = ops_gradient_integers(g, "positions", B * N, 1000);
    float *q = ops_result(g, queries), *k = ops_result(g, keys), *v = ops_result(g, keys);
    PSK_RUN(g->device, split_heads_forward, .B = B, .N = N, .H = H, .Hkv = Hkv, .h = h, .qkv = qkv,
            .positions = positions, .q = q, .k = k, .v = v, .kv_stride = N * h);
    const float *dq = ops_observe(g, q, queries), *dk = ops_observe(g, k, keys), *dv = ops_observe(g, v, keys);
    PSK_RUN(g->device, split_heads_backward, .B = B, .N = N, .H = H, .Hkv = Hkv, .h = h, .dq = dq, .dk = dk, .dv = dv,
            .positions = positions, .dqkv = dqkv);
    return PSK_OK;
}

OPS_TEST_GRADIENT(split_heads_backward, 1);

static const int64_t cases_transpose_heads[][OPS_MAX_SIZES] = {
    /* B, P, Q, n */ {0, 2, 3, 4},
    {2, 0, 3, 4},
    {1, 1, 1, 1},
    {2, 3, 5, 7},
    {1, 64, 2, 65},
    {3, 63, 4, 16},
    {2, 12, 257, 64},
};

static psk_status run_transpose_heads(ops_run *run, const int64_t *s, int64_t variant) {
    (void)variant;
    const int64_t B = s[0], P = s[1], Q = s[2], n = s[3];
    const float *x = ops_new(run, "x", OPS_INPUT, ops_packed(B * P * Q, n));
    float *y = ops_new(run, "y", OPS_OUTPUT, ops_packed(B * P * Q, n));
    ops_rounding(run, y, 0, 0); /* a copy */
    OPS_CALL(run, transpose_heads, .B = B, .P = P, .Q = Q, .n = n, .x = x, .y = y);
    return PSK_OK;
}

OPS_TEST(transpose_heads, 1);

/* B, H, n: chunks of the CPU device have 4096 numbers */
#define GAIN_CASES                                                                                                     \
    {0, 3, 4}, {2, 0, 4}, {2, 3, 0}, {1, 1, 1}, {3, 2, 5}, {1, 12, 32}, {2, 3, 4095}, {1, 5, 4096}, {3, 2, 4097}, {    \
        2, 4, 16411                                                                                                    \
    }

static const int64_t cases_head_gain_forward[][OPS_MAX_SIZES] = {GAIN_CASES};

/* variant 1: in place. exp has an error of its own, 1e-7 */
static psk_status run_head_gain_forward(ops_run *run, const int64_t *s, int64_t variant) {
    const int64_t B = s[0], H = s[1], n = s[2];
    const float *gain = ops_new(run, "gain", OPS_INPUT, ops_flat(H));
    float *x = ops_new(run, "x", variant == 1 ? OPS_INOUT : OPS_INPUT, ops_packed(B * H, n));
    float *y = variant == 1 ? x : ops_new(run, "y", OPS_OUTPUT, ops_packed(B * H, n));
    ops_rounding(run, y, 4, 0);
    OPS_CALL(run, head_gain_forward, .B = B, .H = H, .n = n, .gain = gain, .x = x, .y = y);
    return PSK_OK;
}

OPS_TEST(head_gain_forward, 2);

static const int64_t cases_head_gain_backward[][OPS_MAX_SIZES] = {GAIN_CASES};

/* variant 1: in place */
static psk_status run_head_gain_backward(ops_run *run, const int64_t *s, int64_t variant) {
    const int64_t B = s[0], H = s[1], n = s[2];
    const float *gain = ops_new(run, "gain", OPS_INPUT, ops_flat(H));
    float *y = ops_new(run, "y", variant == 1 ? OPS_INOUT : OPS_INPUT, ops_packed(B * H, n));
    float *dy = ops_new(run, "dy", variant == 1 ? OPS_INOUT : OPS_INPUT, ops_packed(B * H, n));
    float *x = variant == 1 ? y : ops_new(run, "x", OPS_OUTPUT, ops_packed(B * H, n));
    float *dx = variant == 1 ? dy : ops_new(run, "dx", OPS_OUTPUT, ops_packed(B * H, n));
    float *dgain = ops_new(run, "dgain", OPS_INOUT, ops_flat(H));
    ops_rounding(run, x, 4, 0);
    ops_rounding(run, dx, 4, 0);
    ops_rounding(run, dgain, 2, 0); /* summed in float64 */
    ops_scale(run, dgain, 1);       /* added to numbers of size 1, from which little may be left */
    OPS_CALL(run, head_gain_backward, .B = B, .H = H, .n = n, .gain = gain, .y = y, .dy = dy, .x = x, .dx = dx,
             .dgain = dgain);
    return PSK_OK;
}

static const int64_t small_head_gain_backward[][OPS_MAX_SIZES] = {{1, 1, 1}, {2, 3, 5}};

static psk_status gradient_head_gain_backward(ops_gradient *g, const int64_t *s) {
    const int64_t B = s[0], H = s[1], n = s[2], all = B * H * n;
    float *dx, *dgain;
    const float *x = ops_variable_new(g, "x", all, 0, 1, &dx), *gain = ops_variable_new(g, "gain", H, 0, 1, &dgain);
    float *y = ops_result(g, all), *again = ops_result(g, all);
    PSK_RUN(g->device, head_gain_forward, .B = B, .H = H, .n = n, .gain = gain, .x = x, .y = y);
    const float *dy = ops_observe(g, y, all);
    PSK_RUN(g->device, head_gain_backward, .B = B, .H = H, .n = n, .gain = gain, .y = y, .dy = dy, .x = again, .dx = dx,
            .dgain = dgain);
    PSK_TEST_AT_MOST(psk_test_relative_rms(again, x, all), 2e-7); /* forward is undone */
    return PSK_OK;
}

OPS_TEST_GRADIENT(head_gain_backward, 2);
