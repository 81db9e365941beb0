/* From rows of tokens to heads and back, with the rotary embedding (Su et al. 2021); the gain of a head. */
#include "reference/reference.h"

#include <math.h>

static double rope_angle(int64_t position, int64_t i, int64_t h) {
    return (double)position * pow(10000, -2.0 * (double)i / (double)h);
}

/* (y_i, y_(h/2+i)) = (x_2i, x_2i+1) turned by the angle; the last element of an odd h keeps its place. */
static void rope_forward(int64_t h, int64_t position, const float *x, float *y) {
    const int64_t half = h / 2;
    for (int64_t i = 0; i < half; i++) {
        const double angle = rope_angle(position, i, h), even = x[2 * i], odd = x[2 * i + 1];
        y[i] = (float)(even * cos(angle) - odd * sin(angle));
        y[half + i] = (float)(even * sin(angle) + odd * cos(angle));
    }
    if (h % 2 == 1)
        y[h - 1] = x[h - 1];
}

/* The transposed rotation: (dx_2i, dx_2i+1) = (dy_i, dy_(h/2+i)) turned back. */
static void rope_backward(int64_t h, int64_t position, const float *dy, float *dx) {
    const int64_t half = h / 2;
    for (int64_t i = 0; i < half; i++) {
        const double angle = rope_angle(position, i, h), first = dy[i], second = dy[half + i];
        dx[2 * i] = (float)(first * cos(angle) + second * sin(angle));
        dx[2 * i + 1] = (float)(second * cos(angle) - first * sin(angle));
    }
    if (h % 2 == 1)
        dx[h - 1] = dy[h - 1];
}

static void copy_row(int64_t n, const float *x, float *y) {
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i];
}

psk_status psk_reference_split_heads_forward(psk_device *device, const psk_split_heads_forward_args *args) {
    (void)device;
    const int64_t N = args->N, H = args->H, Hkv = args->Hkv, h = args->h;
    PSK_ASSERT(args->B >= 0 && N >= 0 && H >= 0 && Hkv >= 0 && h >= 0 && args->kv_stride >= N * h);
    for (int64_t b = 0; b < args->B; b++)
        for (int64_t n = 0; n < N; n++) {
            const float *row = args->qkv + (b * N + n) * (H + 2 * Hkv) * h;
            const int64_t position = args->positions[b * N + n];
            for (int64_t j = 0; j < H; j++)
                rope_forward(h, position, row + j * h, args->q + ((b * H + j) * N + n) * h);
            for (int64_t j = 0; j < Hkv; j++) {
                const int64_t to = (b * Hkv + j) * args->kv_stride + n * h;
                rope_forward(h, position, row + (H + j) * h, args->k + to);
                copy_row(h, row + (H + Hkv + j) * h, args->v + to);
            }
        }
    return PSK_OK;
}

psk_status psk_reference_split_heads_backward(psk_device *device, const psk_split_heads_backward_args *args) {
    (void)device;
    const int64_t N = args->N, H = args->H, Hkv = args->Hkv, h = args->h;
    PSK_ASSERT(args->B >= 0 && N >= 0 && H >= 0 && Hkv >= 0 && h >= 0);
    for (int64_t b = 0; b < args->B; b++)
        for (int64_t n = 0; n < N; n++) {
            float *row = args->dqkv + (b * N + n) * (H + 2 * Hkv) * h;
            const int64_t position = args->positions[b * N + n];
            for (int64_t j = 0; j < H; j++)
                rope_backward(h, position, args->dq + ((b * H + j) * N + n) * h, row + j * h);
            for (int64_t j = 0; j < Hkv; j++) {
                const int64_t from = ((b * Hkv + j) * N + n) * h;
                rope_backward(h, position, args->dk + from, row + (H + j) * h);
                copy_row(h, args->dv + from, row + (H + Hkv + j) * h);
            }
        }
    return PSK_OK;
}

psk_status psk_reference_transpose_heads(psk_device *device, const psk_transpose_heads_args *args) {
    (void)device;
    const int64_t P = args->P, Q = args->Q, n = args->n;
    PSK_ASSERT(args->B >= 0 && P >= 0 && Q >= 0 && n >= 0);
    for (int64_t b = 0; b < args->B; b++)
        for (int64_t i = 0; i < P; i++)
            for (int64_t j = 0; j < Q; j++)
                copy_row(n, args->x + ((b * P + i) * Q + j) * n, args->y + ((b * Q + j) * P + i) * n);
    return PSK_OK;
}

psk_status psk_reference_head_gain_forward(psk_device *device, const psk_head_gain_forward_args *args) {
    (void)device;
    const int64_t B = args->B, H = args->H, n = args->n;
    PSK_ASSERT(B >= 0 && H >= 0 && n >= 0);
    for (int64_t i = 0; i < B * H * n; i++)
        args->y[i] = (float)(exp((double)args->gain[i / n % H] / 2) * args->x[i]);
    return PSK_OK;
}

psk_status psk_reference_head_gain_backward(psk_device *device, const psk_head_gain_backward_args *args) {
    (void)device;
    const int64_t B = args->B, H = args->H, n = args->n;
    PSK_ASSERT(B >= 0 && H >= 0 && n >= 0);
    for (int64_t e = 0; e < H; e++) {
        const double factor = exp((double)args->gain[e] / 2);
        double dgain = args->dgain[e];
        for (int64_t b = 0; b < B; b++)
            for (int64_t i = (b * H + e) * n; i < (b * H + e + 1) * n; i++) {
                dgain += (double)args->y[i] * args->dy[i] / 2;
                args->x[i] = (float)(args->y[i] / factor);
                args->dx[i] = (float)(args->dy[i] * factor);
            }
        args->dgain[e] = (float)dgain;
    }
    return PSK_OK;
}
