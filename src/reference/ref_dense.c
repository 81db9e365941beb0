/* Dense products and sums. */
#include "reference/reference.h"

static double matmul_element(const psk_matmul_args *args, const float *a, const float *b, int64_t i, int64_t j) {
    double sum = 0;
    for (int64_t l = 0; l < args->k; l++) {
        const double x = args->a_orientation == PSK_TRANSPOSED ? a[l * args->lda + i] : a[i * args->lda + l];
        const double y = args->b_orientation == PSK_TRANSPOSED ? b[j * args->ldb + l] : b[l * args->ldb + j];
        sum += x * y;
    }
    return sum;
}

psk_status psk_reference_matmul(psk_device *device, const psk_matmul_args *args) {
    (void)device;
    PSK_ASSERT(args->batch >= 0 && args->m >= 0 && args->n >= 0 && args->k >= 0);
    for (int64_t g = 0; g < args->batch; g++)
        for (int64_t i = 0; i < args->m; i++)
            for (int64_t j = 0; j < args->n; j++) {
                const double sum = args->k == 0 ? 0
                                                : matmul_element(args, args->a + g * args->a_stride,
                                                                 args->b + g * args->b_stride, i, j);
                float *c = &args->c[g * args->c_stride + i * args->ldc + j];
                const double before = args->beta == 0 ? 0 : (double)args->beta * *c;
                *c = (float)(args->alpha * sum + before);
            }
    return PSK_OK;
}

psk_status psk_reference_column_sum(psk_device *device, const psk_column_sum_args *args) {
    (void)device;
    PSK_ASSERT(args->rows >= 0 && args->n >= 0);
    for (int64_t j = 0; args->rows > 0 && j < args->n; j++) {
        double sum = args->out[j];
        for (int64_t i = 0; i < args->rows; i++)
            sum += args->x[i * args->n + j];
        args->out[j] = (float)sum;
    }
    return PSK_OK;
}
