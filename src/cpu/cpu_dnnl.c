/* dnnl_sgemm is the same in oneDNN 2 and 3, and so is dnnl_version; nothing else of its API is used, so no version
 * needs a guard. */
#include "cpu/cpu_dnnl.h"

#if PSK_WITH_ONEDNN

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>

void psk_dnnl_stay_serial(void) {
    omp_set_num_threads(1); /* of the regions inside this one */
}

/* Holds back the signals of this thread while oneDNN computes; *before: what to restore. Its kernels (2.6.3; upstream
 * issue 4845) point the stack pointer into a heap buffer, and the kernel of the system would write the frame of a
 * signal there. Faults of the thread itself are not held back: they must end the program where they happen. */
static void hold_signals(sigset_t *before) {
    sigset_t held;
    sigfillset(&held);
    sigdelset(&held, SIGSEGV);
    sigdelset(&held, SIGBUS);
    sigdelset(&held, SIGFPE);
    sigdelset(&held, SIGILL);
    pthread_sigmask(SIG_BLOCK, &held, before);
}

psk_status psk_dnnl_sgemm(psk_orientation a_orientation, psk_orientation b_orientation, int64_t m, int64_t n, int64_t k,
                          float alpha, const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                          int64_t ldc) {
    const char a_letter = a_orientation == PSK_TRANSPOSED ? 'T' : 'N',
               b_letter = b_orientation == PSK_TRANSPOSED ? 'T' : 'N';
    sigset_t before;
    hold_signals(&before);
    const dnnl_status_t status = dnnl_sgemm(a_letter, b_letter, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (status == dnnl_success)
        return PSK_OK;
    return status == dnnl_out_of_memory ? PSK_ERROR_MEMORY : PSK_ERROR_INTERNAL;
}

void psk_dnnl_name(char *text, size_t size) {
    const dnnl_version_t *version = dnnl_version();
    snprintf(text, size, "oneDNN %d.%d.%d", version->major, version->minor, version->patch);
}

#endif
