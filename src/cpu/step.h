/* Kernels of the operations of decoding (products with few rows, one step of attention): one source (step.inc),
 * compiled once per instruction set. As in kernels.h what a kernel computes for an item does not depend on begin and
 * end; here neither does a row depend on the rows beside it. Only src/cpu includes this. */
#ifndef PSK_CPU_STEP_H
#define PSK_CPU_STEP_H

#include "device/ops.h"

/* Columns of a product that are one item. */
#define PSK_STEP_COLUMNS PSK_PANEL

/* Column blocks [begin, end) of y with a->panels. x: rows x ceil(k/2) pairs, rounded */
typedef void psk_panel_products(const psk_row_products_args *a, const psk_bf16 *x, int64_t begin, int64_t end);

typedef struct psk_step_kernels {
    /* Column blocks [begin, end) of y, operands in float32. */
    void (*row_products)(const psk_row_products_args *a, int64_t begin, int64_t end);

    psk_panel_products *panel_products;

    /* Rows [begin, end) of x as panel_products takes them. */
    void (*round_rows)(const psk_row_products_args *a, psk_bf16 *x, int64_t begin, int64_t end);

    /* Panels [begin, end). */
    void (*pack_panels)(const psk_pack_panels_args *a, int64_t begin, int64_t end);

    /* Session and key/value head, count x Hkv of them: [begin, end). */
    void (*attention_step)(const psk_attention_step_args *a, int64_t begin, int64_t end);
} psk_step_kernels;

extern const psk_step_kernels psk_step_baseline;
#if defined(__x86_64__)
extern const psk_step_kernels psk_step_avx2;
extern const psk_step_kernels psk_step_avx512;

/* With instructions for bfloat16, and in tile registers. */
psk_panel_products psk_step_panel_products_avx512bf16, psk_step_panel_products_amx;
#endif

#endif
