/* oneDNN, all of it that polysketch uses, behind a few functions: the one place that knows its C API. */
#ifndef PSK_CPU_DNNL_H
#define PSK_CPU_DNNL_H

#include "base/bf16.h"
#include "device/ops.h"

#include <stdbool.h>

#if PSK_WITH_ONEDNN

/* Keeps the oneDNN calls of this thread serial until the end of the parallel region around. Inside a team of several
 * threads they are anyway; a team of one would else be taken for no team, and oneDNN would start its own and cut the
 * product differently. */
void psk_dnnl_stay_serial(void);

/* C = alpha op(A) op(B) + beta C, row-major; m, n, k >= 1; C is only written if beta == 0. Thread-safe.
 * Signals to this thread wait until it returns.
 * PSK_ERROR_MEMORY (oneDNN packs parts of A and B into memory of its own) or PSK_ERROR_INTERNAL, without a message. */
psk_status psk_dnnl_sgemm(psk_orientation a_orientation, psk_orientation b_orientation, int64_t m, int64_t n, int64_t k,
                          float alpha, const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                          int64_t ldc);

/* C (=, +=) A B of bfloat16 with sums in float32, for one shape: make once, run often from any threads, free. A and C
 * are rows beside each other; B is in panels of psk_pack_kernels that follow each other. Errors as above. */
typedef struct psk_dnnl_shape {
    int64_t m, n, k;
    psk_write write;
} psk_dnnl_shape;
typedef struct psk_dnnl_product psk_dnnl_product;
psk_status psk_dnnl_product_create(const psk_dnnl_shape *shape, psk_dnnl_product **out);
psk_status psk_dnnl_product_run(const psk_dnnl_product *product, const psk_bf16 *a, const psk_bf16 *b, float *c,
                                void *scratch); /* of psk_dnnl_product_scratch bytes, for this thread alone */
int64_t psk_dnnl_product_scratch(const psk_dnnl_product *product);
void psk_dnnl_product_free(psk_dnnl_product *product); /* accepts NULL */

/* "oneDNN 2.6.3": the library that is linked, not its header. */
void psk_dnnl_name(char *text, size_t size);

#endif

#endif
