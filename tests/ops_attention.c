/* Tests of the pieces of attention. */
#include "ops_harness.h"

#include <math.h>

static bool masked(int64_t i, int64_t j, int64_t offset) {
    return offset != PSK_NO_MASK && j > i + offset;
}

/* What the mask hides in a tile becomes `value`: the operation must not look at it. */
static void hide(float *s, const ops_layout *layout, int64_t offset, float value) {
    for (int64_t g = 0; g < layout->batch; g++)
        for (int64_t i = 0; i < layout->rows; i++)
            for (int64_t j = 0; j < layout->n; j++)
                if (masked(i, j, offset))
                    s[g * layout->stride + i * layout->ld + j] = value;
}

static void make_positive(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        x[i] = fabsf(x[i]) + 0.5F;
}

/* rows numbers for each of the batch. */
static ops_layout columns(int64_t batch, int64_t rows, int64_t gap) {
    return (ops_layout){batch, 1, rows, rows, rows + gap};
}

/* rows x n numbers for each of the batch, no gap between rows. */
static ops_layout tiles(int64_t batch, int64_t rows, int64_t n, int64_t gap) {
    return (ops_layout){batch, rows, n, n, rows * n + gap};
}

/* batch, rows, cols, p, offset, gap behind each row */
#define POWER_CASES                                                                                                    \
    {0, 3, 3, 2, 0}, {2, 0, 3, 2, 0}, {2, 3, 0, 2, 0}, {1, 1, 1, 1, 0}, {1, 1, 1, 4, -1}, {2, 5, 7, 2, 0, 1},          \
        {2, 7, 5, 4, 2, 3}, {1, 7, 5, 3, -3, 1}, {1, 4, 9, 6, -4}, {1, 9, 4, 8, PSK_NO_MASK, 2}, {1, 63, 65, 4, 0},    \
        {3, 64, 64, 4, 0, 16}, {2, 65, 63, 2, -64, 1}, {1, 33, 31, 5, 100}, {24, 64, 64, 4, PSK_NO_MASK},              \
        {12, 128, 96, 2, -17, 5}, {1, 300, 257, 4, 1}, {2, 17, 64, 1, 3}, {                                            \
        1, 16, 64, 8, 40                                                                                               \
    }

static const int64_t cases_power_weights_forward[][OPS_MAX_SIZES] = {POWER_CASES};

static ops_layout power_layout(const int64_t *s) {
    const int64_t ld = s[2] + s[5];
    return (ops_layout){s[0], s[1], s[2], ld, s[1] * ld + 2 * s[5]};
}

/* variant 1: in place */
static psk_status run_power_weights_forward(ops_run *run, const int64_t *s, int64_t variant) {
    const ops_layout layout = power_layout(s);
    float *scores = ops_new(run, "s", variant == 1 ? OPS_INOUT : OPS_INPUT, layout);
    float *w = variant == 1 ? scores : ops_new(run, "w", OPS_OUTPUT, layout);
    hide(scores, &layout, s[4], NAN);
    ops_rounding(run, w, 2 + (double)s[3], 0);
    ops_exact_zeros(run, w);
    OPS_CALL(run, power_weights_forward, .batch = s[0], .rows = s[1], .cols = s[2], .ld = layout.ld,
             .stride = layout.stride, .p = s[3], .offset = s[4], .s = scores, .w = w, .scale = 0.3F);
    return PSK_OK;
}

OPS_TEST(power_weights_forward, 2);

static const int64_t cases_power_weights_backward[][OPS_MAX_SIZES] = {POWER_CASES};

/* variant: bit 0 in place, bit 1 w is not wanted */
static psk_status run_power_weights_backward(ops_run *run, const int64_t *s, int64_t variant) {
    const ops_layout layout = power_layout(s);
    const bool in_place = variant & 1, ds_alone = variant & 2;
    float *scores = ops_new(run, "s", in_place && !ds_alone ? OPS_INOUT : OPS_INPUT, layout);
    float *dw = ops_new(run, "dw", in_place ? OPS_INOUT : OPS_INPUT, layout);
    float *w = ds_alone ? NULL : in_place ? scores : ops_new(run, "w", OPS_OUTPUT, layout);
    float *ds = in_place ? dw : ops_new(run, "ds", OPS_OUTPUT, layout);
    hide(scores, &layout, s[4], NAN);
    hide(dw, &layout, s[4], NAN);
    if (w != NULL) {
        ops_rounding(run, w, 2 + (double)s[3], 0);
        ops_exact_zeros(run, w);
    }
    ops_rounding(run, ds, 4 + (double)s[3], 0);
    ops_exact_zeros(run, ds);
    OPS_CALL(run, power_weights_backward, .batch = s[0], .rows = s[1], .cols = s[2], .ld = layout.ld,
             .stride = layout.stride, .p = s[3], .offset = s[4], .s = scores, .dw = dw, .w = w, .ds = ds,
             .scale = 0.3F);
    return PSK_OK;
}

/* rows, cols, p, offset */
static const int64_t small_power_weights_backward[][OPS_MAX_SIZES] = {
    {1, 1, 1, 0}, {3, 4, 2, 1}, {4, 3, 3, -1}, {3, 5, 4, 0}, {2, 3, 5, PSK_NO_MASK},
};

static psk_status gradient_power_weights_backward(ops_gradient *g, const int64_t *s) {
    const int64_t rows = s[0], cols = s[1];
    float *ds;
    const float *scores = ops_variable_new(g, "s", rows * cols, 0, 1, &ds);
    float *w = ops_result(g, rows * cols);
    PSK_RUN(g->device, power_weights_forward, .batch = 1, .rows = rows, .cols = cols, .ld = cols, .stride = rows * cols,
            .p = s[2], .offset = s[3], .s = scores, .w = w, .scale = 0.7F);
    const float *dw = ops_observe(g, w, rows * cols);
    PSK_RUN(g->device, power_weights_backward, .batch = 1, .rows = rows, .cols = cols, .ld = cols,
            .stride = rows * cols, .p = s[2], .offset = s[3], .s = scores, .dw = dw, .ds = ds, .scale = 0.7F);
    return PSK_OK;
}

OPS_TEST_GRADIENT(power_weights_backward, 4);

/* batch, rows, r, gap behind x's batches, gap behind y's */
#define PACK_CASES                                                                                                     \
    {0, 3, 2}, {2, 0, 2}, {2, 3, 0}, {1, 1, 1}, {2, 3, 2, 1, 2}, {1, 5, 3}, {3, 7, 5, 11}, {1, 63, 8, 0, 3},           \
        {2, 64, 16, 5}, {1, 65, 31}, {1, 130, 32}, {4, 33, 33, 7, 9}, {                                                \
        1, 9, 65                                                                                                       \
    }

static const int64_t cases_pack_features_forward[][OPS_MAX_SIZES] = {PACK_CASES};

/* variant: the side that has the factor 2 */
static psk_status run_pack_features_forward(ops_run *run, const int64_t *s, int64_t variant) {
    const int64_t r = s[2], m = r * (r + 1) / 2;
    const ops_layout from = tiles(s[0], s[1], r, s[3]), to = tiles(s[0], s[1], m, s[4]);
    const float *x = ops_new(run, "x", OPS_INPUT, from);
    float *y = ops_new(run, "y", OPS_OUTPUT, to);
    ops_rounding(run, y, 4, 0);
    OPS_CALL(run, pack_features_forward, .batch = s[0], .rows = s[1], .r = r, .x_stride = from.stride,
             .y_stride = to.stride, .x = x, .y = y, .scale = variant == 0 ? 1 : 0.3F,
             .off_diagonal = variant == 0 ? 1 : 2);
    return PSK_OK;
}

OPS_TEST(pack_features_forward, 2);

static const int64_t cases_pack_features_backward[][OPS_MAX_SIZES] = {PACK_CASES};

/* variant: bit 0 the side that has the factor 2, bit 1 += */
static psk_status run_pack_features_backward(ops_run *run, const int64_t *s, int64_t variant) {
    const int64_t r = s[2], m = r * (r + 1) / 2;
    const bool doubled = variant & 1, add = variant & 2;
    const ops_layout from = tiles(s[0], s[1], r, s[3]), to = tiles(s[0], s[1], m, s[4]);
    const float *x = ops_new(run, "x", OPS_INPUT, from), *dy = ops_new(run, "dy", OPS_INPUT, to);
    float *dx = ops_new(run, "dx", add ? OPS_INOUT : OPS_OUTPUT, from);
    ops_rounding(run, dx, 6, r);
    OPS_CALL(run, pack_features_backward, .batch = s[0], .rows = s[1], .r = r, .x_stride = from.stride,
             .y_stride = to.stride, .x = x, .dy = dy, .dx = dx, .scale = doubled ? 0.3F : 1,
             .off_diagonal = doubled ? 2 : 1, .dx_write = add ? PSK_ADD : PSK_SET);
    return PSK_OK;
}

static const int64_t small_pack_features_backward[][OPS_MAX_SIZES] = {/* rows, r */ {1, 1}, {2, 3}, {3, 5}};

static psk_status gradient_pack_features_backward(ops_gradient *g, const int64_t *s) {
    const int64_t rows = s[0], r = s[1], m = r * (r + 1) / 2;
    float *dx;
    const float *x = ops_variable_new(g, "x", rows * r, 0, 1, &dx);
    float *y = ops_result(g, rows * m);
    PSK_RUN(g->device, pack_features_forward, .batch = 1, .rows = rows, .r = r, .x = x, .y = y, .scale = 0.7F,
            .off_diagonal = 2);
    PSK_RUN(g->device, pack_features_backward, .batch = 1, .rows = rows, .r = r, .x = x,
            .dy = ops_observe(g, y, rows * m), .dx = dx, .scale = 0.7F, .off_diagonal = 2, .dx_write = PSK_ADD);
    return PSK_OK;
}

OPS_TEST_GRADIENT(pack_features_backward, 4);

/* rows, h, m, factor on x: exp underflows */
static const int64_t cases_performer_features_forward[][OPS_MAX_SIZES] = {
    {0, 2, 3}, {1, 1, 1}, {3, 5, 7}, {7, 16, 63}, {5, 64, 64}, {65, 33, 65}, {3, 8, 5, 30}, {700, 64, 31},
};

/* variant 1: in place */
static psk_status run_performer_features_forward(ops_run *run, const int64_t *s, int64_t variant) {
    const int64_t rows = s[0], h = s[1], m = s[2];
    float *u = ops_new(run, "u", variant == 1 ? OPS_INOUT : OPS_INPUT, ops_packed(rows, m));
    float *x = ops_new(run, "x", OPS_INPUT, ops_packed(rows, h));
    float *f = variant == 1 ? u : ops_new(run, "f", OPS_OUTPUT, ops_packed(rows, m));
    for (int64_t i = 0; i < rows * h; i++)
        x[i] *= s[3] > 0 ? (float)s[3] : 1;
    ops_rounding(run, f, 12 + sqrt((double)h),
                 0); /* exp of about sqrt(h) / 2 multiplies the rounding of its argument by it */
    OPS_CALL(run, performer_features_forward, .rows = rows, .h = h, .m = m, .u = u, .x = x, .f = f);
    return PSK_OK;
}

OPS_TEST(performer_features_forward, 2);

static const int64_t cases_performer_features_backward[][OPS_MAX_SIZES] = {
    {0, 2, 3}, {1, 1, 1}, {3, 5, 7}, {7, 16, 63}, {5, 64, 64}, {65, 33, 65}, {700, 64, 31},
};

/* variant 1: du in place of df */
static psk_status run_performer_features_backward(ops_run *run, const int64_t *s, int64_t variant) {
    const int64_t rows = s[0], h = s[1], m = s[2];
    float *f = ops_new(run, "f", OPS_INPUT, ops_packed(rows, m));
    const float *x = ops_new(run, "x", OPS_INPUT, ops_packed(rows, h));
    float *df = ops_new(run, "df", variant == 1 ? OPS_INOUT : OPS_INPUT, ops_packed(rows, m));
    float *du = variant == 1 ? df : ops_new(run, "du", OPS_OUTPUT, ops_packed(rows, m));
    float *dx = ops_new(run, "dx", OPS_OUTPUT, ops_packed(rows, h));
    make_positive(f, rows * m);
    ops_rounding(run, du, 4, 0);
    ops_rounding(run, dx, 6, m);
    OPS_CALL(run, performer_features_backward, .rows = rows, .h = h, .m = m, .f = f, .x = x, .df = df, .du = du,
             .dx = dx);
    return PSK_OK;
}

static const int64_t small_performer_features_backward[][OPS_MAX_SIZES] = {{1, 1, 1}, {3, 2, 5}, {2, 5, 3}};

static psk_status gradient_performer_features_backward(ops_gradient *g, const int64_t *s) {
    const int64_t rows = s[0], h = s[1], m = s[2];
    float *du, *dx;
    const float *u = ops_variable_new(g, "u", rows * m, 0, 1, &du), *x = ops_variable_new(g, "x", rows * h, 0, 1, &dx);
    float *f = ops_result(g, rows * m);
    PSK_RUN(g->device, performer_features_forward, .rows = rows, .h = h, .m = m, .u = u, .x = x, .f = f);
    PSK_RUN(g->device, performer_features_backward, .rows = rows, .h = h, .m = m, .f = f, .x = x,
            .df = ops_observe(g, f, rows * m), .du = du, .dx = dx);
    return PSK_OK;
}

OPS_TEST_GRADIENT(performer_features_backward, 2);

/* batch, rows, d, gap */
static const int64_t cases_append_one[][OPS_MAX_SIZES] = {
    {0, 2, 3}, {2, 0, 3}, {2, 3, 0}, {1, 1, 1}, {3, 5, 7, 2}, {2, 63, 64}, {1, 64, 65, 1}, {5, 257, 64},
};

static psk_status run_append_one(ops_run *run, const int64_t *s, int64_t variant) {
    (void)variant;
    const ops_layout from = tiles(s[0], s[1], s[2], s[3]);
    const float *x = ops_new(run, "x", OPS_INPUT, from);
    float *y = ops_new(run, "y", OPS_OUTPUT, ops_packed(s[0] * s[1], s[2] + 1));
    ops_rounding(run, y, 0, 0);
    OPS_CALL(run, append_one, .batch = s[0], .rows = s[1], .d = s[2], .x_stride = from.stride, .x = x, .y = y);
    return PSK_OK;
}

OPS_TEST(append_one, 1);

/* batch, rows, d, gap behind out's batches, gap behind den's */
#define NORMALISE_CASES                                                                                                \
    {0, 2, 3}, {2, 0, 3}, {1, 1, 1}, {3, 5, 7, 2, 1}, {2, 63, 64, 0, 5}, {1, 64, 65}, {4, 65, 3, 9}, {                 \
        5, 257, 64                                                                                                     \
    }

static const int64_t cases_normalise_forward[][OPS_MAX_SIZES] = {NORMALISE_CASES};

/* Makes row 0 of every three as if no weight had been seen (variant 1), or weights below the smallest normal float
 * (variant 2), whose inverse is infinite. */
static float third_row_factor(int64_t variant, int64_t row) {
    return row % 3 != 0 || variant == 0 ? 1 : variant == 1 ? 0 : 1e-39F;
}

/* variants 1 and 2: beta 0 */
static psk_status run_normalise_forward(ops_run *run, const int64_t *s, int64_t variant) {
    const int64_t rows = s[0] * s[1], d = s[2];
    const ops_layout out_layout = tiles(s[0], s[1], d, s[3]), den_layout = columns(s[0], s[1], s[4]);
    float *o1 = ops_new(run, "o1", OPS_INPUT, ops_packed(rows, d + 1));
    float *out = ops_new(run, "out", OPS_OUTPUT, out_layout), *den = ops_new(run, "den", OPS_OUTPUT, den_layout);
    for (int64_t i = 0; i < rows; i++) {
        o1[i * (d + 1) + d] = fabsf(o1[i * (d + 1) + d]) + 0.5F;
        for (int64_t j = 0; j <= d; j++)
            o1[i * (d + 1) + j] *= third_row_factor(variant, i);
    }
    ops_rounding(run, out, 4, 0);
    ops_exact_zeros(run, out);
    OPS_CALL(run, normalise_forward, .batch = s[0], .rows = s[1], .d = d, .out_stride = out_layout.stride,
             .den_stride = den_layout.stride, .o1 = o1, .out = out, .den = den, .beta = variant == 0 ? 1 : 0);
    return PSK_OK;
}

OPS_TEST(normalise_forward, 3);

static const int64_t cases_normalise_backward[][OPS_MAX_SIZES] = {NORMALISE_CASES};

/* dout is small, so that dividing it by 1e-39 does not overflow. */
static psk_status run_normalise_backward(ops_run *run, const int64_t *s, int64_t variant) {
    const int64_t d = s[2];
    const ops_layout out_layout = tiles(s[0], s[1], d, s[3]), den_layout = columns(s[0], s[1], s[4]);
    const float *out = ops_new(run, "out", OPS_INPUT, out_layout);
    float *dout = ops_new(run, "dout", OPS_INPUT, out_layout), *den = ops_new(run, "den", OPS_INPUT, den_layout),
          *dn1 = ops_new(run, "dn1", OPS_OUTPUT, ops_packed(s[0] * s[1], d + 1));
    for (int64_t g = 0; g < s[0]; g++)
        for (int64_t i = 0; i < s[1]; i++) {
            float *here = &den[g * den_layout.stride + i];
            *here = (fabsf(*here) + 0.5F) * third_row_factor(variant, i);
            for (int64_t j = 0; j < d; j++)
                dout[g * out_layout.stride + i * d + j] *= 0x1p-10F;
        }
    ops_rounding(run, dn1, 6, d);
    ops_exact_zeros(run, dn1);
    OPS_CALL(run, normalise_backward, .batch = s[0], .rows = s[1], .d = d, .out_stride = out_layout.stride,
             .den_stride = den_layout.stride, .dout = dout, .out = out, .den = den, .dn1 = dn1);
    return PSK_OK;
}

static const int64_t small_normalise_backward[][OPS_MAX_SIZES] = {/* rows, d */ {1, 1}, {3, 2}, {2, 5}};

static psk_status gradient_normalise_backward(ops_gradient *g, const int64_t *s) {
    const int64_t rows = s[0], d = s[1];
    float *dn1;
    const float *o1 = ops_variable_new(g, "o1", rows * (d + 1), 3, 0.4F, &dn1);
    float *out = ops_result(g, rows * d), *den = ops_result(g, rows);
    PSK_RUN(g->device, normalise_forward, .batch = 1, .rows = rows, .d = d, .o1 = o1, .out = out, .den = den,
            .beta = 0.5F);
    PSK_RUN(g->device, normalise_backward, .batch = 1, .rows = rows, .d = d, .dout = ops_observe(g, out, rows * d),
            .out = out, .den = den, .dn1 = dn1);
    return PSK_OK;
}

OPS_TEST_GRADIENT(normalise_backward, 3);

/* batch, rows, cols, d, offset, factor on s */
static const int64_t cases_softmax_tile_forward[][OPS_MAX_SIZES] = {
    {0, 2, 3, 4, 0},
    {2, 0, 3, 4, 0},
    {2, 3, 0, 4, 0},
    {1, 1, 1, 1, 0},
    {1, 1, 1, 1, -1},
    {2, 5, 7, 3, 0},
    {2, 7, 5, 4, 2},
    {1, 7, 5, 0, -3},
    {1, 5, 4, 2, -9},
    {1, 9, 4, 5, PSK_NO_MASK},
    {1, 63, 65, 16, 0, 20},
    {3, 64, 64, 64, 0},
    {2, 65, 63, 33, PSK_NO_MASK, 1000},
    {12, 64, 64, 64, 10},
    {1, 130, 257, 8, -40},
};

/* variant 0: the first tile; 1: a later one, of which every fourth row has seen nothing yet */
static psk_status run_softmax_tile_forward(ops_run *run, const int64_t *s, int64_t variant) {
    const int64_t rows = s[0] * s[1], d = s[3], offset = s[4];
    const ops_layout layout = tiles(s[0], s[1], s[2], 0);
    float *scores = ops_new(run, "s", OPS_INOUT, layout), *o = ops_new(run, "o", OPS_INOUT, ops_packed(rows, d));
    float *row_max = ops_new(run, "row_max", OPS_INOUT, ops_flat(rows)),
          *row_sum = ops_new(run, "row_sum", OPS_INOUT, ops_flat(rows));
    for (int64_t i = 0; i < rows * s[2]; i++)
        scores[i] *= s[5] > 0 ? (float)s[5] : 1;
    hide(scores, &layout, offset, 2000); /* above every other score: it would show in the maximum */
    make_positive(row_sum, rows);
    for (int64_t i = 0; i < rows; i++) {
        if (variant == 1 && i % 4 > 0)
            continue;
        row_max[i] = -INFINITY;
        row_sum[i] = 0;
        for (int64_t j = 0; j < d; j++)
            o[i * d + j] = 0;
    }
    ops_rounding(run, scores, 16, 0);
    ops_exact_zeros(run, scores);
    ops_rounding(run, row_max, 0, 0);
    ops_rounding(run, row_sum, 16, s[2]);
    ops_rounding(run, o, 16, 0);
    OPS_CALL(run, softmax_tile_forward, .batch = s[0], .rows = s[1], .cols = s[2], .d = d, .offset = offset,
             .s = scores, .row_max = row_max, .row_sum = row_sum, .o = o);
    return PSK_OK;
}

OPS_TEST(softmax_tile_forward, 2);

/* batch, rows, cols, offset, gap behind lse's batches, gap behind delta's */
static const int64_t cases_softmax_tile_backward[][OPS_MAX_SIZES] = {
    {0, 2, 3, 0},         {2, 0, 3, 0},       {2, 3, 0, 0},       {1, 1, 1, 0},           {1, 1, 1, -1},
    {2, 5, 7, 0, 1},      {2, 7, 5, 2, 0, 2}, {1, 7, 5, -3},      {1, 9, 4, PSK_NO_MASK}, {1, 63, 65, 0},
    {3, 64, 64, 0, 5, 9}, {12, 64, 64, 10},   {1, 130, 257, -40},
};

static psk_status run_softmax_tile_backward(ops_run *run, const int64_t *s, int64_t variant) {
    (void)variant;
    const ops_layout layout = tiles(s[0], s[1], s[2], 0), lse_layout = columns(s[0], s[1], s[4]);
    const ops_layout delta_layout = columns(s[0], s[1], s[5]);
    float *scores = ops_new(run, "s", OPS_INOUT, layout), *dp = ops_new(run, "dp", OPS_INOUT, layout);
    float *lse = ops_new(run, "lse", OPS_INPUT, lse_layout);
    const float *delta = ops_new(run, "delta", OPS_INPUT, delta_layout);
    for (int64_t g = 0; g < s[0]; g++)
        for (int64_t i = 0; i < s[1]; i++)
            lse[g * lse_layout.stride + i] += 3;
    hide(scores, &layout, s[3], 2000);
    ops_rounding(run, scores, 16, 0);
    ops_exact_zeros(run, scores);
    ops_rounding(run, dp, 20, 0);
    ops_exact_zeros(run, dp);
    OPS_CALL(run, softmax_tile_backward, .batch = s[0], .rows = s[1], .cols = s[2], .offset = s[3],
             .lse_stride = lse_layout.stride, .delta_stride = delta_layout.stride, .s = scores, .dp = dp, .lse = lse,
             .delta = delta, .scale = 0.3F);
    return PSK_OK;
}

/* Causal attention of N queries and keys in two tiles of keys, as the backward pass inverts it. */
typedef struct softmax_problem {
    int64_t N, d;
    float *z, *v, *dz, *dv;                           /* N x N, N x d */
    float *o, *out, *row_max, *row_sum, *lse, *delta; /* N x d, N x d, N each */
    float *tile, *dtile;                              /* N x at most N */
} softmax_problem;

static const float softmax_scale = 0.5F;

/* tile = scale z[:, first ...] */
static psk_status softmax_scores(ops_gradient *g, const softmax_problem *p, int64_t first, int64_t cols) {
    PSK_RUN(g->device, copy, .batch = 1, .rows = p->N, .n = cols, .x_ld = p->N, .y_ld = cols, .x = p->z + first,
            .y = p->tile, .alpha = softmax_scale);
    return PSK_OK;
}

static psk_status softmax_forward_tile(ops_gradient *g, const softmax_problem *p, int64_t first, int64_t cols) {
    PSK_TRY(softmax_scores(g, p, first, cols));
    PSK_RUN(g->device, softmax_tile_forward, .batch = 1, .rows = p->N, .cols = cols, .d = p->d, .offset = -first,
            .s = p->tile, .row_max = p->row_max, .row_sum = p->row_sum, .o = p->o);
    PSK_RUN(g->device, matmul, .batch = 1, .m = p->N, .n = p->d, .k = cols, .a = p->tile, .lda = cols,
            .b = p->v + first * p->d, .ldb = p->d, .c = p->o, .ldc = p->d, .alpha = 1, .beta = 1);
    return PSK_OK;
}

static psk_status softmax_backward_tile(ops_gradient *g, const softmax_problem *p, const float *dout, int64_t first,
                                        int64_t cols) {
    PSK_TRY(softmax_scores(g, p, first, cols));
    PSK_RUN(g->device, matmul, .batch = 1, .m = p->N, .n = cols, .k = p->d, .a = dout, .lda = p->d,
            .b = p->v + first * p->d, .ldb = p->d, .b_orientation = PSK_TRANSPOSED, .c = p->dtile, .ldc = cols,
            .alpha = 1);
    PSK_RUN(g->device, softmax_tile_backward, .batch = 1, .rows = p->N, .cols = cols, .offset = -first, .s = p->tile,
            .dp = p->dtile, .lse = p->lse, .delta = p->delta, .scale = softmax_scale);
    PSK_RUN(g->device, matmul, .batch = 1, .m = cols, .n = p->d, .k = p->N, .a = p->tile, .lda = cols,
            .a_orientation = PSK_TRANSPOSED, .b = dout, .ldb = p->d, .c = p->dv + first * p->d, .ldc = p->d, .alpha = 1,
            .beta = 1);
    PSK_RUN(g->device, copy, .batch = 1, .rows = p->N, .n = cols, .x_ld = cols, .y_ld = p->N, .x = p->dtile,
            .y = p->dz + first, .alpha = 1, .write = PSK_ADD);
    return PSK_OK;
}

static const int64_t small_softmax_tile_backward[][OPS_MAX_SIZES] = {/* N, d */ {2, 1}, {3, 2}, {5, 3}};

static psk_status gradient_softmax_tile_backward(ops_gradient *g, const int64_t *s) {
    const int64_t N = s[0], d = s[1], half = N / 2;
    softmax_problem p = {.N = N, .d = d};
    p.z = ops_variable_new(g, "z", N * N, 0, 1, &p.dz);
    p.v = ops_variable_new(g, "v", N * d, 0, 1, &p.dv);
    p.o = ops_result(g, N * d), p.out = ops_result(g, N * d);
    p.row_max = ops_result(g, N), p.row_sum = ops_result(g, N), p.lse = ops_result(g, N), p.delta = ops_result(g, N);
    p.tile = ops_result(g, N * N), p.dtile = ops_result(g, N * N);
    PSK_RUN(g->device, fill, .n = N * d, .x = p.o, .value = 0);
    PSK_RUN(g->device, fill, .n = N, .x = p.row_sum, .value = 0);
    PSK_RUN(g->device, fill, .n = N, .x = p.row_max, .value = -INFINITY);
    PSK_TRY(softmax_forward_tile(g, &p, 0, half));
    PSK_TRY(softmax_forward_tile(g, &p, half, N - half));
    PSK_RUN(g->device, softmax_finish, .batch = 1, .rows = N, .d = d, .o = p.o, .row_max = p.row_max,
            .row_sum = p.row_sum, .out = p.out, .lse = p.lse);
    const float *dout = ops_observe(g, p.out, N * d);
    PSK_RUN(g->device, row_dot, .batch = 1, .rows = N, .n = d, .x = dout, .y = p.out, .out = p.delta);
    PSK_TRY(softmax_backward_tile(g, &p, dout, 0, half));
    PSK_TRY(softmax_backward_tile(g, &p, dout, half, N - half));
    return PSK_OK;
}

OPS_TEST_GRADIENT(softmax_tile_backward, 1);

static const int64_t cases_softmax_finish[][OPS_MAX_SIZES] = {NORMALISE_CASES};

static psk_status run_softmax_finish(ops_run *run, const int64_t *s, int64_t variant) {
    (void)variant;
    const int64_t rows = s[0] * s[1], d = s[2];
    const ops_layout out_layout = tiles(s[0], s[1], d, s[3]), lse_layout = columns(s[0], s[1], s[4]);
    const float *o = ops_new(run, "o", OPS_INPUT, ops_packed(rows, d)),
                *row_max = ops_new(run, "row_max", OPS_INPUT, ops_flat(rows));
    float *row_sum = ops_new(run, "row_sum", OPS_INPUT, ops_flat(rows));
    float *out = ops_new(run, "out", OPS_OUTPUT, out_layout), *lse = ops_new(run, "lse", OPS_OUTPUT, lse_layout);
    make_positive(row_sum, rows);
    ops_rounding(run, out, 4, 0);
    ops_rounding(run, lse, 6, 0);
    ops_scale(run, lse, 1);
    OPS_CALL(run, softmax_finish, .batch = s[0], .rows = s[1], .d = d, .out_stride = out_layout.stride,
             .lse_stride = lse_layout.stride, .o = o, .row_max = row_max, .row_sum = row_sum, .out = out, .lse = lse);
    return PSK_OK;
}

OPS_TEST(softmax_finish, 1);

/* batch, rows, n, gap */
static const int64_t cases_row_dot[][OPS_MAX_SIZES] = {
    {0, 2, 3}, {2, 0, 3}, {2, 3, 0}, {1, 1, 1}, {3, 5, 7, 2}, {2, 63, 64}, {1, 64, 65, 1}, {1, 2, 4099}, {5, 257, 64},
};

static psk_status run_row_dot(ops_run *run, const int64_t *s, int64_t variant) {
    (void)variant;
    const ops_layout layout = tiles(s[0], s[1], s[2], s[3]);
    const float *x = ops_new(run, "x", OPS_INPUT, layout), *y = ops_new(run, "y", OPS_INPUT, layout);
    float *out = ops_new(run, "out", OPS_OUTPUT, ops_flat(s[0] * s[1]));
    ops_rounding(run, out, 4, s[2]);
    if (s[0] * s[1] < 4)
        ops_scale(run, out, sqrt((double)s[2])); /* a few sums alone may happen to be near 0 */
    OPS_CALL(run, row_dot, .batch = s[0], .rows = s[1], .n = s[2], .x_stride = layout.stride, .x = x, .y = y,
             .out = out);
    return PSK_OK;
}

OPS_TEST(row_dot, 1);
