/* The CPU device: which kernels, how many threads, and the table. */
#include "base/memory.h"
#include "cpu/cpu.h"

#include <omp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

/* --------------------------------------------------------------------------------------------------- instruction set
 */

typedef struct isa {
    const char *name; /* as PSK_CPU_ISA spells it */
    const psk_kernels *kernels;
    const psk_step_kernels *step;
    bool (*supported)(void);
    /* With instructions for bfloat16, NULL: none. */
    const psk_fused_kernels *fused_bf16;
    const psk_pack_kernels *pack;
    psk_panel_products *panel_products;
    bool (*bf16_supported)(void);
} isa;

static bool always(void) {
    return true;
}

#if defined(__x86_64__)
static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && has_avx2();
}

static bool has_avx512bf16(void) {
    return __builtin_cpu_supports("avx512bf16");
}

/* Tile registers with products of bfloat16. The system keeps them for a process that has asked for it. */
#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILEDATA  18

static bool has_amx(void) {
    unsigned eax, ebx, ecx, edx = 0;
    if (!has_avx512() || !has_avx512bf16() || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
        return false;
    const unsigned bf16 = 1U << 22, tiles = 1U << 24;
    return (edx & bf16) && (edx & tiles) && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#elif defined(__aarch64__)
static bool has_neonbf16(void) {
    return (getauxval(AT_HWCAP2) & HWCAP2_BF16) != 0;
}
#endif

/* The best first. */
static const isa isas[] = {
#if defined(__x86_64__)
    {"amx", &psk_kernels_avx512, &psk_step_avx512, has_amx, &psk_fused_amx, &psk_pack_avx512bf16,
     psk_step_panel_products_amx, always},
    {"avx512", &psk_kernels_avx512, &psk_step_avx512, has_avx512, &psk_fused_avx512bf16, &psk_pack_avx512bf16,
     psk_step_panel_products_avx512bf16, has_avx512bf16},
    {"avx2", &psk_kernels_avx2, &psk_step_avx2, has_avx2, NULL, NULL, NULL, NULL},
#elif defined(__aarch64__)
    {"neonbf16", &psk_kernels_baseline, &psk_step_baseline, has_neonbf16, &psk_fused_neonbf16, &psk_pack_neonbf16, NULL,
     always},
#endif
    {"baseline", &psk_kernels_baseline, &psk_step_baseline, always, NULL, NULL, NULL, NULL},
};
#define ISAS ((int64_t)(sizeof isas / sizeof *isas))

static void list_isas(char *text, size_t size) {
    size_t used = 0;
    text[0] = '\0';
    for (int64_t i = ISAS - 1; i >= 0 && used < size; i--)
        used += (size_t)snprintf(text + used, size - used, "%s%s", used > 0 ? ", " : "", isas[i].name);
}

/* The best that the processor has, or the one that PSK_CPU_ISA names. */
static psk_status choose_isa(const isa **out) {
    const char *wanted = getenv("PSK_CPU_ISA");
    for (int64_t i = 0; i < ISAS; i++) {
        const bool chosen = !wanted || strcmp(wanted, isas[i].name) == 0;
        if (chosen && isas[i].supported()) {
            *out = &isas[i];
            return PSK_OK;
        }
        if (wanted && chosen)
            return psk_fail(PSK_ERROR_UNSUPPORTED,
                            "PSK_CPU_ISA is \"%s\", which this processor lacks; unset it to have the best", wanted);
    }
    char list[64];
    list_isas(list, sizeof list);
    return psk_fail(PSK_ERROR_ARGUMENT, "PSK_CPU_ISA is \"%.32s\"; its values are %s; unset it to have the best",
                    wanted, list);
}

/* ----------------------------------------------------------------------------------------------------------- threads
 */

/* Simple float operations for which waking the other threads pays: about ten microseconds of one thread. */
#define SERIAL_COST 65536

int psk_cpu_team(const psk_device *device, int64_t items, int64_t cost) {
    return items > 1 && (double)items * (double)cost >= SERIAL_COST ? device->threads : 1;
}

psk_cpu_range psk_cpu_share(int64_t items) {
    const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
    const int64_t each = items / threads, rest = items % threads;
    const int64_t begin = thread * each + (thread < rest ? thread : rest);
    return (psk_cpu_range){begin, begin + each + (thread < rest)};
}

psk_status psk_cpu_scratch(psk_device *device, int64_t bytes, void **out) {
    psk_cpu *cpu = psk_cpu_state(device);
    if (bytes > cpu->scratch_bytes) {
        psk_free(cpu->scratch);
        cpu->scratch = NULL;
        cpu->scratch_bytes = 0;
        PSK_TRY(psk_alloc((size_t)bytes, "scratch memory of the CPU device", &cpu->scratch));
        cpu->scratch_bytes = bytes;
    }
    *out = cpu->scratch;
    return PSK_OK;
}

/* ------------------------------------------------------------------------------------------------------------- table
 */

/* The entries that are one kernel on independent items. */
#define PSK_KERNEL(name, item_count, cost)                                                                             \
    static psk_status psk_cpu_##name(psk_device *device, const psk_##name##_args *a) {                                 \
        const int64_t items = (item_count);                                                                            \
        PSK_ASSERT(items >= 0);                                                                                        \
        if (items > 0) {                                                                                               \
            const psk_kernels *kernels = psk_cpu_state(device)->kernels;                                               \
            const int threads = psk_cpu_team(device, items, (cost));                                                   \
            _Pragma("omp parallel num_threads(threads)") {                                                             \
                const psk_cpu_range share = psk_cpu_share(items);                                                      \
                kernels->name(a, share.begin, share.end);                                                              \
            }                                                                                                          \
        }                                                                                                              \
        return PSK_OK;                                                                                                 \
    }
#include "cpu/kernels.def"
#undef PSK_KERNEL

#define PSK_OP(name) .name = psk_cpu_##name,
static const psk_ops composed_ops = {
#include "device/ops.def"
};

static const psk_ops fused_ops = {
#include "device/ops.def"
#define PSK_FUSED_OP(name) .name = psk_cpu_##name,
#include "device/fused.def"
#undef PSK_FUSED_OP
};
#undef PSK_OP

/* PSK_CPU_FUSED=off leaves the fused entries out: for tests and comparisons. */
static psk_status choose_ops(const psk_ops **out) {
    const char *fused = getenv("PSK_CPU_FUSED");
    if (fused != NULL && strcmp(fused, "on") != 0 && strcmp(fused, "off") != 0)
        return psk_fail(PSK_ERROR_ARGUMENT, "PSK_CPU_FUSED is \"%.32s\"; its values are on, off; unset it to have on",
                        fused);
    *out = fused != NULL && strcmp(fused, "off") == 0 ? &composed_ops : &fused_ops;
    return PSK_OK;
}

static void cpu_destroy(psk_device *device) {
    psk_cpu *cpu = psk_cpu_state(device);
    psk_free(cpu->embedding.theta);
    psk_free(cpu->rope.theta);
    psk_free(cpu->scratch);
    psk_cpu_bf16_free(cpu->bf16);
    psk_free(cpu);
    device->state = NULL;
}

psk_status psk_cpu_device_init(psk_device *device, int threads) {
    PSK_ASSERT(threads >= 1);
    const isa *chosen = NULL;
    const psk_ops *ops = NULL;
    PSK_TRY(choose_isa(&chosen));
    PSK_TRY(choose_ops(&ops));
    void *state;
    PSK_TRY(psk_alloc_zero(sizeof(psk_cpu), "CPU device", &state));
    psk_cpu *cpu = state;
    cpu->kernels = chosen->kernels;
    cpu->step = chosen->step;
    const bool bf16 = chosen->fused_bf16 != NULL && chosen->bf16_supported();
    cpu->fused_bf16 = bf16 ? chosen->fused_bf16 : NULL;
    cpu->pack = bf16 ? chosen->pack : NULL;
    cpu->panel_products = bf16 && chosen->panel_products ? chosen->panel_products : chosen->step->panel_products;
    device->ops = ops;
    device->name = "cpu";
    device->threads = threads;
    device->state = cpu;
    device->has_bf16 = cpu->fused_bf16 != NULL;
    device->destroy = cpu_destroy;
    char matmul[64];
    psk_cpu_matmul_name(matmul, sizeof matmul);
    snprintf(device->description, sizeof device->description, "%s%s, %s, %d thread%s", chosen->name,
             cpu->fused_bf16 != NULL ? " with bfloat16" : "", matmul, threads, threads == 1 ? "" : "s");
    return PSK_OK;
}
