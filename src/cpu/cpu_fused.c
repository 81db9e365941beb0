/* Fused attention on the team of threads: items are independent, each is computed by one thread in that thread's part
 * of the workspace, so the result does not depend on how many threads there are. */
#include "cpu/cpu.h"

#include <omp.h>

static psk_status run(psk_device *device, const psk_fused_attention_args *a, bool backward) {
    const psk_kernels *kernels = psk_cpu_state(device)->kernels;
    const int64_t each = kernels->fused_workspace(a, backward);
    if (a->workspace == NULL) {
        *a->workspace_floats = each < 0 ? -1 : each * device->threads;
        return PSK_OK;
    }
    PSK_ASSERT(each >= 0);
    const int64_t items = kernels->fused_items(a, backward);
    const int64_t cost =
        a->views->Nq * a->views->v.width * 64; /* of an item, roughly: enough to tell a token from a sequence */
    const int threads = psk_cpu_team(device, items, cost);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t item = 0; item < items; item++)
        kernels->fused_item(a, backward, a->workspace + omp_get_thread_num() * each, item);
    return PSK_OK;
}

psk_status psk_cpu_fused_attention_forward(psk_device *device, const psk_fused_attention_args *a) {
    return run(device, a, false);
}

psk_status psk_cpu_fused_attention_backward(psk_device *device, const psk_fused_attention_args *a) {
    return run(device, a, true);
}
