/* Tests of the dense operations. */
#include "ops_harness.h"

/* batch, m, n, k, gap behind each row, operand shared by the batch (0 none, 1 A, 2 B), scaled (alpha, beta other than
 * 1, 0) */
static const int64_t cases_matmul[][OPS_MAX_SIZES] = {
    {1, 1, 1, 1},
    {1, 1, 1, 0},
    {0, 3, 3, 3},
    {2, 0, 3, 3},
    {2, 3, 0, 3},
    {1, 3, 5, 7, 1},
    {2, 4, 4, 4, 0, 0, 1},
    {3, 2, 9, 5, 3, 1},
    {3, 9, 2, 5, 3, 2},
    {1, 1, 65, 63},
    {1, 65, 1, 64, 2},
    {2, 63, 64, 65, 0},
    {1, 17, 16, 1, 5},
    {4, 64, 33, 17, 0, 2, 1},
    {1, 127, 129, 131, 1, 0, 1},
    {1, 257, 300, 193},
    {24, 40, 36, 44, 4},
    {1, 7, 5, 1031, 3},
    {2, 8, 8, 0, 1, 0, 1},
};

static ops_layout matrix(int64_t batch, int64_t rows, int64_t n, int64_t gap, bool shared) {
    const int64_t ld = n + gap;
    return (ops_layout){batch, rows, n, ld, shared ? 0 : rows * ld + 2 * gap};
}

/* variant: bit 0 A transposed, bit 1 B transposed, bit 2 C is added to */
static psk_status run_matmul(ops_run *run, const int64_t *s, int64_t variant) {
    const int64_t batch = s[0], m = s[1], n = s[2], k = s[3], gap = s[4];
    const bool a_turned = variant & 1, b_turned = variant & 2, add = variant & 4, scaled = s[6] != 0;
    const ops_layout a_layout = matrix(batch, a_turned ? k : m, a_turned ? m : k, gap, s[5] == 1);
    const ops_layout b_layout = matrix(batch, b_turned ? n : k, b_turned ? k : n, gap, s[5] == 2);
    const ops_layout c_layout = matrix(batch, m, n, gap, false);
    const float *a = ops_new(run, "a", OPS_INPUT, a_layout), *b = ops_new(run, "b", OPS_INPUT, b_layout);
    float *c = ops_new(run, "c", add ? OPS_INOUT : OPS_OUTPUT, c_layout);
    ops_rounding(run, c, 4, k);
    OPS_CALL(run, matmul, .batch = batch, .m = m, .n = n, .k = k, .a = a, .lda = a_layout.ld,
             .a_stride = a_layout.stride, .a_orientation = a_turned ? PSK_TRANSPOSED : PSK_PLAIN, .b = b,
             .ldb = b_layout.ld, .b_stride = b_layout.stride, .b_orientation = b_turned ? PSK_TRANSPOSED : PSK_PLAIN,
             .c = c, .ldc = c_layout.ld, .c_stride = c_layout.stride, .alpha = scaled ? -0.75F : 1,
             .beta = add ? (scaled ? 0.5F : 1) : 0);
    return PSK_OK;
}

OPS_TEST(matmul, 8);

static const int64_t cases_column_sum[][OPS_MAX_SIZES] = {
    /* rows, n */ {0, 3},
    {3, 0},
    {1, 1},
    {1, 7},
    {7, 1},
    {63, 65},
    {65, 63},
    {64, 64},
    {1009, 3},
    {3, 1009},
    {700, 301},
};

static psk_status run_column_sum(ops_run *run, const int64_t *s, int64_t variant) {
    (void)variant;
    const float *x = ops_new(run, "x", OPS_INPUT, ops_packed(s[0], s[1]));
    float *out = ops_new(run, "out", OPS_INOUT, ops_flat(s[1]));
    ops_rounding(run, out, 2, s[0]);
    ops_scale(run, out, 1); /* added to numbers of size 1, from which little may be left */
    OPS_CALL(run, column_sum, .rows = s[0], .n = s[1], .x = x, .out = out);
    return PSK_OK;
}

OPS_TEST(column_sum, 1);
