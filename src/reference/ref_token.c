/* Operations on each token by itself: normalisation, activations, embedding, loss, dropout. */
#include "reference/ref_math.h"
#include "reference/reference.h"

#include "base/rng.h"

psk_status psk_reference_layernorm_forward(psk_device *device, const psk_layernorm_forward_args *args) {
    (void)device;
    const int64_t n = args->n;
    PSK_ASSERT(args->rows >= 0 && n >= 0);
    for (int64_t i = 0; n > 0 && i < args->rows; i++) {
        const float *x = args->x + i * n;
        double mean = 0, variance = 0;
        for (int64_t j = 0; j < n; j++)
            mean += x[j];
        mean /= (double)n;
        for (int64_t j = 0; j < n; j++)
            variance += (x[j] - mean) * (x[j] - mean);
        const double rstd = 1 / sqrt(variance / (double)n + args->eps);
        for (int64_t j = 0; j < n; j++)
            args->y[i * n + j] = (float)((x[j] - mean) * rstd * args->weight[j] + args->bias[j]);
        args->mean[i] = (float)mean;
        args->rstd[i] = (float)rstd;
    }
    return PSK_OK;
}

/* With x^ = (x - mean) rstd and g = dy weight:  dx = rstd (g - mean(g) - x^ mean(g x^)) */
static void layernorm_backward_row(const psk_layernorm_backward_args *args, int64_t i) {
    const int64_t n = args->n;
    const float *x = args->x + i * n, *dy = args->dy + i * n;
    float *dx = args->dx + i * n;
    const double mean = args->mean[i], rstd = args->rstd[i];
    double mean_g = 0, mean_gx = 0;
    for (int64_t j = 0; j < n; j++) {
        const double g = (double)dy[j] * args->weight[j];
        mean_g += g / (double)n;
        mean_gx += g * (x[j] - mean) * rstd / (double)n;
    }
    for (int64_t j = 0; j < n; j++) {
        const double g = (double)dy[j] * args->weight[j];
        const double value = rstd * (g - mean_g - (x[j] - mean) * rstd * mean_gx);
        dx[j] = (float)(args->dx_write == PSK_ADD ? dx[j] + value : value);
    }
}

psk_status psk_reference_layernorm_backward(psk_device *device, const psk_layernorm_backward_args *args) {
    (void)device;
    const int64_t n = args->n;
    PSK_ASSERT(args->rows >= 0 && n >= 0);
    for (int64_t j = 0; args->rows > 0 && j < n; j++) {
        double dweight = args->dweight[j], dbias = args->dbias[j];
        for (int64_t i = 0; i < args->rows; i++) {
            const double dy = args->dy[i * n + j];
            dweight += dy * ((double)args->x[i * n + j] - args->mean[i]) * args->rstd[i];
            dbias += dy;
        }
        args->dweight[j] = (float)dweight;
        args->dbias[j] = (float)dbias;
    }
    for (int64_t i = 0; i < args->rows; i++) /* last: dx may be dy */
        layernorm_backward_row(args, i);
    return PSK_OK;
}

psk_status psk_reference_geglu_forward(psk_device *device, const psk_geglu_forward_args *args) {
    (void)device;
    const int64_t F = args->F;
    PSK_ASSERT(args->rows >= 0 && F >= 0);
    for (int64_t i = 0; i < args->rows; i++)
        for (int64_t j = 0; j < F; j++) {
            const double u = args->x[i * 2 * F + j], g = args->x[i * 2 * F + F + j];
            args->y[i * F + j] = (float)(u * psk_ref_gelu(g));
        }
    return PSK_OK;
}

psk_status psk_reference_geglu_backward(psk_device *device, const psk_geglu_backward_args *args) {
    (void)device;
    const int64_t F = args->F;
    PSK_ASSERT(args->rows >= 0 && F >= 0);
    for (int64_t i = 0; i < args->rows; i++)
        for (int64_t j = 0; j < F; j++) {
            const double u = args->x[i * 2 * F + j], g = args->x[i * 2 * F + F + j], dy = args->dy[i * F + j];
            args->dx[i * 2 * F + j] = (float)(dy * psk_ref_gelu(g));
            args->dx[i * 2 * F + F + j] = (float)(dy * u * psk_ref_gelu_slope(g));
        }
    return PSK_OK;
}

psk_status psk_reference_gelu_forward(psk_device *device, const psk_gelu_forward_args *args) {
    (void)device;
    PSK_ASSERT(args->n >= 0);
    for (int64_t i = 0; i < args->n; i++)
        args->y[i] = (float)psk_ref_gelu(args->x[i]);
    return PSK_OK;
}

psk_status psk_reference_gelu_backward(psk_device *device, const psk_gelu_backward_args *args) {
    (void)device;
    PSK_ASSERT(args->n >= 0);
    for (int64_t i = 0; i < args->n; i++)
        args->dx[i] = (float)(args->dy[i] * psk_ref_gelu_slope(args->x[i]));
    return PSK_OK;
}

psk_status psk_reference_product_forward(psk_device *device, const psk_product_forward_args *args) {
    (void)device;
    PSK_ASSERT(args->n >= 0);
    for (int64_t i = 0; i < args->n; i++)
        args->y[i] = (float)((double)args->scale * args->a[i] * args->b[i]);
    return PSK_OK;
}

psk_status psk_reference_product_backward(psk_device *device, const psk_product_backward_args *args) {
    (void)device;
    PSK_ASSERT(args->n >= 0);
    for (int64_t i = 0; i < args->n; i++) {
        const double a = args->a[i], b = args->b[i], dy = args->dy[i];
        args->da[i] = (float)(args->scale * dy * b);
        args->db[i] = (float)(args->scale * dy * a);
    }
    return PSK_OK;
}

psk_status psk_reference_tanh_product_forward(psk_device *device, const psk_tanh_product_forward_args *args) {
    (void)device;
    const double c = args->c;
    PSK_ASSERT(args->n >= 0);
    for (int64_t i = 0; i < args->n; i++)
        args->y[i] = (float)(c * tanh((double)args->a[i] * args->b[i] / c));
    return PSK_OK;
}

psk_status psk_reference_tanh_product_backward(psk_device *device, const psk_tanh_product_backward_args *args) {
    (void)device;
    PSK_ASSERT(args->n >= 0);
    for (int64_t i = 0; i < args->n; i++) {
        const double a = args->a[i], b = args->b[i], dy = args->dy[i], t = args->y[i] / (double)args->c;
        args->da[i] = (float)(dy * (1 - t * t) * b);
        args->db[i] = (float)(dy * (1 - t * t) * a);
    }
    return PSK_OK;
}

/* Element j of P[position]: sine at even j, cosine at odd j. */
static double sinusoidal(int64_t position, int64_t j, int64_t D) {
    const double theta = pow(10000, -(double)(j / 2) / ((double)D / 2));
    const double angle = (double)position * theta;
    return j % 2 == 0 ? sin(angle) : cos(angle);
}

psk_status psk_reference_embedding_forward(psk_device *device, const psk_embedding_forward_args *args) {
    (void)device;
    const int64_t D = args->D;
    PSK_ASSERT(args->rows >= 0 && D >= 0);
    for (int64_t t = 0; t < args->rows; t++)
        for (int64_t j = 0; j < D; j++)
            args->x[t * D + j] = (float)(args->wte[args->tokens[t] * D + j] +
                                         args->position_scale * sinusoidal(args->positions[t], j, D));
    return PSK_OK;
}

static int64_t first_use(const int32_t *tokens, int64_t t) {
    int64_t first = 0;
    while (tokens[first] != tokens[t])
        first++;
    return first;
}

psk_status psk_reference_embedding_backward(psk_device *device, const psk_embedding_backward_args *args) {
    (void)device;
    const int64_t D = args->D;
    PSK_ASSERT(args->rows >= 0 && D >= 0 && args->V >= 0);
    for (int64_t t = 0; t < args->rows; t++) {
        if (first_use(args->tokens, t) != t) /* its rows are summed where the token comes first */
            continue;
        for (int64_t j = 0; j < D; j++) {
            float *dwte = &args->dwte[args->tokens[t] * D + j];
            double sum = *dwte;
            for (int64_t s = t; s < args->rows; s++)
                sum += args->tokens[s] == args->tokens[t] ? args->dx[s * D + j] : 0;
            *dwte = (float)sum;
        }
    }
    return PSK_OK;
}

static double biased_logit(const psk_cross_entropy_args *args, int64_t t, int64_t v) {
    return (double)args->logits[t * args->V + v] + (args->bias == NULL ? 0 : args->bias[v]);
}

static void cross_entropy_row(const psk_cross_entropy_args *args, int64_t t) {
    double maximum = -INFINITY, sum = 0;
    for (int64_t v = 0; v < args->V; v++)
        maximum = fmax(maximum, biased_logit(args, t, v));
    for (int64_t v = 0; v < args->V; v++)
        sum += exp(biased_logit(args, t, v) - maximum);
    args->loss[t] = (float)(maximum + log(sum) - biased_logit(args, t, args->targets[t]));
    for (int64_t v = 0; args->scale != 0 && v < args->V; v++) {
        const double p = exp(biased_logit(args, t, v) - maximum) / sum;
        args->logits[t * args->V + v] = (float)(args->scale * (p - (v == args->targets[t])));
    }
}

psk_status psk_reference_cross_entropy(psk_device *device, const psk_cross_entropy_args *args) {
    (void)device;
    PSK_ASSERT(args->rows >= 0 && args->V >= 0);
    for (int64_t t = 0; t < args->rows; t++) {
        if (args->targets[t] >= 0) {
            cross_entropy_row(args, t);
            continue;
        }
        args->loss[t] = 0;
        for (int64_t v = 0; args->scale != 0 && v < args->V; v++)
            args->logits[t * args->V + v] = 0;
    }
    return PSK_OK;
}

psk_status psk_reference_dropout(psk_device *device, const psk_dropout_args *args) {
    (void)device;
    PSK_ASSERT(args->n >= 0 && args->p >= 0 && args->p < 1);
    for (int64_t i = 0; i < args->n; i++) {
        uint32_t words[4];
        psk_philox(args->seed, args->stream, (uint64_t)i / 4, words);
        const int keep = words[i % 4] >= args->p * 4294967296.0;
        args->x[i] = keep ? (float)(args->x[i] / (1 - (double)args->p)) : 0;
    }
    return PSK_OK;
}
