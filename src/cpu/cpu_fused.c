/* Fused attention on the threads of the device. Items are independent; each is computed by one thread in that thread's
 * part of the workspace, or, where there are at least twice as many threads as items, by a team of threads that share
 * out the rows and features of every block. Neither changes a result. */
#include "cpu/cpu.h"

#include <omp.h>

/* Looks at the barrier before a thread sleeps: about 10 microseconds, by which the members of a team that has its cores
 * for itself may differ in a block. Libgomp's own barrier spins for milliseconds: on a busy machine that comes with
 * every block. */
#define SPINS 400

static void pause_thread(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

void psk_fused_wait(const psk_fused_team *team) {
    if (team->size == 1)
        return;
    psk_fused_barrier *barrier = team->barrier;
    const int round = atomic_load(&barrier->round);
    if (atomic_fetch_add(&barrier->arrived, 1) + 1 == (int)team->size) {
        atomic_store(&barrier->arrived, 0);
        pthread_mutex_lock(&barrier->lock);
        atomic_store(&barrier->round, round + 1);
        pthread_cond_broadcast(&barrier->next);
        pthread_mutex_unlock(&barrier->lock);
        return;
    }
    for (int i = 0; i < SPINS && atomic_load(&barrier->round) == round; i++)
        pause_thread();
    if (atomic_load(&barrier->round) != round)
        return;
    pthread_mutex_lock(&barrier->lock);
    while (atomic_load(&barrier->round) == round)
        pthread_cond_wait(&barrier->next, &barrier->lock);
    pthread_mutex_unlock(&barrier->lock);
}

/* The barriers of teams lie before the workspaces of their first members. */
#define BARRIER_FLOATS 48
_Static_assert(sizeof(psk_fused_barrier) <= BARRIER_FLOATS * sizeof(float), "a barrier fits its place");

static psk_fused_barrier *barrier_in(float *workspace) {
    return (psk_fused_barrier *)(void *)workspace;
}

static const psk_fused_kernels *kernels_for(const psk_device *device, psk_precision precision) {
    const psk_cpu *cpu = psk_cpu_state(device);
    return precision == PSK_PRECISION_BF16 && cpu->fused_bf16 != NULL ? cpu->fused_bf16 : &cpu->kernels->fused;
}

/* Floats for one thread, in whichever precision needs more: it may be changed after planning. */
static int64_t workspace_of_thread(const psk_device *device, const psk_fused_attention_args *a, bool backward) {
    const int64_t f32 = kernels_for(device, PSK_PRECISION_F32)->workspace(a, backward),
                  bf16 = kernels_for(device, PSK_PRECISION_BF16)->workspace(a, backward);
    const int64_t more = f32 > bf16 ? f32 : bf16;
    return more < 0 ? -1 : more + BARRIER_FLOATS;
}

static psk_status run(psk_device *device, const psk_fused_attention_args *a, bool backward) {
    const psk_fused_kernels *kernels = kernels_for(device, device->precision);
    const int64_t each = workspace_of_thread(device, a, backward);
    if (a->workspace == NULL) {
        *a->workspace_floats = each < 0 ? -1 : each * device->threads;
        return PSK_OK;
    }
    PSK_ASSERT(each >= 0);
    const int64_t items = kernels->items(a, backward);
    const bool divisible = kernels->divisible(a);
    const int64_t rows = a->views->Nq > 0 ? a->views->Nq : a->views->Nk; /* keys that are only folded */
    const int64_t cost =
        rows * a->views->v.width * 64; /* of an item, roughly: enough to tell a token from a sequence */
    const int threads = psk_cpu_team(device, divisible && items == 1 ? 2 : items, cost);
    for (int64_t item = 0; item < items && item < threads; item++)
        *barrier_in(a->workspace + item * each) =
            (psk_fused_barrier){.lock = PTHREAD_MUTEX_INITIALIZER, .next = PTHREAD_COND_INITIALIZER};
#pragma omp parallel num_threads(threads)
    {
        const int64_t thread = omp_get_thread_num(), present = omp_get_num_threads();
        float *workspace = a->workspace + thread * each + BARRIER_FLOATS;
        if (divisible && present >= 2 * items) {
            const int64_t item = thread % items; /* member 0 of an item is the thread of that number */
            const psk_fused_team team = {.member = thread / items,
                                         .size = present / items + (item < present % items),
                                         .workspace = workspace,
                                         .shared = a->workspace + item * each + BARRIER_FLOATS,
                                         .barrier = barrier_in(a->workspace + item * each)};
            kernels->item(a, backward, &team, item);
        } else {
            const psk_fused_team alone = {.member = 0, .size = 1, .workspace = workspace, .shared = workspace};
#pragma omp for schedule(dynamic, 1)
            for (int64_t item = 0; item < items; item++)
                kernels->item(a, backward, &alone, item);
        }
    }
    return PSK_OK;
}

psk_status psk_cpu_fused_attention_forward(psk_device *device, const psk_fused_attention_args *a) {
    return run(device, a, false);
}

psk_status psk_cpu_fused_attention_backward(psk_device *device, const psk_fused_attention_args *a) {
    return run(device, a, true);
}

/* Rows are cut into so many parts, whatever the number of threads; the gradients of the parts are added in order. */
#define SKETCH_PARTS 32
#define SKETCH_ROWS  60 /* a part has a multiple of these */

static int64_t part_begin(int64_t rows, int64_t part) {
    const int64_t pieces = PSK_CEIL_DIV(rows, SKETCH_ROWS), begin = pieces * part / SKETCH_PARTS * SKETCH_ROWS;
    return begin < rows ? begin : rows;
}

static psk_status run_sketch(psk_device *device, const psk_fused_sketch_args *a, bool backward) {
    const psk_fused_kernels *kernels = kernels_for(device, device->precision);
    const int64_t each = kernels->sketch_workspace(a, backward),
                  gradients = backward ? kernels->sketch_gradients(a) : 0;
    void *scratch;
    PSK_TRY(psk_cpu_scratch(device, (each * device->threads + gradients * SKETCH_PARTS) * (int64_t)sizeof(float),
                            &scratch));
    float *const workspaces = scratch, *const parts = workspaces + each * device->threads;
#pragma omp parallel num_threads(device->threads)
    {
        float *workspace = workspaces + omp_get_thread_num() * each;
        kernels->sketch_begin(a, backward, workspace);
#pragma omp for schedule(dynamic, 1)
        for (int64_t part = 0; part < SKETCH_PARTS; part++)
            kernels->sketch_rows(a, backward, workspace, parts + part * gradients, part_begin(a->rows, part),
                                 part_begin(a->rows, part + 1));
    }
    for (int64_t part = 0; backward && part < SKETCH_PARTS; part++)
        kernels->sketch_add(a, parts + part * gradients);
    return PSK_OK;
}

psk_status psk_cpu_fused_sketch_forward(psk_device *device, const psk_fused_sketch_args *a) {
    return run_sketch(device, a, false);
}

psk_status psk_cpu_fused_sketch_backward(psk_device *device, const psk_fused_sketch_args *a) {
    return run_sketch(device, a, true);
}
