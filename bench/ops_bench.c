/* Speed of the operations of a device, at the sizes of GPT-2 small: 2,048 tokens, 12 heads of 64, sketch size 32,
 * blocks of 256. ops_bench [filter]      operations whose name holds `filter`; PSK_CPU_ISA chooses the kernels Prints
 * the fastest of some calls, with one thread (its processor time, which a busy machine disturbs little) and with all
 * (time on the clock: only on a quiet machine): microseconds and GFLOP/s (products) or GB/s (bytes that must be read
 * and written once). That the operations are right is the business of tests/test_ops.c. */
#include "base/memory.h"
#include "device/device.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    TOKENS = 2048,
    HEADS = 12,
    HEAD = 64,
    WIDTH = 768,
    MLP = 2048,
    VOCABULARY = 50257,
    SKETCH = 32,
    BLOCK = 256,
    BUFFERS = 4
};
#define BLOCKS   (HEADS * (int64_t)TOKENS / BLOCK)
#define FEATURES (SKETCH * (SKETCH + 1) / 2)
#define LARGEST  ((int64_t)1024 * VOCABULARY) /* floats of a buffer */

static float *buffer[BUFFERS];
static int32_t *integers; /* 0 ... VOCABULARY - 1, TOKENS of them */

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

typedef psk_status (*operation)(psk_device *device);

/* CASE(function, name as printed, work, "GFLOP/s" or "GB/s" when 1e9 times, the call) */
#define CASES                                                                                                          \
    MATMUL(qkv, 1, TOKENS, 768, 768, PSK_PLAIN, PSK_TRANSPOSED)                                                        \
    MATMUL(up, 1, TOKENS, 3072, 768, PSK_PLAIN, PSK_TRANSPOSED)                                                        \
    MATMUL(down_dx, 1, TOKENS, 768, 3072, PSK_PLAIN, PSK_PLAIN)                                                        \
    MATMUL(weight_gradient, 1, 768, 3072, TOKENS, PSK_TRANSPOSED, PSK_PLAIN)                                           \
    MATMUL(small_weight_gradient, 1, 768, 768, TOKENS, PSK_TRANSPOSED, PSK_PLAIN)                                      \
    MATMUL(logits, 1, 512, VOCABULARY, 768, PSK_PLAIN, PSK_TRANSPOSED)                                                 \
    MATMUL(features_state, 12, 256, 65, 528, PSK_PLAIN, PSK_PLAIN)                                                     \
    MATMUL(state_update, 12, 528, 65, 256, PSK_TRANSPOSED, PSK_PLAIN)                                                  \
    MATMUL(scores_64, 12, 256, 256, 64, PSK_PLAIN, PSK_TRANSPOSED)                                                     \
    MATMUL(scores_32, 12, 256, 256, 32, PSK_PLAIN, PSK_TRANSPOSED)                                                     \
    MATMUL(weights_values, 12, 256, 65, 256, PSK_PLAIN, PSK_PLAIN)                                                     \
    MATMUL(token_qkv, 1, 1, 2304, 768, PSK_PLAIN, PSK_TRANSPOSED)                                                      \
    MATMUL(token_out, 1, 1, 768, 768, PSK_PLAIN, PSK_TRANSPOSED)                                                       \
    MATMUL(token_logits, 1, 1, VOCABULARY, 768, PSK_PLAIN, PSK_TRANSPOSED)                                             \
    MATMUL(token_state, 12, 1, 65, 528, PSK_PLAIN, PSK_PLAIN)                                                          \
    BYTES(column_sum, TOKENS * 4.0 * WIDTH, .rows = TOKENS, .n = WIDTH, .x = buffer[0], .out = buffer[1])              \
    BYTES(layernorm_forward, TOKENS * 8.0 * WIDTH, .rows = TOKENS, .n = WIDTH, .x = buffer[0], .weight = buffer[2],    \
          .bias = buffer[2] + WIDTH, .y = buffer[1], .mean = buffer[2] + 2 * WIDTH,                                    \
          .rstd = buffer[2] + 2 * WIDTH + TOKENS, .eps = 1e-5f)                                                        \
    BYTES(layernorm_backward, TOKENS * 16.0 * WIDTH, .rows = TOKENS, .n = WIDTH, .x = buffer[0], .weight = buffer[2],  \
          .mean = buffer[2] + 2 * WIDTH, .rstd = buffer[2] + 2 * WIDTH + TOKENS, .dy = buffer[1], .dx = buffer[3],     \
          .dweight = buffer[2] + 2 * WIDTH + 2 * TOKENS, .dbias = buffer[2] + 3 * WIDTH + 2 * TOKENS,                  \
          .dx_write = PSK_ADD)                                                                                         \
    BYTES(geglu_forward, TOKENS * 12.0 * MLP, .rows = TOKENS, .F = MLP, .x = buffer[0], .y = buffer[1])                \
    BYTES(geglu_backward, TOKENS * 20.0 * MLP, .rows = TOKENS, .F = MLP, .x = buffer[0], .dy = buffer[1],              \
          .dx = buffer[2])                                                                                             \
    BYTES(gelu_forward, TOKENS * 8.0 * MLP, .n = TOKENS * (int64_t)MLP, .x = buffer[0], .y = buffer[1])                \
    BYTES(gelu_backward, TOKENS * 12.0 * MLP, .n = TOKENS * (int64_t)MLP, .x = buffer[0], .dy = buffer[1],             \
          .dx = buffer[2])                                                                                             \
    BYTES(product_forward, TOKENS * 12.0 * WIDTH, .n = TOKENS * (int64_t)WIDTH, .a = buffer[0], .b = buffer[1],        \
          .y = buffer[2], .scale = 1.0f)                                                                               \
    BYTES(tanh_product_forward, TOKENS * 12.0 * WIDTH, .n = TOKENS * (int64_t)WIDTH, .a = buffer[0], .b = buffer[1],   \
          .y = buffer[2], .c = 5.0f)                                                                                   \
    BYTES(embedding_forward, TOKENS * 8.0 * WIDTH, .rows = TOKENS, .D = WIDTH, .tokens = integers,                     \
          .positions = integers, .wte = buffer[0], .x = buffer[1], .position_scale = 1.0f)                             \
    BYTES(embedding_backward, TOKENS * 12.0 * WIDTH, .rows = TOKENS, .D = WIDTH, .V = VOCABULARY, .tokens = integers,  \
          .dx = buffer[0], .dwte = buffer[1])                                                                          \
    BYTES(cross_entropy, 512 * 8.0 * VOCABULARY, .rows = 512, .V = VOCABULARY, .logits = buffer[0], .bias = buffer[1], \
          .targets = integers, .loss = buffer[2], .scale = 1.0f)                                                       \
    BYTES(dropout, TOKENS * 8.0 * WIDTH, .n = TOKENS * (int64_t)WIDTH, .x = buffer[0], .p = 0.1f, .seed = 1,           \
          .stream = 2)                                                                                                 \
    BYTES(split_heads_forward, TOKENS * 24.0 * WIDTH, .B = 1, .N = TOKENS, .H = HEADS, .Hkv = HEADS, .h = HEAD,        \
          .qkv = buffer[0], .positions = integers, .q = buffer[1], .k = buffer[2], .v = buffer[3],                     \
          .kv_stride = TOKENS * (int64_t)HEAD)                                                                         \
    BYTES(split_heads_backward, TOKENS * 24.0 * WIDTH, .B = 1, .N = TOKENS, .H = HEADS, .Hkv = HEADS, .h = HEAD,       \
          .dq = buffer[1], .dk = buffer[2], .dv = buffer[3], .positions = integers, .dqkv = buffer[0])                 \
    BYTES(transpose_heads, TOKENS * 8.0 * WIDTH, .B = 1, .P = HEADS, .Q = TOKENS, .n = HEAD, .x = buffer[0],           \
          .y = buffer[1])                                                                                              \
    BYTES(power_weights_forward, BLOCKS * 4.0 * BLOCK * BLOCK, .batch = BLOCKS, .rows = BLOCK, .cols = BLOCK,          \
          .ld = BLOCK, .stride = BLOCK * (int64_t)BLOCK, .p = 4, .s = buffer[0], .w = buffer[0], .scale = 1.0f)        \
    BYTES(power_weights_backward, BLOCKS * 8.0 * BLOCK * BLOCK, .batch = BLOCKS, .rows = BLOCK, .cols = BLOCK,         \
          .ld = BLOCK, .stride = BLOCK * (int64_t)BLOCK, .p = 4, .s = buffer[0], .dw = buffer[1], .w = buffer[0],      \
          .ds = buffer[1], .scale = 1.0f)                                                                              \
    BYTES(pack_features_forward, HEADS * 4.0 * BLOCK * (SKETCH + FEATURES), .batch = HEADS, .rows = BLOCK,             \
          .r = SKETCH, .x_stride = BLOCK * (int64_t)SKETCH, .y_stride = BLOCK * (int64_t)FEATURES, .x = buffer[0],     \
          .y = buffer[1], .scale = 1.0f, .off_diagonal = 2.0f)                                                         \
    BYTES(pack_features_backward, HEADS * 4.0 * BLOCK * (2 * SKETCH + FEATURES), .batch = HEADS, .rows = BLOCK,        \
          .r = SKETCH, .x_stride = BLOCK * (int64_t)SKETCH, .y_stride = BLOCK * (int64_t)FEATURES, .x = buffer[0],     \
          .dy = buffer[1], .dx = buffer[2], .scale = 1.0f, .off_diagonal = 2.0f)                                       \
    BYTES(append_one, TOKENS * 8.0 * WIDTH, .batch = HEADS, .rows = TOKENS, .d = HEAD,                                 \
          .x_stride = TOKENS * (int64_t)HEAD, .x = buffer[0], .y = buffer[1])                                          \
    BYTES(normalise_forward, TOKENS * 8.0 * WIDTH, .batch = HEADS, .rows = TOKENS, .d = HEAD,                          \
          .out_stride = TOKENS * (int64_t)HEAD, .den_stride = TOKENS, .o1 = buffer[0], .out = buffer[1],               \
          .den = buffer[2], .beta = 1.0f)                                                                              \
    BYTES(normalise_backward, TOKENS * 12.0 * WIDTH, .batch = HEADS, .rows = TOKENS, .d = HEAD,                        \
          .out_stride = TOKENS * (int64_t)HEAD, .den_stride = TOKENS, .dout = buffer[0], .out = buffer[1],             \
          .den = buffer[2], .dn1 = buffer[3])                                                                          \
    BYTES(softmax_tile_forward, HEADS * 8.0 * BLOCK * BLOCK, .batch = HEADS, .rows = BLOCK, .cols = BLOCK, .d = HEAD,  \
          .offset = PSK_NO_MASK, .s = buffer[0], .row_max = buffer[1], .row_sum = buffer[2], .o = buffer[3])           \
    BYTES(softmax_tile_backward, HEADS * 16.0 * BLOCK * BLOCK, .batch = HEADS, .rows = BLOCK, .cols = BLOCK,           \
          .offset = PSK_NO_MASK, .lse_stride = BLOCK, .delta_stride = BLOCK, .s = buffer[0], .dp = buffer[1],          \
          .lse = buffer[2], .delta = buffer[3], .scale = 0.125f)                                                       \
    BYTES(row_dot, TOKENS * 8.0 * WIDTH, .batch = HEADS, .rows = TOKENS, .n = HEAD,                                    \
          .x_stride = TOKENS * (int64_t)HEAD, .x = buffer[0], .y = buffer[1], .out = buffer[2])                        \
    BYTES(copy, 8.0 * LARGEST, .batch = 1, .rows = 1, .n = LARGEST, .x = buffer[0], .y = buffer[1], .alpha = 1.0f)     \
    BYTES(fill, 4.0 * LARGEST, .n = LARGEST, .x = buffer[0], .value = 0.5f)                                            \
    BYTES(sum_squares, 4.0 * LARGEST, .n = LARGEST, .x = buffer[0], .out = &(double){0})                               \
    BYTES(adamw, 28.0 * LARGEST, .n = LARGEST, .step = 10, .param = buffer[0], .m = buffer[1], .v = buffer[2],         \
          .grad = buffer[3], .lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .weight_decay = 0.1f,           \
          .grad_scale = 1.0f)

#define MATMUL(name, count, m_, n_, k_, a_side, b_side)                                                                \
    static psk_status matmul_##name(psk_device *device) {                                                              \
        return device->ops->matmul(device, &(psk_matmul_args){.batch = count,                                          \
                                                              .m = m_,                                                 \
                                                              .n = n_,                                                 \
                                                              .k = k_,                                                 \
                                                              .a = buffer[0],                                          \
                                                              .lda = a_side == PSK_PLAIN ? k_ : m_,                    \
                                                              .a_stride = (int64_t)m_ * k_,                            \
                                                              .a_orientation = a_side,                                 \
                                                              .b = buffer[1],                                          \
                                                              .ldb = b_side == PSK_PLAIN ? n_ : k_,                    \
                                                              .b_stride = (int64_t)n_ * k_,                            \
                                                              .b_orientation = b_side,                                 \
                                                              .c = buffer[2],                                          \
                                                              .ldc = n_,                                               \
                                                              .c_stride = (int64_t)m_ * n_,                            \
                                                              .alpha = 1.0f});                                         \
    }
#define BYTES(name, bytes, ...)                                                                                        \
    static psk_status bytes_##name(psk_device *device) {                                                               \
        return device->ops->name(device, &(psk_##name##_args){__VA_ARGS__});                                           \
    }
CASES
#undef MATMUL
#undef BYTES

typedef struct bench_case {
    const char *name;
    operation run;
    double work; /* flops or bytes */
    const char *unit;
} bench_case;

static const bench_case cases[] = {
#define MATMUL(name, count, m, n, k, a_side, b_side)                                                                   \
    {"matmul " #name " " #count " x (" #m " x " #n " x " #k ")", matmul_##name, 2.0 * count * m * n * k, "GFLOP/s"},
#define BYTES(name, bytes, ...) {#name, bytes_##name, bytes, "GB/s"},
    CASES
#undef MATMUL
#undef BYTES
};

/* The fastest call of at least 5, or of 0.3 seconds. */
static double fastest(psk_device *device, operation run, clockid_t clock) {
    double best = INFINITY, spent = 0.0;
    for (int i = 0; i < 5 || spent < 0.3; i++) {
        const double start = seconds(clock);
        if (run(device) != PSK_OK)
            return NAN;
        const double took = seconds(clock) - start;
        best = took < best ? took : best;
        spent += took;
    }
    return best;
}

static void fill_buffers(void) {
    uint32_t state = 1;
    for (int b = 0; b < BUFFERS; b++)
        for (int64_t i = 0; i < LARGEST; i++) {
            state = state * 1664525u + 1013904223u;
            buffer[b][i] = (float)(state >> 8) * 0x1p-24f + 0.25f; /* positive: some are variances and denominators */
        }
    for (int32_t t = 0; t < TOKENS; t++)
        integers[t] = (int32_t)((int64_t)t * 7919 % VOCABULARY);
}

int main(int argc, char **argv) {
    psk_device *one, *all;
    psk_status status = psk_device_create("cpu", 1, &one);
    if (status == PSK_OK)
        status = psk_device_create("cpu", 0, &all);
    for (int b = 0; status == PSK_OK && b < BUFFERS; b++)
        status = psk_alloc((size_t)LARGEST * sizeof(float), "benchmark buffer", (void **)&buffer[b]);
    if (status == PSK_OK)
        status = psk_alloc(TOKENS * sizeof(int32_t), "benchmark integers", (void **)&integers);
    if (status != PSK_OK) {
        fprintf(stderr, "ops_bench: %s\n", psk_error_message());
        return 1;
    }
    printf("%s\n%-60s %12s %8s   %12s %8s\n", psk_device_description(all), "", "1 thread us", "", "all us", "");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (argc > 1 && !strstr(cases[i].name, argv[1]))
            continue;
        fill_buffers();
        const double t1 = fastest(one, cases[i].run, CLOCK_THREAD_CPUTIME_ID);
        const double t = fastest(all, cases[i].run, CLOCK_MONOTONIC);
        printf("%-60s %12.1f %8.1f   %12.1f %8.1f %s\n", cases[i].name, 1e6 * t1, 1e-9 * cases[i].work / t1, 1e6 * t,
               1e-9 * cases[i].work / t, cases[i].unit);
        fflush(stdout);
    }
    psk_device_free(one);
    psk_device_free(all);
    for (int b = 0; b < BUFFERS; b++)
        psk_free(buffer[b]);
    psk_free(integers);
    return 0;
}
