/* The operations of decoding. */
#include "cpu/cpu.h"

static void run_shares(const psk_device *device, int threads, const psk_row_products_args *a, psk_bf16 *rounded) {
    const psk_cpu *cpu = psk_cpu_state(device);
#pragma omp parallel num_threads(threads)
    {
        if (a->panels != NULL) {
            const psk_cpu_range rows = psk_cpu_share(a->rows);
            cpu->step->round_rows(a, rounded, rows.begin, rows.end);
#pragma omp barrier
        }
        const psk_cpu_range blocks = psk_cpu_share(PSK_CEIL_DIV(a->n, PSK_STEP_COLUMNS));
        if (a->panels != NULL)
            cpu->panel_products(a, rounded, blocks.begin, blocks.end);
        else
            cpu->step->row_products(a, blocks.begin, blocks.end);
    }
}

psk_status psk_cpu_row_products(psk_device *device, const psk_row_products_args *a) {
    void *rounded = NULL;
    if (a->rows == 0 || a->n == 0)
        return PSK_OK;
    if (a->panels != NULL)
        PSK_TRY(psk_cpu_scratch(device, a->rows * 2 * PSK_CEIL_DIV(a->k, 2) * (int64_t)sizeof(psk_bf16), &rounded));
    const int64_t blocks = PSK_CEIL_DIV(a->n, PSK_STEP_COLUMNS);
    run_shares(device, psk_cpu_team(device, blocks, a->rows * a->k * PSK_STEP_COLUMNS), a, rounded);
    return PSK_OK;
}

psk_status psk_cpu_pack_panels(psk_device *device, const psk_pack_panels_args *a) {
    const int64_t panels = PSK_CEIL_DIV(a->n, PSK_PANEL);
    const int threads = psk_cpu_team(device, panels, a->k * PSK_PANEL);
#pragma omp parallel num_threads(threads)
    {
        const psk_cpu_range share = psk_cpu_share(panels);
        psk_cpu_state(device)->step->pack_panels(a, share.begin, share.end);
    }
    return PSK_OK;
}

/* Rows are cut, so that one long row is shared out too. */
psk_status psk_cpu_round_rows(psk_device *device, const psk_round_rows_args *a) {
    const int64_t pieces = PSK_CHUNKS(a->n), items = a->rows * pieces;
    const int threads = psk_cpu_team(device, items, PSK_CHUNK);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t item = 0; item < items; item++) {
        const int64_t row = item / pieces, first = item % pieces * PSK_CHUNK;
        const int64_t n = a->n - first < PSK_CHUNK ? a->n - first : PSK_CHUNK;
        psk_cpu_state(device)->kernels->round_bf16(1, n, a->x + row * a->x_ld + first, n, a->y + row * a->y_ld + first,
                                                   n);
    }
    return PSK_OK;
}

/* Of one query in simple float operations, roughly: what its session keeps decides. */
static int64_t step_cost(const psk_attention_step_args *a) {
    return a->d * (a->r * (a->r + 1) / 2 + 2 * a->sessions[0].rows);
}

psk_status psk_cpu_attention_step(psk_device *device, const psk_attention_step_args *a) {
    const int64_t items = a->count * a->Hkv;
    if (items == 0)
        return PSK_OK;
    const int threads = psk_cpu_team(device, items, step_cost(a));
#pragma omp parallel num_threads(threads)
    {
        const psk_cpu_range share = psk_cpu_share(items);
        psk_cpu_state(device)->step->attention_step(a, share.begin, share.end);
    }
    return PSK_OK;
}
