/* Sums over rows. They are cut into parts whose number depends on the shape alone; each part is summed in its own
 * order, then the parts in theirs. So the result is the same, bit for bit, for any number of threads. */
#include "cpu/cpu.h"

/* At most this many parts (they take scratch memory), and no part shorter than this many rows. */
#define PARTS_MAX 128
#define PART_ROWS 32

/* Elements in one part of sum_squares: 256 KiB. */
#define SQUARES_PART 65536

static int64_t rows_per_part(int64_t rows) {
    const int64_t fewest = PSK_CEIL_DIV(rows, PARTS_MAX);
    return fewest < PART_ROWS ? PART_ROWS : fewest;
}

/* out[j] += sum of the parts; parts: parts x n, leading dimension ld. */
static void add_parts(psk_device *device, const float *parts, int64_t count, int64_t n, int64_t ld, float *out) {
    const psk_kernels *kernels = psk_cpu_state(device)->kernels;
    const int64_t chunks = PSK_CHUNKS(n);
    const int threads = psk_cpu_team(device, chunks, count * (n < PSK_CHUNK ? n : PSK_CHUNK));
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t c = 0; c < chunks; c++) {
        const int64_t first = c * PSK_CHUNK, width = n - first < PSK_CHUNK ? n - first : PSK_CHUNK;
        kernels->sum_rows(parts + first, count, width, ld, PSK_ADD, out + first);
    }
}

psk_status psk_cpu_column_sum(psk_device *device, const psk_column_sum_args *a) {
    const psk_kernels *kernels = psk_cpu_state(device)->kernels;
    const int64_t rows = a->rows, n = a->n, step = rows_per_part(rows), parts = PSK_CEIL_DIV(rows, step);
    if (rows == 0 || n == 0)
        return PSK_OK;
    void *scratch;
    PSK_TRY(psk_cpu_scratch(device, parts * n * (int64_t)sizeof(float), &scratch));
    float *const sums = scratch;
    const int threads = psk_cpu_team(device, parts, step * n);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t part = 0; part < parts; part++) {
        const int64_t first = part * step, count = rows - first < step ? rows - first : step;
        kernels->sum_rows(a->x + first * n, count, n, n, PSK_SET, sums + part * n);
    }
    add_parts(device, sums, parts, n, n, a->out);
    return PSK_OK;
}

psk_status psk_cpu_layernorm_backward(psk_device *device, const psk_layernorm_backward_args *a) {
    const psk_kernels *kernels = psk_cpu_state(device)->kernels;
    const int64_t rows = a->rows, n = a->n, step = rows_per_part(rows), parts = PSK_CEIL_DIV(rows, step);
    if (rows == 0 || n == 0)
        return PSK_OK;
    void *scratch;
    PSK_TRY(psk_cpu_scratch(device, 2 * parts * n * (int64_t)sizeof(float), &scratch));
    float *const dweight = scratch, *const dbias = dweight + parts * n;
    const int threads = psk_cpu_team(device, parts, 8 * step * n);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t part = 0; part < parts; part++) {
        const int64_t first = part * step, last = rows < first + step ? rows : first + step;
        kernels->layernorm_backward(a, dweight + part * n, dbias + part * n, first, last);
    }
    add_parts(device, dweight, parts, n, n, a->dweight);
    add_parts(device, dbias, parts, n, n, a->dbias);
    return PSK_OK;
}

psk_status psk_cpu_sum_squares(psk_device *device, const psk_sum_squares_args *a) {
    const psk_kernels *kernels = psk_cpu_state(device)->kernels;
    const int64_t parts = PSK_CEIL_DIV(a->n, SQUARES_PART);
    void *scratch;
    PSK_TRY(psk_cpu_scratch(device, parts * (int64_t)sizeof(double), &scratch));
    double *const sums = scratch;
    const int threads = psk_cpu_team(device, parts, SQUARES_PART);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t part = 0; part < parts; part++) {
        const int64_t first = part * SQUARES_PART, count = a->n - first < SQUARES_PART ? a->n - first : SQUARES_PART;
        sums[part] = kernels->sum_squares(a->x + first, count);
    }
    *a->out = 0.0;
    for (int64_t part = 0; part < parts; part++)
        *a->out += sums[part];
    return PSK_OK;
}

psk_status psk_cpu_head_gain_backward(psk_device *device, const psk_head_gain_backward_args *a) {
    const psk_kernels *kernels = psk_cpu_state(device)->kernels;
    const int64_t pieces = PSK_CHUNKS(a->n), parts = a->B * a->H * pieces;
    if (parts == 0)
        return PSK_OK;
    void *scratch;
    PSK_TRY(psk_cpu_scratch(device, parts * (int64_t)sizeof(double), &scratch));
    double *const sums = scratch;
    const int threads = psk_cpu_team(device, parts, 2 * (a->n < PSK_CHUNK ? a->n : PSK_CHUNK));
#pragma omp parallel num_threads(threads)
    {
        const psk_cpu_range share = psk_cpu_share(parts);
        kernels->head_gain_backward(a, sums, share.begin, share.end);
    }
    for (int64_t e = 0; e < a->H; e++) {
        double sum = 0.0;
        for (int64_t b = 0; b < a->B; b++)
            for (int64_t piece = 0; piece < pieces; piece++)
                sum += sums[(b * a->H + e) * pieces + piece];
        a->dgain[e] += (float)(0.5 * sum);
    }
    return PSK_OK;
}
