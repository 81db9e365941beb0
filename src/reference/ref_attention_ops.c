/* The pieces of attention: weights, features, normalisation, one tile of softmax. */
#include "reference/ref_math.h"
#include "reference/reference.h"

static bool visible(int64_t i, int64_t j, int64_t offset) {
    return offset == PSK_NO_MASK || j <= i + offset;
}

psk_status psk_reference_power_weights_forward(psk_device *device, const psk_power_weights_forward_args *args) {
    (void)device;
    PSK_ASSERT(args->batch >= 0 && args->rows >= 0 && args->cols >= 0 && args->p >= 1);
    for (int64_t g = 0; g < args->batch; g++)
        for (int64_t i = 0; i < args->rows; i++)
            for (int64_t j = 0; j < args->cols; j++) {
                const int64_t at = g * args->stride + i * args->ld + j;
                args->w[at] =
                    visible(i, j, args->offset) ? (float)(args->scale * psk_ref_power(args->s[at], args->p)) : 0;
            }
    return PSK_OK;
}

psk_status psk_reference_power_weights_backward(psk_device *device, const psk_power_weights_backward_args *args) {
    (void)device;
    PSK_ASSERT(args->batch >= 0 && args->rows >= 0 && args->cols >= 0 && args->p >= 1);
    for (int64_t g = 0; g < args->batch; g++)
        for (int64_t i = 0; i < args->rows; i++)
            for (int64_t j = 0; j < args->cols; j++) {
                const int64_t at = g * args->stride + i * args->ld + j;
                double w = 0, ds = 0;
                if (visible(i, j, args->offset)) {
                    const double s = args->s[at], power = psk_ref_power(s, args->p - 1);
                    w = args->scale * power * s;
                    ds = args->scale * (double)args->p * power * args->dw[at];
                }
                if (args->w != NULL)
                    args->w[at] = (float)w;
                args->ds[at] = (float)ds;
            }
    return PSK_OK;
}

static void pack_row(const psk_pack_features_forward_args *args, const float *x, float *y) {
    int64_t e = 0;
    for (int64_t i = 0; i < args->r; i++)
        for (int64_t j = i; j < args->r; j++)
            y[e++] = (float)((double)args->scale * (i == j ? 1 : args->off_diagonal) * x[i] * x[j]);
}

psk_status psk_reference_pack_features_forward(psk_device *device, const psk_pack_features_forward_args *args) {
    (void)device;
    const int64_t m = args->r * (args->r + 1) / 2;
    PSK_ASSERT(args->batch >= 0 && args->rows >= 0 && args->r >= 0);
    for (int64_t g = 0; g < args->batch; g++)
        for (int64_t i = 0; i < args->rows; i++)
            pack_row(args, args->x + g * args->x_stride + i * args->r, args->y + g * args->y_stride + i * m);
    return PSK_OK;
}

/* Place of the pair (i, j), i <= j, in (0,0), (0,1), ..., (0,r-1), (1,1), ... */
static int64_t pair_index(int64_t r, int64_t i, int64_t j) {
    return i * r - i * (i - 1) / 2 + (j - i);
}

static void pack_row_backward(const psk_pack_features_backward_args *args, const float *x, const float *dy, float *dx) {
    for (int64_t i = 0; i < args->r; i++) {
        double sum = 0;
        for (int64_t j = 0; j < args->r; j++)
            sum += j == i ? 2.0 * dy[pair_index(args->r, i, i)] * x[i]
                          : (double)args->off_diagonal * dy[pair_index(args->r, i < j ? i : j, i < j ? j : i)] * x[j];
        dx[i] = (float)(args->dx_write == PSK_ADD ? dx[i] + args->scale * sum : args->scale * sum);
    }
}

psk_status psk_reference_pack_features_backward(psk_device *device, const psk_pack_features_backward_args *args) {
    (void)device;
    const int64_t m = args->r * (args->r + 1) / 2;
    PSK_ASSERT(args->batch >= 0 && args->rows >= 0 && args->r >= 0);
    for (int64_t g = 0; g < args->batch; g++)
        for (int64_t i = 0; i < args->rows; i++) {
            const int64_t x_at = g * args->x_stride + i * args->r;
            pack_row_backward(args, args->x + x_at, args->dy + g * args->y_stride + i * m, args->dx + x_at);
        }
    return PSK_OK;
}

/* What keeps a feature of FAVOR+ above zero. */
static const double favor_floor = 1e-6;

psk_status psk_reference_performer_features_forward(psk_device *device,
                                                    const psk_performer_features_forward_args *args) {
    (void)device;
    const int64_t h = args->h, m = args->m;
    PSK_ASSERT(args->rows >= 0 && h >= 0 && m >= 0);
    for (int64_t i = 0; i < args->rows; i++) {
        double norm = 0;
        for (int64_t j = 0; j < h; j++)
            norm += (double)args->x[i * h + j] * args->x[i * h + j];
        for (int64_t w = 0; w < m; w++) {
            const double power = exp(args->u[i * m + w] - norm / (2 * sqrt((double)h)));
            args->f[i * m + w] = (float)((power + favor_floor) / sqrt((double)m));
        }
    }
    return PSK_OK;
}

psk_status psk_reference_performer_features_backward(psk_device *device,
                                                     const psk_performer_features_backward_args *args) {
    (void)device;
    const int64_t h = args->h, m = args->m;
    PSK_ASSERT(args->rows >= 0 && h >= 0 && m >= 0);
    for (int64_t i = 0; i < args->rows; i++) {
        double sum = 0;
        for (int64_t w = 0; w < m; w++) {
            const double du = args->df[i * m + w] * (args->f[i * m + w] - favor_floor / sqrt((double)m));
            args->du[i * m + w] = (float)du;
            sum += du;
        }
        for (int64_t j = 0; j < h; j++)
            args->dx[i * h + j] = (float)(-args->x[i * h + j] / sqrt((double)h) * sum);
    }
    return PSK_OK;
}

psk_status psk_reference_append_one(psk_device *device, const psk_append_one_args *args) {
    (void)device;
    const int64_t d = args->d;
    PSK_ASSERT(args->batch >= 0 && args->rows >= 0 && d >= 0);
    for (int64_t g = 0; g < args->batch; g++)
        for (int64_t i = 0; i < args->rows; i++) {
            float *y = args->y + (g * args->rows + i) * (d + 1);
            for (int64_t j = 0; j < d; j++)
                y[j] = args->x[g * args->x_stride + i * d + j];
            y[d] = 1;
        }
    return PSK_OK;
}

psk_status psk_reference_normalise_forward(psk_device *device, const psk_normalise_forward_args *args) {
    (void)device;
    const int64_t d = args->d;
    PSK_ASSERT(args->batch >= 0 && args->rows >= 0 && d >= 0);
    for (int64_t g = 0; g < args->batch; g++)
        for (int64_t i = 0; i < args->rows; i++) {
            const float *o1 = args->o1 + (g * args->rows + i) * (d + 1);
            const double den = (double)args->beta + o1[d];
            for (int64_t j = 0; j < d; j++)
                args->out[g * args->out_stride + i * d + j] = den == 0 ? 0 : (float)(o1[j] / den);
            args->den[g * args->den_stride + i] = (float)den;
        }
    return PSK_OK;
}

psk_status psk_reference_normalise_backward(psk_device *device, const psk_normalise_backward_args *args) {
    (void)device;
    const int64_t d = args->d;
    PSK_ASSERT(args->batch >= 0 && args->rows >= 0 && d >= 0);
    for (int64_t g = 0; g < args->batch; g++)
        for (int64_t i = 0; i < args->rows; i++) {
            const float *dout = args->dout + g * args->out_stride + i * d;
            const float *out = args->out + g * args->out_stride + i * d;
            const double den = args->den[g * args->den_stride + i];
            float *dn1 = args->dn1 + (g * args->rows + i) * (d + 1);
            double dot = 0;
            for (int64_t j = 0; j < d; j++) {
                dot += (double)dout[j] * out[j];
                dn1[j] = den == 0 ? 0 : (float)(dout[j] / den);
            }
            dn1[d] = den == 0 ? 0 : (float)(-dot / den);
        }
    return PSK_OK;
}

static void softmax_tile_row(const psk_softmax_tile_forward_args *args, int64_t row, int64_t i) {
    float *s = args->s + row * args->cols, *o = args->o + row * args->d;
    const float old_max = args->row_max[row];
    float new_max = old_max;
    for (int64_t j = 0; j < args->cols; j++)
        if (visible(i, j, args->offset) && s[j] > new_max)
            new_max = s[j];
    const double c = new_max == -INFINITY ? 1 : exp((double)old_max - new_max);
    double sum = c * args->row_sum[row];
    for (int64_t j = 0; j < args->cols; j++) {
        const double p = visible(i, j, args->offset) && new_max != -INFINITY ? exp((double)s[j] - new_max) : 0;
        sum += p;
        s[j] = (float)p;
    }
    for (int64_t j = 0; j < args->d; j++)
        o[j] = (float)(c * o[j]);
    args->row_sum[row] = (float)sum;
    args->row_max[row] = new_max;
}

psk_status psk_reference_softmax_tile_forward(psk_device *device, const psk_softmax_tile_forward_args *args) {
    (void)device;
    PSK_ASSERT(args->batch >= 0 && args->rows >= 0 && args->cols >= 0 && args->d >= 0);
    for (int64_t g = 0; g < args->batch; g++)
        for (int64_t i = 0; i < args->rows; i++)
            softmax_tile_row(args, g * args->rows + i, i);
    return PSK_OK;
}

psk_status psk_reference_softmax_tile_backward(psk_device *device, const psk_softmax_tile_backward_args *args) {
    (void)device;
    PSK_ASSERT(args->batch >= 0 && args->rows >= 0 && args->cols >= 0);
    for (int64_t g = 0; g < args->batch; g++)
        for (int64_t i = 0; i < args->rows; i++)
            for (int64_t j = 0; j < args->cols; j++) {
                const int64_t at = (g * args->rows + i) * args->cols + j;
                double p = 0, ds = 0;
                if (visible(i, j, args->offset)) {
                    p = exp((double)args->s[at] - args->lse[g * args->lse_stride + i]);
                    ds = args->scale * p * ((double)args->dp[at] - args->delta[g * args->delta_stride + i]);
                }
                args->s[at] = (float)p;
                args->dp[at] = (float)ds;
            }
    return PSK_OK;
}

psk_status psk_reference_softmax_finish(psk_device *device, const psk_softmax_finish_args *args) {
    (void)device;
    const int64_t d = args->d;
    PSK_ASSERT(args->batch >= 0 && args->rows >= 0 && d >= 0);
    for (int64_t g = 0; g < args->batch; g++)
        for (int64_t i = 0; i < args->rows; i++) {
            const int64_t row = g * args->rows + i;
            for (int64_t j = 0; j < d; j++)
                args->out[g * args->out_stride + i * d + j] =
                    (float)((double)args->o[row * d + j] / args->row_sum[row]);
            args->lse[g * args->lse_stride + i] = (float)(args->row_max[row] + log(args->row_sum[row]));
        }
    return PSK_OK;
}

psk_status psk_reference_row_dot(psk_device *device, const psk_row_dot_args *args) {
    (void)device;
    const int64_t n = args->n;
    PSK_ASSERT(args->batch >= 0 && args->rows >= 0 && n >= 0);
    for (int64_t g = 0; g < args->batch; g++)
        for (int64_t i = 0; i < args->rows; i++) {
            const int64_t at = g * args->x_stride + i * n;
            double sum = 0;
            for (int64_t j = 0; j < n; j++)
                sum += (double)args->x[at + j] * args->y[at + j];
            args->out[g * args->rows + i] = (float)sum;
        }
    return PSK_OK;
}
