/* The operations that turn positions into angles. */
#include "base/memory.h"
#include "cpu/cpu.h"

#include <math.h>

/* theta[i] = 10000^(-2i/period) for i < (period + 1) / 2, computed when the period changes. */
static psk_status frequencies(psk_cpu_frequencies *f, int64_t period) {
    const int64_t count = (period + 1) / 2;
    if (f->period == period)
        return PSK_OK;
    if (f->capacity < count) {
        psk_free(f->theta);
        *f = (psk_cpu_frequencies){0};
        PSK_TRY(psk_alloc((size_t)count * sizeof(double), "frequencies of positions", (void **)&f->theta));
        f->capacity = count;
    }
    for (int64_t i = 0; i < count; i++)
        f->theta[i] = pow(10000.0, -2.0 * (double)i / (double)period);
    f->period = period;
    return PSK_OK;
}

#define COST_OF_ANGLE 16

psk_status psk_cpu_embedding_forward(psk_device *device, const psk_embedding_forward_args *a) {
    psk_cpu *cpu = psk_cpu_state(device);
    if (a->rows == 0 || a->D == 0)
        return PSK_OK;
    PSK_TRY(frequencies(&cpu->embedding, a->D));
    const int threads = psk_cpu_team(device, a->rows, COST_OF_ANGLE * a->D);
#pragma omp parallel num_threads(threads)
    {
        const psk_cpu_range share = psk_cpu_share(a->rows);
        cpu->kernels->embedding_forward(a, cpu->embedding.theta, share.begin, share.end);
    }
    return PSK_OK;
}

psk_status psk_cpu_split_heads_forward(psk_device *device, const psk_split_heads_forward_args *a) {
    psk_cpu *cpu = psk_cpu_state(device);
    const int64_t rows = a->B * a->N;
    if (rows == 0 || a->h == 0)
        return PSK_OK;
    PSK_TRY(frequencies(&cpu->rope, a->h));
    const int threads = psk_cpu_team(device, rows, (COST_OF_ANGLE + a->H + 2 * a->Hkv) * a->h);
#pragma omp parallel num_threads(threads)
    {
        const psk_cpu_range share = psk_cpu_share(rows);
        cpu->kernels->split_heads_forward(a, cpu->rope.theta, share.begin, share.end);
    }
    return PSK_OK;
}

psk_status psk_cpu_split_heads_backward(psk_device *device, const psk_split_heads_backward_args *a) {
    psk_cpu *cpu = psk_cpu_state(device);
    const int64_t rows = a->B * a->N;
    if (rows == 0 || a->h == 0)
        return PSK_OK;
    PSK_TRY(frequencies(&cpu->rope, a->h));
    const int threads = psk_cpu_team(device, rows, (COST_OF_ANGLE + a->H + 2 * a->Hkv) * a->h);
#pragma omp parallel num_threads(threads)
    {
        const psk_cpu_range share = psk_cpu_share(rows);
        cpu->kernels->split_heads_backward(a, cpu->rope.theta, share.begin, share.end);
    }
    return PSK_OK;
}
