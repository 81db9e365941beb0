/* Memory and optimiser. */
#include "reference/reference.h"

#include <math.h>

psk_status psk_reference_copy(psk_device *device, const psk_copy_args *args) {
    (void)device;
    PSK_ASSERT(args->batch >= 0 && args->rows >= 0 && args->n >= 0);
    for (int64_t g = 0; g < args->batch; g++)
        for (int64_t i = 0; i < args->rows; i++)
            for (int64_t j = 0; j < args->n; j++) {
                const double value = (double)args->alpha * args->x[g * args->x_stride + i * args->x_ld + j];
                float *y = &args->y[g * args->y_stride + i * args->y_ld + j];
                *y = (float)(args->write == PSK_ADD ? *y + value : value);
            }
    return PSK_OK;
}

psk_status psk_reference_fill(psk_device *device, const psk_fill_args *args) {
    (void)device;
    PSK_ASSERT(args->n >= 0);
    for (int64_t i = 0; i < args->n; i++)
        args->x[i] = args->value;
    return PSK_OK;
}

psk_status psk_reference_sum_squares(psk_device *device, const psk_sum_squares_args *args) {
    (void)device;
    PSK_ASSERT(args->n >= 0);
    double sum = 0;
    for (int64_t i = 0; i < args->n; i++)
        sum += (double)args->x[i] * args->x[i];
    *args->out = sum;
    return PSK_OK;
}

psk_status psk_reference_adamw(psk_device *device, const psk_adamw_args *args) {
    (void)device;
    PSK_ASSERT(args->n >= 0 && args->step >= 1);
    const double lr = args->lr, beta1 = args->beta1, beta2 = args->beta2;
    const double correction1 = 1 - pow(beta1, (double)args->step), correction2 = 1 - pow(beta2, (double)args->step);
    for (int64_t i = 0; i < args->n; i++) {
        const double g = (double)args->grad_scale * args->grad[i];
        const double decayed = args->param[i] * (1 - lr * args->weight_decay);
        const double m = beta1 * args->m[i] + (1 - beta1) * g;
        const double v = beta2 * args->v[i] + (1 - beta2) * g * g;
        args->param[i] = (float)(decayed - lr * (m / correction1) / (sqrt(v / correction2) + args->eps));
        args->m[i] = (float)m;
        args->v[i] = (float)v;
    }
    return PSK_OK;
}
