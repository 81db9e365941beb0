/* Performer (Choromanski et al. 2021): positive random features f with E <f(q), f(k)> = exp(<q,k> / sqrt(h)).
 *   f_w(x) = (exp(<x,w> / h^(1/4) - |x|^2 / (2 sqrt(h))) + 1e-6) / sqrt(m)     for the rows w of the projection
 * The features are a and b of the block algorithm. Rows are independent. */
#ifndef PSK_ATTN_PERFORMER_H
#define PSK_ATTN_PERFORMER_H

#include "device/device.h"

/* f = features of x.   x: rows x h, projection: m x h, f: rows x m, contiguous */
psk_status psk_performer_features_forward(psk_device *device, int64_t h, int64_t m, int64_t rows, const float *x,
                                          const float *projection, float *f);

/* dx = dL/dx (=). df is overwritten. The projection is not trained. */
typedef struct psk_performer_backward_args {
    int64_t h, m, rows;
    const float *x, *projection, *f; /* rows x h, m x h, rows x m */
    float *df;                       /* rows x m; garbage afterwards */
    float *dx;                       /* rows x h */
} psk_performer_backward_args;
psk_status psk_performer_features_backward(psk_device *device, const psk_performer_backward_args *args);

#endif
