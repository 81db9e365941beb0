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
