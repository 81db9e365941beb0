/* The CPU device: the same bits for any number of threads, every instruction set near the reference, and what
 * PSK_CPU_ISA may say. Each operation is one function below that makes its tensors from a seed and runs once. (The
 * contracts, shape by shape, are in test_ops.c.) */
#include "base/memory.h"
#include "device/device.h"
#include "support.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TENSORS 24
#define SEED    20240611u

/* The tensors of one run, in the order in which the operation asked for them. */
typedef struct tensors {
    float *data[TENSORS];
    int64_t size[TENSORS];
    int32_t *integers;
    int count;
} tensors;

static float *tensor(tensors *t, int64_t n) {
    char name[16];
    snprintf(name, sizeof name, "%d", t->count);
    t->data[t->count] = psk_test_random(n, SEED, name);
    t->size[t->count] = n;
    return t->data[t->count++];
}

/* i -> (7919 i + 13) mod limit */
static int32_t *integers(tensors *t, int64_t n, int64_t limit) {
    t->integers = malloc((size_t)n * sizeof(int32_t));
    assert_non_null(t->integers);
    for (int64_t i = 0; i < n; i++)
        t->integers[i] = (int32_t)((7919 * i + 13) % limit);
    return t->integers;
}

static void release(tensors *t) {
    for (int i = 0; i < t->count; i++)
        psk_test_free(t->data[i]);
    free(t->integers);
    *t = (tensors){0};
}

/* ---------------------------------------------------------------------------------------------- one run of each entry
 */

#define RUN_OP(name, ...) PSK_TEST_OK(device->ops->name(device, &(psk_##name##_args){__VA_ARGS__}))

static void run_matmul(psk_device *device, tensors *t) {
    const struct {
        int64_t batch, m, n, k;
        psk_orientation a, b;
    } shapes[] = {{1, 300, 801, 77, PSK_PLAIN, PSK_TRANSPOSED},
                  {12, 256, 65, 128, PSK_PLAIN, PSK_PLAIN},
                  {5, 131, 65, 256, PSK_TRANSPOSED, PSK_PLAIN},
                  {1, 1, 2000, 301, PSK_PLAIN, PSK_TRANSPOSED},
                  {2, 40, 48, 9000, PSK_PLAIN, PSK_PLAIN} /* a long sum, which must not be cut */};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int64_t batch = shapes[s].batch, m = shapes[s].m, n = shapes[s].n, k = shapes[s].k;
        float *a = tensor(t, batch * m * k), *b = tensor(t, batch * k * n), *c = tensor(t, batch * m * n);
        RUN_OP(matmul, .batch = batch, .m = m, .n = n, .k = k, .a = a, .lda = shapes[s].a == PSK_PLAIN ? k : m,
               .a_stride = m * k, .a_orientation = shapes[s].a, .b = b, .ldb = shapes[s].b == PSK_PLAIN ? n : k,
               .b_stride = k * n, .b_orientation = shapes[s].b, .c = c, .ldc = n, .c_stride = m * n, .alpha = 0.5f,
               .beta = s % 2 ? 0.75f : 0.0f);
    }
}

static void run_column_sum(psk_device *device, tensors *t) {
    float *x = tensor(t, 4999 * 131), *out = tensor(t, 131);
    RUN_OP(column_sum, .rows = 4999, .n = 131, .x = x, .out = out);
}

static void run_layernorm_forward(psk_device *device, tensors *t) {
    const int64_t rows = 997, n = 131;
    float *x = tensor(t, rows * n), *weight = tensor(t, n), *bias = tensor(t, n), *y = tensor(t, rows * n);
    float *mean = tensor(t, rows), *rstd = tensor(t, rows);
    RUN_OP(layernorm_forward, .rows = rows, .n = n, .x = x, .weight = weight, .bias = bias, .y = y, .mean = mean,
           .rstd = rstd, .eps = 1e-5f);
}

static void run_layernorm_backward(psk_device *device, tensors *t) {
    const int64_t rows = 4999, n = 131;
    float *x = tensor(t, rows * n), *weight = tensor(t, n), *mean = tensor(t, rows), *rstd = tensor(t, rows);
    float *dy = tensor(t, rows * n), *dx = tensor(t, rows * n), *dweight = tensor(t, n), *dbias = tensor(t, n);
    RUN_OP(layernorm_backward, .rows = rows, .n = n, .x = x, .weight = weight, .mean = mean, .rstd = rstd, .dy = dy,
           .dx = dx, .dweight = dweight, .dbias = dbias, .dx_write = PSK_ADD);
}

static void run_geglu_forward(psk_device *device, tensors *t) {
    float *x = tensor(t, 331 * 2 * 67), *y = tensor(t, 331 * 67);
    RUN_OP(geglu_forward, .rows = 331, .F = 67, .x = x, .y = y);
}

static void run_geglu_backward(psk_device *device, tensors *t) {
    float *x = tensor(t, 331 * 2 * 67), *dy = tensor(t, 331 * 67);
    RUN_OP(geglu_backward, .rows = 331, .F = 67, .x = x, .dy = dy, .dx = x);
}

#define COUNT 50021

static void run_gelu_forward(psk_device *device, tensors *t) {
    float *x = tensor(t, COUNT);
    RUN_OP(gelu_forward, .n = COUNT, .x = x, .y = x);
}

static void run_gelu_backward(psk_device *device, tensors *t) {
    float *x = tensor(t, COUNT), *dy = tensor(t, COUNT);
    RUN_OP(gelu_backward, .n = COUNT, .x = x, .dy = dy, .dx = dy);
}

static void run_product_forward(psk_device *device, tensors *t) {
    float *a = tensor(t, COUNT), *b = tensor(t, COUNT);
    RUN_OP(product_forward, .n = COUNT, .a = a, .b = b, .y = a, .scale = 0.3f);
}

static void run_product_backward(psk_device *device, tensors *t) {
    float *a = tensor(t, COUNT), *b = tensor(t, COUNT), *dy = tensor(t, COUNT);
    RUN_OP(product_backward, .n = COUNT, .a = a, .b = b, .dy = dy, .da = b, .db = a, .scale = 0.3f);
}

static void run_tanh_product_forward(psk_device *device, tensors *t) {
    float *a = tensor(t, COUNT), *b = tensor(t, COUNT), *y = tensor(t, COUNT);
    RUN_OP(tanh_product_forward, .n = COUNT, .a = a, .b = b, .y = y, .c = 1.5f);
}

static void run_tanh_product_backward(psk_device *device, tensors *t) {
    float *a = tensor(t, COUNT), *b = tensor(t, COUNT), *y = tensor(t, COUNT), *dy = tensor(t, COUNT);
    RUN_OP(tanh_product_backward, .n = COUNT, .a = a, .b = b, .y = y, .dy = dy, .da = y, .db = dy, .c = 5.0f);
}

static void run_embedding_forward(psk_device *device, tensors *t) {
    const int64_t rows = 397, D = 131;
    int32_t *tokens = integers(t, rows, 97);
    float *wte = tensor(t, 97 * D), *x = tensor(t, rows * D);
    RUN_OP(embedding_forward, .rows = rows, .D = D, .tokens = tokens, .positions = tokens, .wte = wte, .x = x,
           .position_scale = 0.7f);
}

static void run_embedding_backward(psk_device *device, tensors *t) {
    const int64_t rows = 1999, D = 131;
    int32_t *tokens = integers(t, rows, 17);
    float *dx = tensor(t, rows * D), *dwte = tensor(t, 17 * D);
    RUN_OP(embedding_backward, .rows = rows, .D = D, .V = 17, .tokens = tokens, .dx = dx, .dwte = dwte);
}

static void run_cross_entropy(psk_device *device, tensors *t) {
    const int64_t rows = 61, V = 1009;
    int32_t *targets = integers(t, rows, V);
    targets[3] = -1;
    float *logits = tensor(t, rows * V), *bias = tensor(t, V), *loss = tensor(t, rows);
    RUN_OP(cross_entropy, .rows = rows, .V = V, .logits = logits, .bias = bias, .targets = targets, .loss = loss,
           .scale = 0.25f);
}

static void run_dropout(psk_device *device, tensors *t) {
    float *x = tensor(t, COUNT);
    RUN_OP(dropout, .n = COUNT, .x = x, .p = 0.3f, .seed = 123456789012345, .stream = 0xfedcba9876543210u);
}

static void run_split_heads_forward(psk_device *device, tensors *t) {
    const int64_t B = 2, N = 131, H = 4, Hkv = 2, h = 19, stride = (N + 3) * h;
    int32_t *positions = integers(t, B * N, 1000003);
    float *qkv = tensor(t, B * N * (H + 2 * Hkv) * h), *q = tensor(t, B * H * N * h);
    float *k = tensor(t, B * Hkv * stride), *v = tensor(t, B * Hkv * stride);
    RUN_OP(split_heads_forward, .B = B, .N = N, .H = H, .Hkv = Hkv, .h = h, .qkv = qkv, .positions = positions, .q = q,
           .k = k, .v = v, .kv_stride = stride);
}

static void run_split_heads_backward(psk_device *device, tensors *t) {
    const int64_t B = 2, N = 131, H = 4, Hkv = 2, h = 19;
    int32_t *positions = integers(t, B * N, 1000003);
    float *dq = tensor(t, B * H * N * h), *dk = tensor(t, B * Hkv * N * h), *dv = tensor(t, B * Hkv * N * h);
    float *dqkv = tensor(t, B * N * (H + 2 * Hkv) * h);
    RUN_OP(split_heads_backward, .B = B, .N = N, .H = H, .Hkv = Hkv, .h = h, .dq = dq, .dk = dk, .dv = dv,
           .positions = positions, .dqkv = dqkv);
}

static void run_transpose_heads(psk_device *device, tensors *t) {
    float *x = tensor(t, 3 * 37 * 11 * 67), *y = tensor(t, 3 * 37 * 11 * 67);
    RUN_OP(transpose_heads, .B = 3, .P = 37, .Q = 11, .n = 67, .x = x, .y = y);
}

#define GAIN_ROW 9001

static void run_head_gain_forward(psk_device *device, tensors *t) {
    float *gain = tensor(t, 5), *x = tensor(t, 3 * 5 * GAIN_ROW);
    RUN_OP(head_gain_forward, .B = 3, .H = 5, .n = GAIN_ROW, .gain = gain, .x = x, .y = x);
}

static void run_head_gain_backward(psk_device *device, tensors *t) {
    float *gain = tensor(t, 5), *y = tensor(t, 3 * 5 * GAIN_ROW), *dy = tensor(t, 3 * 5 * GAIN_ROW),
          *dgain = tensor(t, 5);
    RUN_OP(head_gain_backward, .B = 3, .H = 5, .n = GAIN_ROW, .gain = gain, .y = y, .dy = dy, .x = y, .dx = dy,
           .dgain = dgain);
}

#define TILES 5
#define ROWS  67
#define COLS  71

static void run_power_weights_forward(psk_device *device, tensors *t) {
    for (int64_t p = 1; p <= 8; p++) {
        float *s = tensor(t, TILES * ROWS * COLS);
        RUN_OP(power_weights_forward, .batch = TILES, .rows = ROWS, .cols = COLS, .ld = COLS, .stride = ROWS * COLS,
               .p = p, .offset = p - 3, .s = s, .w = s, .scale = 0.5f);
    }
}

static void run_power_weights_backward(psk_device *device, tensors *t) {
    for (int64_t p = 1; p <= 5; p++) {
        float *s = tensor(t, TILES * ROWS * COLS), *dw = tensor(t, TILES * ROWS * COLS),
              *w = tensor(t, TILES * ROWS * COLS);
        RUN_OP(power_weights_backward, .batch = TILES, .rows = ROWS, .cols = COLS, .ld = COLS, .stride = ROWS * COLS,
               .p = p, .offset = p == 2 ? PSK_NO_MASK : 0, .s = s, .dw = dw, .w = p == 3 ? NULL : w, .ds = dw,
               .scale = 0.5f);
    }
}

/* Below, at and above one vector of each instruction set, and past the limit of the packed kernels. */
static const int64_t sketch_sizes[] = {1, 7, 16, 17, 32, 50, 260};
#define SKETCH_SIZES ((int)(sizeof sketch_sizes / sizeof *sketch_sizes))

static void run_pack_features_forward(psk_device *device, tensors *t) {
    for (int i = 0; i < SKETCH_SIZES; i++) {
        const int64_t r = sketch_sizes[i], m = r * (r + 1) / 2;
        float *x = tensor(t, 2 * 37 * r), *y = tensor(t, 2 * 37 * m);
        RUN_OP(pack_features_forward, .batch = 2, .rows = 37, .r = r, .x_stride = 37 * r, .y_stride = 37 * m, .x = x,
               .y = y, .scale = 0.5f, .off_diagonal = 2.0f);
    }
}

static void run_pack_features_backward(psk_device *device, tensors *t) {
    for (int i = 2; i < SKETCH_SIZES; i++) {
        const int64_t r = sketch_sizes[i], m = r * (r + 1) / 2;
        float *x = tensor(t, 2 * 37 * r), *dy = tensor(t, 2 * 37 * m), *dx = tensor(t, 2 * 37 * r);
        RUN_OP(pack_features_backward, .batch = 2, .rows = 37, .r = r, .x_stride = 37 * r, .y_stride = 37 * m, .x = x,
               .dy = dy, .dx = dx, .scale = 0.5f, .off_diagonal = 2.0f, .dx_write = i % 2 ? PSK_ADD : PSK_SET);
    }
}

static void run_performer_features_forward(psk_device *device, tensors *t) {
    float *u = tensor(t, 331 * 67), *x = tensor(t, 331 * 19);
    RUN_OP(performer_features_forward, .rows = 331, .h = 19, .m = 67, .u = u, .x = x, .f = u);
}

static void run_performer_features_backward(psk_device *device, tensors *t) {
    float *f = tensor(t, 331 * 67), *x = tensor(t, 331 * 19), *df = tensor(t, 331 * 67), *dx = tensor(t, 331 * 19);
    RUN_OP(performer_features_backward, .rows = 331, .h = 19, .m = 67, .f = f, .x = x, .df = df, .du = df, .dx = dx);
}

static void run_append_one(psk_device *device, tensors *t) {
    float *x = tensor(t, TILES * 331 * 19), *y = tensor(t, TILES * 331 * 20);
    RUN_OP(append_one, .batch = TILES, .rows = 331, .d = 19, .x_stride = 331 * 19, .x = x, .y = y);
}

static void run_normalise_forward(psk_device *device, tensors *t) {
    float *o1 = tensor(t, TILES * 331 * 20), *out = tensor(t, TILES * 331 * 19), *den = tensor(t, TILES * 331);
    for (int64_t i = 0; i < TILES * 331; i++)
        o1[i * 20 + 19] = fabsf(o1[i * 20 + 19]);
    RUN_OP(normalise_forward, .batch = TILES, .rows = 331, .d = 19, .out_stride = 331 * 19, .den_stride = 331, .o1 = o1,
           .out = out, .den = den, .beta = 1.0f);
}

static void run_normalise_backward(psk_device *device, tensors *t) {
    float *dout = tensor(t, TILES * 331 * 19), *out = tensor(t, TILES * 331 * 19), *den = tensor(t, TILES * 331);
    float *dn1 = tensor(t, TILES * 331 * 20);
    den[7] = 0.0f;
    RUN_OP(normalise_backward, .batch = TILES, .rows = 331, .d = 19, .out_stride = 331 * 19, .den_stride = 331,
           .dout = dout, .out = out, .den = den, .dn1 = dn1);
}

static void run_softmax_tile_forward(psk_device *device, tensors *t) {
    float *s = tensor(t, TILES * ROWS * COLS), *max = tensor(t, TILES * ROWS), *sum = tensor(t, TILES * ROWS),
          *o = tensor(t, TILES * ROWS * 19);
    for (int64_t i = 0; i < TILES * ROWS; i++) {
        max[i] = i % 3 == 0 ? -INFINITY : max[i];
        sum[i] = i % 3 == 0 ? 0.0f : fabsf(sum[i]);
    }
    RUN_OP(softmax_tile_forward, .batch = TILES, .rows = ROWS, .cols = COLS, .d = 19, .offset = 2, .s = s,
           .row_max = max, .row_sum = sum, .o = o);
}

static void run_softmax_tile_backward(psk_device *device, tensors *t) {
    float *s = tensor(t, TILES * ROWS * COLS), *dp = tensor(t, TILES * ROWS * COLS), *lse = tensor(t, TILES * ROWS);
    float *delta = tensor(t, TILES * ROWS);
    RUN_OP(softmax_tile_backward, .batch = TILES, .rows = ROWS, .cols = COLS, .offset = -4, .lse_stride = ROWS,
           .delta_stride = ROWS, .s = s, .dp = dp, .lse = lse, .delta = delta, .scale = 0.125f);
}

static void run_softmax_finish(psk_device *device, tensors *t) {
    float *o = tensor(t, TILES * 331 * 19), *max = tensor(t, TILES * 331), *sum = tensor(t, TILES * 331);
    float *out = tensor(t, TILES * 331 * 19), *lse = tensor(t, TILES * 331);
    for (int64_t i = 0; i < TILES * 331; i++)
        sum[i] = fabsf(sum[i]) + 0.1f;
    RUN_OP(softmax_finish, .batch = TILES, .rows = 331, .d = 19, .out_stride = 331 * 19, .lse_stride = 331, .o = o,
           .row_max = max, .row_sum = sum, .out = out, .lse = lse);
}

static void run_row_dot(psk_device *device, tensors *t) {
    float *x = tensor(t, TILES * 331 * 67), *y = tensor(t, TILES * 331 * 67), *out = tensor(t, TILES * 331);
    RUN_OP(row_dot, .batch = TILES, .rows = 331, .n = 67, .x_stride = 331 * 67, .x = x, .y = y, .out = out);
}

static void run_copy(psk_device *device, tensors *t) {
    float *x = tensor(t, 3 * 5 * 5000), *y = tensor(t, 3 * 5 * 5000);
    RUN_OP(copy, .batch = 3, .rows = 5, .n = 4999, .x_ld = 5000, .x_stride = 25000, .y_ld = 5000, .y_stride = 25000,
           .x = x, .y = y, .alpha = 0.5f, .write = PSK_ADD);
}

static void run_fill(psk_device *device, tensors *t) {
    float *x = tensor(t, COUNT * 3);
    RUN_OP(fill, .n = COUNT * 3, .x = x, .value = 2.5f);
}

static void run_sum_squares(psk_device *device, tensors *t) {
    float *x = tensor(t, COUNT * 7);
    double *out = (double *)tensor(t, 2);
    RUN_OP(sum_squares, .n = COUNT * 7, .x = x, .out = out);
    ((float *)out)[0] = (float)*out; /* as floats, so that near means near */
    ((float *)out)[1] = 1.0f;
}

static void run_adamw(psk_device *device, tensors *t) {
    float *param = tensor(t, COUNT), *m = tensor(t, COUNT), *v = tensor(t, COUNT), *grad = tensor(t, COUNT);
    for (int64_t i = 0; i < COUNT; i++)
        v[i] *= v[i];
    RUN_OP(adamw, .n = COUNT, .step = 7, .param = param, .m = m, .v = v, .grad = grad, .lr = 1e-3f, .beta1 = 0.9f,
           .beta2 = 0.95f, .eps = 1e-8f, .weight_decay = 0.1f, .grad_scale = 0.5f);
}

static void run_row_products(psk_device *device, tensors *t) {
    const int64_t rows = 9, n = 1001, k = 300;
    float *x = tensor(t, rows * k), *w = tensor(t, n * k), *y = tensor(t, rows * n);
    RUN_OP(row_products, .rows = rows, .n = n, .k = k, .x = x, .x_ld = k, .w = w, .w_ld = k,
           .w_orientation = PSK_TRANSPOSED, .y = y, .y_ld = n, .alpha = 1, .beta = 0.5f);
}

/* Numbers of bfloat16, as floats. */
static void spread(const psk_bf16 *from, int64_t n, float *to) {
    for (int64_t i = 0; i < n; i++)
        to[i] = psk_bf16_to_float(from[i]);
}

static void run_pack_panels(psk_device *device, tensors *t) {
    const int64_t n = 1001, k = 301, numbers = psk_panel_numbers(n, k);
    float *w = tensor(t, n * k), *panels = tensor(t, numbers);
    psk_bf16 *packed = malloc((size_t)numbers * sizeof *packed);
    assert_non_null(packed);
    RUN_OP(pack_panels, .n = n, .k = k, .w = w, .w_ld = k, .w_orientation = PSK_TRANSPOSED, .panels = packed);
    spread(packed, numbers, panels);
    free(packed);
}

static void run_round_rows(psk_device *device, tensors *t) {
    const int64_t rows = 331, n = 301;
    float *x = tensor(t, rows * n), *y = tensor(t, rows * n);
    psk_bf16 *rounded = malloc((size_t)(rows * n) * sizeof *rounded);
    assert_non_null(rounded);
    RUN_OP(round_rows, .rows = rows, .n = n, .x_ld = n, .y_ld = n, .x = x, .y = rounded);
    spread(rounded, rows * n, y);
    free(rounded);
}

static void run_attention_step(psk_device *device, tensors *t) {
    const int64_t count = 3, H = 4, Hkv = 2, h = 33, r = 9, capacity = 70, m = r * (r + 1) / 2;
    psk_step_session sessions[3];
    for (int64_t i = 0; i < count; i++) {
        float *state = tensor(t, Hkv * m * (h + 1));
        for (int64_t e = 0; e < Hkv * m; e++) /* sums of weights are not negative, as those of a state are */
            state[e * (h + 1) + h] = e % m == 0 ? 1000.0f : 0.0f;
        sessions[i] = (psk_step_session){.state = state,
                                         .k = tensor(t, Hkv * capacity * h),
                                         .v = tensor(t, Hkv * capacity * h),
                                         .b = tensor(t, Hkv * capacity * r),
                                         .capacity = capacity,
                                         .first = 20 * i,
                                         .rows = 60 + i};
    }
    psk_attention_config config = psk_attention_config_default();
    config.sketch_size = r;
    float *q = tensor(t, count * H * h), *a = tensor(t, count * H * r), *k = tensor(t, count * Hkv * h),
          *v = tensor(t, count * Hkv * h), *b = tensor(t, count * Hkv * r), *out = tensor(t, count * H * h);
    RUN_OP(attention_step, .config = &config, .count = count, .H = H, .Hkv = Hkv, .h = h, .d = h, .r = r,
           .sessions = sessions, .q = q, .a = a, .k = k, .v = v, .b = b, .out = out);
}

static const struct {
    const char *name;
    void (*run)(psk_device *device, tensors *t);
} operations[] = {
#define PSK_OP(name) {#name, run_##name},
#include "device/ops.def"
#undef PSK_OP
};
#define OPERATIONS ((int)(sizeof operations / sizeof *operations))

/* -------------------------------------------------------------------------------------------------------------- tests
 */

static const char *const isas[] = {"baseline", "avx2", "avx512", "amx"};
#define ISAS ((int)(sizeof isas / sizeof *isas))

/* The CPU device with one instruction set, or NULL where the machine lacks it. */
static psk_device *cpu_device(const char *isa, int threads) {
    psk_device *device = NULL;
    setenv("PSK_CPU_ISA", isa, 1);
    const psk_status status = psk_device_create("cpu", threads, &device);
    unsetenv("PSK_CPU_ISA");
    if (status != PSK_OK && strcmp(isa, "baseline") != 0)
        return NULL;
    PSK_TEST_OK(status);
    return device;
}

static void same_bits_for_any_number_of_threads(void **state) {
    (void)state;
    omp_set_num_threads(8); /* what a library with its own regions would take: it must not */
    for (int i = 0; i < ISAS; i++) {
        psk_device *one = cpu_device(isas[i], 1);
        for (int threads = 2; one && threads <= 3; threads++) {
            psk_device *many = cpu_device(isas[i], threads);
            for (int op = 0; op < OPERATIONS; op++) {
                tensors a = {0}, b = {0};
                operations[op].run(one, &a);
                operations[op].run(many, &b);
                for (int k = 0; k < a.count; k++)
                    if (memcmp(a.data[k], b.data[k], (size_t)a.size[k] * sizeof(float)) != 0)
                        fail_msg("%s: tensor %d differs between 1 and %d threads (%s, seed %u)", operations[op].name, k,
                                 threads, isas[i], SEED);
                release(&a);
                release(&b);
            }
            psk_device_free(many);
        }
        psk_device_free(one);
    }
}

static void every_instruction_set_is_near_the_reference(void **state) {
    (void)state;
    psk_device *reference, *cpu[ISAS];
    PSK_TEST_OK(psk_device_create("reference", 1, &reference));
    for (int i = 0; i < ISAS; i++)
        cpu[i] = cpu_device(isas[i], 2);
    for (int op = 0; op < OPERATIONS; op++) {
        tensors want = {0};
        operations[op].run(reference, &want);
        for (int i = 0; i < ISAS; i++) {
            if (!cpu[i])
                continue;
            tensors got = {0};
            operations[op].run(cpu[i], &got);
            for (int k = 0; k < want.count; k++) {
                const double error = psk_test_relative_rms(got.data[k], want.data[k], want.size[k]);
                if (!(error <= 2e-6))
                    fail_msg("%s: tensor %d is off by %g (%s, seed %u)", operations[op].name, k, error, isas[i], SEED);
                psk_test_check(got.data[k]);
            }
            release(&got);
        }
        release(&want);
    }
    for (int i = 0; i < ISAS; i++)
        psk_device_free(cpu[i]);
    psk_device_free(reference);
}

/* ------------------------------------------------------------------------------------------------ elementary functions
 */

/* Floats from all of the range: every STEP-th bit pattern, NaN among them, then the special ones. */
#define STEP 4099
static const float special[] = {0.0f,       -0.0f,    INFINITY, -INFINITY, 88.72283f, 88.73f,
                                -87.33655f, -103.97f, -104.5f,  1e30f,     -1e30f};
#define SPECIALS ((int64_t)(sizeof special / sizeof *special))

static float *all_floats(int64_t *count) {
    *count = (int64_t)(UINT32_MAX / STEP) + SPECIALS;
    float *x = psk_test_buffer(*count);
    for (int64_t i = 0; i < *count - SPECIALS; i++) {
        const uint32_t bits = (uint32_t)i * STEP;
        memcpy(&x[i], &bits, sizeof bits);
    }
    memcpy(x + *count - SPECIALS, special, sizeof special);
    return x;
}

static double exp_of(double x) {
    return exp(x);
}

static double tanh_of(double x) {
    return tanh(x);
}

static double gelu_of(double g) {
    const double u = 0.79788456080286535588 * (g + 0.044715 * g * g * g);
    return g / (1.0 + exp(-2.0 * u));
}

static void device_exp(psk_device *device, int64_t n, const float *x, float *y) {
    const float lse = 0.0f, delta = 0.0f;
    float *dp = psk_test_random(n, SEED, "dp");
    memcpy(y, x, (size_t)n * sizeof(float));
    RUN_OP(softmax_tile_backward, .batch = 1, .rows = 1, .cols = n, .offset = PSK_NO_MASK, .lse_stride = 1,
           .delta_stride = 1, .s = y, .dp = dp, .lse = &lse, .delta = &delta, .scale = 1.0f);
    psk_test_free(dp);
}

static void device_tanh(psk_device *device, int64_t n, const float *x, float *y) {
    for (int64_t i = 0; i < n; i++)
        y[i] = 1.0f;
    RUN_OP(tanh_product_forward, .n = n, .a = x, .b = y, .y = y, .c = 1.0f);
}

static void device_gelu(psk_device *device, int64_t n, const float *x, float *y) {
    RUN_OP(gelu_forward, .n = n, .x = x, .y = y);
}

static double gelu_slope_of(double g) {
    const double u = 0.79788456080286535588 * (g + 0.044715 * g * g * g), s = 1.0 / (1.0 + exp(-2.0 * u));
    const double rest =
        fabs(g) > 100 ? 0.0 : g * s * (1.0 - s) * 2.0 * 0.79788456080286535588 * (1.0 + 3.0 * 0.044715 * g * g);
    return s + rest;
}

static void device_gelu_slope(psk_device *device, int64_t n, const float *x, float *y) {
    for (int64_t i = 0; i < n; i++)
        y[i] = 1.0f;
    RUN_OP(gelu_backward, .n = n, .x = x, .dy = y, .dx = y);
}

static double one(double x) {
    (void)x;
    return 1.0;
}

/* gelu has e^(-2u) in it, where 2u carries its own rounding: relative to 1 + |2u|. */
static double gelu_condition(double g) {
    return 1.0 + fabs(2.0 * 0.79788456080286535588 * (g + 0.044715 * g * g * g));
}

/* Its slope is 0 at -0.75: near there the error is absolute. */
static double gelu_slope_condition(double g) {
    return g > -1.5 && g < -0.25 ? 1.0 / fabs(gelu_slope_of(g)) : gelu_condition(g);
}

/* The bounds are relative errors times `condition`; results below 1e-35 count as 0 (the
 * gate of gelu is subnormal there). */
static const struct {
    const char *name;
    double (*exact)(double x);
    void (*device)(psk_device *device, int64_t n, const float *x, float *y);
    double (*condition)(double x);
    double bound;
} functions[] = {{"exp", exp_of, device_exp, one, 1e-7},
                 {"tanh", tanh_of, device_tanh, one, 2e-7},
                 {"gelu", gelu_of, device_gelu, gelu_condition, 2e-7},
                 {"gelu'", gelu_slope_of, device_gelu_slope, gelu_slope_condition, 4e-7}};

static void elementary_functions_are_accurate_everywhere(void **state) {
    (void)state;
    int64_t n;
    float *x = all_floats(&n), *y = psk_test_buffer(n);
    for (int i = 0; i < ISAS; i++) {
        psk_device *device = cpu_device(isas[i], 2);
        for (size_t f = 0; device && f < sizeof functions / sizeof *functions; f++) {
            functions[f].device(device, n, x, y);
            for (int64_t k = 0; k < n; k++) {
                const double want = functions[f].exact((double)x[k]);
                if (isnan(want) ? isnan(y[k]) : (float)want == y[k] || fabs(want - (double)y[k]) <= 1e-35)
                    continue;
                const double error = fabs((double)y[k] - want) / (fabs(want) * functions[f].condition((double)x[k]));
                if (!(error <= functions[f].bound))
                    fail_msg("%s(%.9g) is %.9g, off by %g (%s)", functions[f].name, (double)x[k], (double)y[k], error,
                             isas[i]);
            }
        }
        psk_device_free(device);
    }
    psk_test_check(y);
    psk_test_free(x);
    psk_test_free(y);
}

/* The wave added by the embedding at D = 2 is sin n, cos n. */
static void angles_are_accurate_to_millions(void **state) {
    (void)state;
    enum { POSITIONS = 20011 };
    int32_t *positions = malloc(2 * POSITIONS * sizeof(int32_t)), *tokens = positions + POSITIONS;
    assert_non_null(positions);
    const float wte[2] = {0.0f, 0.0f};
    for (int64_t t = 0; t < POSITIONS; t++) {
        positions[t] = (int32_t)(t < 1000 ? t : t * 104729 % INT32_MAX);
        tokens[t] = 0;
    }
    float *x = psk_test_buffer(2 * POSITIONS);
    for (int i = 0; i < ISAS; i++) {
        psk_device *device = cpu_device(isas[i], 2);
        if (!device)
            continue;
        RUN_OP(embedding_forward, .rows = POSITIONS, .D = 2, .tokens = tokens, .positions = positions, .wte = wte,
               .x = x, .position_scale = 1.0f);
        for (int64_t t = 0; t < POSITIONS; t++) {
            const double sine = fabs((double)x[2 * t] - sin((double)positions[t]));
            const double cosine = fabs((double)x[2 * t + 1] - cos((double)positions[t]));
            const double bound = 1e-7 + 1e-16 * (double)positions[t]; /* the second is the angle's own rounding */
            if (!(sine <= bound && cosine <= bound))
                fail_msg("position %d: %.9g, %.9g (%s)", positions[t], (double)x[2 * t], (double)x[2 * t + 1], isas[i]);
        }
        psk_device_free(device);
    }
    psk_test_free(x);
    free(positions);
}

static void unknown_instruction_set_is_refused(void **state) {
    (void)state;
    psk_device *device = NULL;
    setenv("PSK_CPU_ISA", "sse9", 1);
    PSK_TEST_FAILS(psk_device_create("cpu", 1, &device), PSK_ERROR_ARGUMENT, "PSK_CPU_ISA", "sse9", "baseline");
    unsetenv("PSK_CPU_ISA");
    assert_null(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_for_any_number_of_threads),
        cmocka_unit_test(every_instruction_set_is_near_the_reference),
        cmocka_unit_test(elementary_functions_are_accurate_everywhere),
        cmocka_unit_test(angles_are_accurate_to_millions),
        cmocka_unit_test(unknown_instruction_set_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
