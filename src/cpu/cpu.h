/* The inside of the CPU device: its state, its teams of threads, and the entries that need more than one kernel call.
 */
#ifndef PSK_CPU_H
#define PSK_CPU_H

#include "cpu/kernels.h"
#include "cpu/step.h"

#include "device/device.h"

/* Frequencies of positions, 10000^(-2i/period) for i < count, kept from one call to the next. */
typedef struct psk_cpu_frequencies {
    int64_t period, capacity;
    double *theta;
} psk_cpu_frequencies;

/* cpu_matmul_bf16.c */
typedef struct psk_cpu_bf16 psk_cpu_bf16;
void psk_cpu_bf16_free(psk_cpu_bf16 *kept); /* accepts NULL */

typedef struct psk_cpu {
    const psk_kernels *kernels;
    const psk_step_kernels *step;
    psk_panel_products *panel_products;  /* step's, or faster ones */
    const psk_fused_kernels *fused_bf16; /* NULL: no instruction for it, kernels->fused serves instead */
    const psk_pack_kernels *pack;        /* NULL where fused_bf16 is */
    psk_cpu_frequencies embedding, rope;
    psk_cpu_bf16 *bf16; /* what products of bfloat16 keep; NULL before the first */
    void *scratch;      /* grown when a larger shape first appears */
    int64_t scratch_bytes;
} psk_cpu;

static inline psk_cpu *psk_cpu_state(const psk_device *device) {
    return device->state;
}

/* At least `bytes` bytes that the device owns; the contents do not survive the next call. */
psk_status psk_cpu_scratch(psk_device *device, int64_t bytes, void **out);

/* The number of threads for `items` items of the given cost in simple float operations: one, or all of the device,
 * because OpenMP ends and starts threads when a team shrinks and grows. */
int psk_cpu_team(const psk_device *device, int64_t items, int64_t cost);

/* The share of the calling thread in 0 ... items - 1, inside a parallel region. */
typedef struct psk_cpu_range {
    int64_t begin, end;
} psk_cpu_range;
psk_cpu_range psk_cpu_share(int64_t items);

/* What oneDNN or the built-in loops are called in the device's description. */
void psk_cpu_matmul_name(char *text, size_t size);

/* Entries of the table that are not in kernels.def. */
psk_status psk_cpu_fused_attention_forward(psk_device *device, const psk_fused_attention_args *a);
psk_status psk_cpu_fused_attention_backward(psk_device *device, const psk_fused_attention_args *a);
psk_status psk_cpu_fused_sketch_forward(psk_device *device, const psk_fused_sketch_args *a);
psk_status psk_cpu_fused_sketch_backward(psk_device *device, const psk_fused_sketch_args *a);
psk_status psk_cpu_matmul(psk_device *device, const psk_matmul_args *a);

/* Whether a product is computed with operands rounded to bfloat16: a matter of its shape alone; and the product. */
bool psk_cpu_bf16_serves(const psk_device *device, const psk_matmul_args *a);
psk_status psk_cpu_matmul_bf16(psk_device *device, const psk_matmul_args *a);

/* C is cut into tiles, enough to keep this many threads busy. */
#define PSK_TILES_WANTED 16

/* How long the parts of `length` are if they are as long as each other, at most `most`, and a multiple of `unit`. */
static inline int64_t psk_cpu_even_part(int64_t length, int64_t most, int64_t unit) {
    const int64_t part = PSK_CEIL_DIV(length, PSK_CEIL_DIV(length, most));
    return PSK_CEIL_DIV(part, unit) * unit;
}

/* Turns a failure inside a product into a message. */
psk_status psk_cpu_matmul_failed(psk_status status, const psk_matmul_args *a);
psk_status psk_cpu_row_products(psk_device *device, const psk_row_products_args *a);
psk_status psk_cpu_pack_panels(psk_device *device, const psk_pack_panels_args *a);
psk_status psk_cpu_round_rows(psk_device *device, const psk_round_rows_args *a);
psk_status psk_cpu_attention_step(psk_device *device, const psk_attention_step_args *a);
psk_status psk_cpu_column_sum(psk_device *device, const psk_column_sum_args *a);
psk_status psk_cpu_layernorm_backward(psk_device *device, const psk_layernorm_backward_args *a);
psk_status psk_cpu_head_gain_backward(psk_device *device, const psk_head_gain_backward_args *a);
psk_status psk_cpu_sum_squares(psk_device *device, const psk_sum_squares_args *a);
psk_status psk_cpu_embedding_forward(psk_device *device, const psk_embedding_forward_args *a);
psk_status psk_cpu_split_heads_forward(psk_device *device, const psk_split_heads_forward_args *a);
psk_status psk_cpu_split_heads_backward(psk_device *device, const psk_split_heads_backward_args *a);

#endif
