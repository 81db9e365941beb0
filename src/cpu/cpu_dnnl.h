/* oneDNN, all of it that polysketch uses, behind two functions: the one place that knows its C API. */
#ifndef PSK_CPU_DNNL_H
#define PSK_CPU_DNNL_H

#include "device/ops.h"

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

/* "oneDNN 2.6.3": the library that is linked, not its header. */
void psk_dnnl_name(char *text, size_t size);

#endif

#endif
