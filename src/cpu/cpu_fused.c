/* Fused attention on the team of threads: items are independent, each is computed by one thread in that thread's part
 * of the workspace, so the result does not depend on how many threads there are. */
#include "cpu/cpu.h"

#include <omp.h>

static const psk_fused_kernels *kernels_for(const psk_device *device, psk_precision precision) {
    const psk_cpu *cpu = psk_cpu_state(device);
    return precision == PSK_PRECISION_BF16 && cpu->fused_bf16 != NULL ? cpu->fused_bf16 : &cpu->kernels->fused;
}

/* Floats for one thread, in whichever precision needs more: it may be changed after planning. */
static int64_t workspace_of_thread(const psk_device *device, const psk_fused_attention_args *a, bool backward) {
    const int64_t f32 = kernels_for(device, PSK_PRECISION_F32)->workspace(a, backward),
                  bf16 = kernels_for(device, PSK_PRECISION_BF16)->workspace(a, backward);
    return f32 > bf16 ? f32 : bf16;
}

static psk_status run(psk_device *device, const psk_fused_attention_args *a, bool backward) {
    const psk_fused_kernels *kernels = kernels_for(device, a->precision);
    const int64_t each = workspace_of_thread(device, a, backward);
    if (a->workspace == NULL) {
        *a->workspace_floats = each < 0 ? -1 : each * device->threads;
        return PSK_OK;
    }
    PSK_ASSERT(each >= 0);
    const int64_t items = kernels->items(a, backward);
    const int64_t cost =
        a->views->Nq * a->views->v.width * 64; /* of an item, roughly: enough to tell a token from a sequence */
    const int threads = psk_cpu_team(device, items, cost);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t item = 0; item < items; item++)
        kernels->item(a, backward, a->workspace + omp_get_thread_num() * each, item);
    return PSK_OK;
}

psk_status psk_cpu_fused_attention_forward(psk_device *device, const psk_fused_attention_args *a) {
    return run(device, a, false);
}

psk_status psk_cpu_fused_attention_backward(psk_device *device, const psk_fused_attention_args *a) {
    return run(device, a, true);
}
