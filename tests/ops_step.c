/* Tests of the operations of decoding. */
#include "ops_harness.h"

#include "base/memory.h"

#include <math.h>

/* n numbers of bfloat16, released with the run. */
static psk_bf16 *new_panels(ops_run *run, int64_t n) {
    psk_bf16 *panels;
    PSK_TEST_OK(psk_alloc((size_t)n * sizeof *panels, "panels", (void **)&panels));
    run->extra[run->extras++] = panels;
    return panels;
}

/* rows, n, k, gap behind each row, scaled (alpha, beta other than 1, 0) */
static const int64_t cases_row_products[][OPS_MAX_SIZES] = {
    {0, 3, 3},         {3, 0, 3},      {2, 3, 0},         {1, 1, 1},    {1, 17, 5, 3},  {1, 65, 64, 0, 1},
    {1, 130, 513},     {2, 16, 31, 1}, {3, 48, 33, 0, 1}, {5, 47, 34},  {8, 49, 96, 5}, {13, 33, 65, 0, 1},
    {33, 100, 131, 2}, {64, 51, 40},   {67, 7, 3},        {17, 32, 64},
};

/* variant: bit 0 weights n x k, bit 1 panels, bit 2 y is added to */
static psk_status run_row_products(ops_run *run, const int64_t *s, int64_t variant) {
    const int64_t rows = s[0], n = s[1], k = s[2], gap = s[3];
    const bool turned = variant & 1, panels = variant & 2, add = variant & 4, scaled = s[4] != 0;
    const ops_layout w_layout = {1, turned ? n : k, turned ? k : n, (turned ? k : n) + gap, 0};
    const float *x = ops_new(run, "x", OPS_INPUT, (ops_layout){1, rows, k, k + gap, 0});
    const float *w = ops_new(run, "w", OPS_INPUT, w_layout);
    float *y = ops_new(run, "y", add ? OPS_INOUT : OPS_OUTPUT, (ops_layout){1, rows, n, n + gap, 0});
    psk_bf16 *packed = panels ? new_panels(run, psk_panel_numbers(n, k)) : NULL;
    const psk_pack_panels_args pack = {.n = n,
                                       .k = k,
                                       .w = w,
                                       .w_ld = w_layout.ld,
                                       .w_orientation = turned ? PSK_TRANSPOSED : PSK_PLAIN,
                                       .panels = packed};
    if (panels)
        PSK_TRY(run->device->ops->pack_panels(run->device, &pack));
    ops_rounding(run, y, 4, k);
    OPS_CALL(run, row_products, .rows = rows, .n = n, .k = k, .x = x, .x_ld = k + gap, .w = w, .w_ld = w_layout.ld,
             .w_orientation = pack.w_orientation, .panels = packed, .y = y, .y_ld = n + gap,
             .alpha = scaled ? -0.75F : 1, .beta = add ? (scaled ? 0.5F : 1) : 0);
    return PSK_OK;
}

OPS_TEST(row_products, 8);

static const int64_t cases_pack_panels[][OPS_MAX_SIZES] = {
    /* n, k, gap */ {1, 1}, {3, 2, 1}, {16, 5}, {17, 32, 3}, {33, 31}, {100, 67, 2},
};

/* variant: 1 weights n x k. The numbers are compared as floats. */
static psk_status run_pack_panels(ops_run *run, const int64_t *s, int64_t variant) {
    const int64_t n = s[0], k = s[1], gap = s[2], numbers = psk_panel_numbers(n, k);
    const ops_layout layout = {1, variant ? n : k, variant ? k : n, (variant ? k : n) + gap, 0};
    const float *w = ops_new(run, "w", OPS_INPUT, layout);
    float *panels = ops_new(run, "panels", OPS_OUTPUT, ops_flat(numbers));
    psk_bf16 *packed = new_panels(run, numbers);
    ops_rounding(run, panels, 0, 0);
    ops_exact_zeros(run, panels);
    OPS_CALL(run, pack_panels, .n = n, .k = k, .w = w, .w_ld = layout.ld,
             .w_orientation = variant ? PSK_TRANSPOSED : PSK_PLAIN, .panels = packed);
    for (int64_t i = 0; i < numbers; i++)
        panels[i] = psk_bf16_to_float(packed[i]);
    return PSK_OK;
}

OPS_TEST(pack_panels, 2);

static const int64_t cases_round_rows[][OPS_MAX_SIZES] = {
    /* rows, n, gap */ {0, 3}, {3, 0}, {1, 1}, {3, 17, 2}, {2, 9000, 1}, {5, 64},
};

/* The numbers are compared as floats. */
static psk_status run_round_rows(ops_run *run, const int64_t *s, int64_t variant) {
    const int64_t rows = s[0], n = s[1], ld = n + s[2];
    (void)variant;
    const float *x = ops_new(run, "x", OPS_INPUT, (ops_layout){1, rows, n, ld, 0});
    float *y = ops_new(run, "y", OPS_OUTPUT, (ops_layout){1, rows, n, ld, 0});
    psk_bf16 *rounded = new_panels(run, rows * ld + 1);
    ops_rounding(run, y, 0, 0);
    OPS_CALL(run, round_rows, .rows = rows, .n = n, .x_ld = ld, .y_ld = ld, .x = x, .y = rounded);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < n; j++)
            y[i * ld + j] = psk_bf16_to_float(rounded[i * ld + j]);
    return PSK_OK;
}

OPS_TEST(round_rows, 1);

/* count, H, Hkv, h, d, r, capacity, first, rows; the sessions stand at different places of their rings */
static const int64_t cases_attention_step[][OPS_MAX_SIZES] = {
    {1, 1, 1, 1, 1, 1, 1, 0, 0},      {1, 2, 1, 5, 3, 4, 7, 0, 6},      {2, 2, 2, 16, 16, 8, 8, 5, 7},
    {3, 4, 2, 17, 19, 5, 12, 11, 3},  {1, 3, 3, 64, 64, 32, 40, 0, 39}, {2, 1, 1, 33, 65, 9, 700, 650, 699},
    {5, 6, 3, 31, 32, 7, 17, 16, 16},
};

static const struct {
    psk_mechanism mechanism;
    psk_local local;
    int64_t degree;
} step_forms[] = {
    {PSK_SOFTMAX, PSK_LOCAL_NONE, 2},     {PSK_POLYNOMIAL, PSK_LOCAL_NONE, 2},   {PSK_POLYSKETCH, PSK_LOCAL_NONE, 4},
    {PSK_POLYSKETCH, PSK_LOCAL_BLOCK, 4}, {PSK_POLYSKETCH, PSK_LOCAL_WINDOW, 6}, {PSK_PERFORMER, PSK_LOCAL_NONE, 2},
};

#define STEP_FORMS ((int64_t)(sizeof step_forms / sizeof step_forms[0]))

/* A copy in bfloat16. */
static psk_bf16 *rounded_copy(ops_run *run, const float *x, int64_t n) {
    psk_bf16 *copy = new_panels(run, n);
    for (int64_t i = 0; i < n; i++)
        copy[i] = psk_bf16_from_float(x[i]);
    return copy;
}

/* variants from STEP_FORMS on: with rounded copies */
static psk_status run_attention_step(ops_run *run, const int64_t *s, int64_t form) {
    const int64_t variant = form % STEP_FORMS;
    const int64_t count = s[0], H = s[1], Hkv = s[2], h = s[3], d = s[4], r = s[5], capacity = s[6];
    const psk_mechanism mechanism = step_forms[variant].mechanism;
    const bool qk = mechanism != PSK_PERFORMER && (mechanism != PSK_POLYSKETCH || step_forms[variant].local);
    const bool ab = mechanism == PSK_POLYSKETCH || mechanism == PSK_PERFORMER;
    const int64_t m = mechanism == PSK_POLYSKETCH ? r * (r + 1) / 2 : r, rows = count * Hkv * capacity;
    psk_attention_config config = psk_attention_config_default();
    config.mechanism = mechanism;
    config.local = step_forms[variant].local;
    config.degree = step_forms[variant].degree;
    config.far_scale = 0.5F;
    float *k = ops_new(run, "k", OPS_INOUT, ops_packed(rows, h)),
          *v = ops_new(run, "v", OPS_INOUT, ops_packed(rows, d));
    float *b = ops_new(run, "b", OPS_INOUT, ops_packed(rows, r));
    float *state = ops_new(run, "state", OPS_INPUT, ops_packed(count * Hkv * m, d + 1));
    float *q = ops_new(run, "q", OPS_INPUT, ops_packed(count * H, h));
    float *a = ops_new(run, "a", OPS_INPUT, ops_packed(count * H, r));
    const float *new_k = ops_new(run, "new k", OPS_INPUT, ops_packed(count * Hkv, h));
    const float *new_v = ops_new(run, "new v", OPS_INPUT, ops_packed(count * Hkv, d));
    float *new_b = ops_new(run, "new b", OPS_INPUT, ops_packed(count * Hkv, r));
    float *out = ops_new(run, "out", OPS_OUTPUT, ops_packed(count * H, d));
    float *const positive[] = {a, b, new_b, state}; /* so that the sum of weights is one of the same signs */
    const int64_t sizes[] = {count * H * r, rows * r, count * Hkv * r, count * Hkv * m * (d + 1)};
    for (int t = 0; t < 4; t++)
        for (int64_t i = 0; ab && i < sizes[t]; i++)
            positive[t][i] = fabsf(positive[t][i]);
    psk_step_session *sessions;
    PSK_TEST_OK(psk_alloc((size_t)count * sizeof *sessions, "sessions", (void **)&sessions));
    run->extra[run->extras++] = sessions;
    for (int64_t i = 0; i < count; i++) {
        const int64_t row = i * Hkv * capacity;
        sessions[i] = (psk_step_session){.state = ab ? state + i * Hkv * m * (d + 1) : NULL,
                                         .k = qk ? k + row * h : NULL,
                                         .v = v + row * d,
                                         .b = ab ? b + row * r : NULL,
                                         .capacity = capacity,
                                         .first = (s[7] + 3 * i) % capacity,
                                         .rows = (s[8] + 2 * i) % capacity};
    }
    psk_bf16 *copies[] = {NULL, NULL, NULL, NULL};
    if (form >= STEP_FORMS) {
        copies[0] = rounded_copy(run, state, count * Hkv * m * (d + 1));
        copies[1] = rounded_copy(run, k, rows * h);
        copies[2] = rounded_copy(run, v, rows * d);
        copies[3] = rounded_copy(run, b, rows * r);
    }
    for (int64_t i = 0; i < count && form >= STEP_FORMS; i++) {
        const int64_t row = i * Hkv * capacity;
        sessions[i].rounded.state = ab ? copies[0] + i * Hkv * m * (d + 1) : NULL;
        sessions[i].rounded.k = qk ? copies[1] + row * h : NULL;
        sessions[i].rounded.v = copies[2] + row * d;
        sessions[i].rounded.b = ab ? copies[3] + row * r : NULL;
    }
    ops_rounding(run, out, 60, capacity + m);
    OPS_CALL(run, attention_step, .config = &config, .count = count, .H = H, .Hkv = Hkv, .h = h, .d = d, .r = r,
             .sessions = sessions, .q = q, .a = a, .k = new_k, .v = new_v, .b = new_b, .out = out);
    return PSK_OK;
}

OPS_TEST(attention_step, 2 * STEP_FORMS);
