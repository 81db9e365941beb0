/* Matrix products. A call is cut into tiles of C whose size depends on the shape alone, and each tile is one serial
 * product over the whole of k: the same bits come out for any number of threads. */
#include "cpu/cpu.h"
#include "cpu/cpu_dnnl.h"

#include <stdbool.h>
#include <stdio.h>

/* Sizes of tiles, from large (each packs its parts of A and B once more, so fewer are faster) to small. oneDNN's
 * kernels work on 48 columns of C at a time: widths are multiples. */
typedef struct tile_size {
    int64_t rows, columns;
} tile_size;
static const tile_size tile_sizes[] = {{256, 768}, {256, 384}, {128, 384}, {128, 192}, {64, 192}};
#define COLUMN_STEP 48
#define ROW_STEP    8

/* 2 m n k for which waking the other threads pays. */
#define SERIAL_FLOPS 500000

/* How C is cut into tiles: batch x down x across, of rows x columns each, less at the edges. */
typedef struct tiling {
    int64_t rows, columns, down, across, count;
} tiling;

static tiling tile_products(int64_t batch, int64_t m, int64_t n) {
    tiling t = {0};
    for (size_t i = 0; i < sizeof tile_sizes / sizeof *tile_sizes && t.count < PSK_TILES_WANTED; i++) {
        t.rows = psk_cpu_even_part(m, tile_sizes[i].rows, ROW_STEP);
        t.columns = psk_cpu_even_part(n, tile_sizes[i].columns, COLUMN_STEP);
        t.down = PSK_CEIL_DIV(m, t.rows);
        t.across = PSK_CEIL_DIV(n, t.columns);
        t.count = batch * t.down * t.across;
    }
    return t;
}

static psk_status matmul_tile(const psk_device *device, const psk_matmul_args *args, const tiling *t, int64_t index) {
    const int64_t g = index / (t->down * t->across);
    const int64_t i = index / t->across % t->down * t->rows, j = index % t->across * t->columns;
    const int64_t m = args->m - i < t->rows ? args->m - i : t->rows,
                  n = args->n - j < t->columns ? args->n - j : t->columns;
    const bool a_plain = args->a_orientation == PSK_PLAIN, b_plain = args->b_orientation == PSK_PLAIN;
    const float *a = args->a + g * args->a_stride + i * (a_plain ? args->lda : 1);
    const float *b = args->b + g * args->b_stride + j * (b_plain ? 1 : args->ldb);
    float *c = args->c + g * args->c_stride + i * args->ldc + j;
#if PSK_WITH_ONEDNN
    (void)device;
    return psk_dnnl_sgemm(args->a_orientation, args->b_orientation, m, n, args->k, args->alpha, a, args->lda, b,
                          args->ldb, args->beta, c, args->ldc);
#else
    const psk_kernel_matrix a_tile = {a, a_plain ? args->lda : 1, a_plain ? 1 : args->lda};
    const psk_kernel_matrix b_tile = {b, b_plain ? args->ldb : 1, b_plain ? 1 : args->ldb};
    psk_cpu_state(device)->kernels->matmul(m, n, args->k, args->alpha, a_tile, b_tile, args->beta, c, args->ldc);
    return PSK_OK;
#endif
}

/* C = beta C: what is left of a product with k == 0. */
static void scale_output(const psk_matmul_args *a) {
    for (int64_t g = 0; g < a->batch; g++)
        for (int64_t i = 0; i < a->m; i++) {
            float *c = a->c + g * a->c_stride + i * a->ldc;
            for (int64_t j = 0; j < a->n; j++)
                c[j] = a->beta == 0.0f ? 0.0f : a->beta * c[j];
        }
}

psk_status psk_cpu_matmul_failed(psk_status status, const psk_matmul_args *a) {
    if (status == PSK_OK)
        return PSK_OK;
    return psk_fail(status, "matrix product %lld x %lld x %lld (batch %lld): %s", (long long)a->m, (long long)a->n,
                    (long long)a->k, (long long)a->batch,
                    status == PSK_ERROR_MEMORY
                        ? "oneDNN found no memory for its packed copies; use fewer threads or a smaller batch"
                        : "oneDNN refused it: please report this");
}

psk_status psk_cpu_matmul(psk_device *device, const psk_matmul_args *a) {
    PSK_ASSERT(a->batch >= 0 && a->m >= 0 && a->n >= 0 && a->k >= 0);
    if (a->batch == 0 || a->m == 0 || a->n == 0)
        return PSK_OK;
    if (a->k == 0) {
        scale_output(a);
        return PSK_OK;
    }
    if (psk_cpu_bf16_serves(device, a))
        return psk_cpu_matmul_bf16(device, a);
    const tiling t = tile_products(a->batch, a->m, a->n);
    const double flops = 2.0 * (double)a->batch * (double)a->m * (double)a->n * (double)a->k;
    const int threads = t.count > 1 && flops >= SERIAL_FLOPS ? device->threads : 1;
    int failed = PSK_OK;
#pragma omp parallel num_threads(threads) reduction(max : failed)
    {
#if PSK_WITH_ONEDNN
        psk_dnnl_stay_serial();
#endif
#pragma omp for schedule(static)
        for (int64_t index = 0; index < t.count; index++) {
            const int status = (int)matmul_tile(device, a, &t, index);
            failed = status > failed ? status : failed;
        }
    }
    return psk_cpu_matmul_failed((psk_status)failed, a);
}

void psk_cpu_matmul_name(char *text, size_t size) {
#if PSK_WITH_ONEDNN
    psk_dnnl_name(text, size);
#else
    snprintf(text, size, "built-in matrix products (slower than oneDNN)");
#endif
}
