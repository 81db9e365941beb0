/* dnnl_sgemm is the same in oneDNN 2 and 3, and so is dnnl_version; nothing else of its API is used, so no version
 * needs a guard. */
#include "cpu/cpu_dnnl.h"

#if PSK_WITH_ONEDNN

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>

void psk_dnnl_stay_serial(void) {
    omp_set_num_threads(1); /* of the regions inside this one */
}

psk_status psk_dnnl_sgemm(psk_orientation a_orientation, psk_orientation b_orientation, int64_t m, int64_t n, int64_t k,
                          float alpha, const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                          int64_t ldc) {
    const char a_letter = a_orientation == PSK_TRANSPOSED ? 'T' : 'N',
               b_letter = b_orientation == PSK_TRANSPOSED ? 'T' : 'N';
    const dnnl_status_t status = dnnl_sgemm(a_letter, b_letter, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    if (status == dnnl_success)
        return PSK_OK;
    return status == dnnl_out_of_memory ? PSK_ERROR_MEMORY : PSK_ERROR_INTERNAL;
}

void psk_dnnl_name(char *text, size_t size) {
    const dnnl_version_t *version = dnnl_version();
    snprintf(text, size, "oneDNN %d.%d.%d", version->major, version->minor, version->patch);
}

#endif
