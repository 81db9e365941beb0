#include "attention/attn_performer.h"

#include "attention/attn_parts.h"

#include <math.h>

/* u = x projection^T / h^(1/4) */
static float projection_scale(int64_t h) {
    return (float)(1.0 / sqrt(sqrt((double)h)));
}

psk_status psk_performer_features_forward(psk_device *device, int64_t h, int64_t m, int64_t rows, const float *x,
                                          const float *projection, float *f) {
    const psk_tile X = psk_tile_in((float *)x, rows, h), W = psk_tile_in((float *)projection, m, h);
    PSK_TRY(psk_tile_abt(device, 1, projection_scale(h), X, W, 0.0f, psk_tile_in(f, rows, m)));
    PSK_RUN(device, performer_features_forward, .rows = rows, .h = h, .m = m, .u = f, .x = x, .f = f);
    return PSK_OK;
}

psk_status psk_performer_features_backward(psk_device *device, const psk_performer_backward_args *args) {
    const psk_tile W = psk_tile_in((float *)args->projection, args->m, args->h);
    PSK_RUN(device, performer_features_backward, .rows = args->rows, .h = args->h, .m = args->m, .f = args->f,
            .x = args->x, .df = args->df, .du = args->df, .dx = args->dx); /* df becomes du */
    return psk_tile_ab(device, 1, projection_scale(args->h), psk_tile_in(args->df, args->rows, args->m), W, 1.0f,
                       psk_tile_in(args->dx, args->rows, args->h)); /* inverts u */
}
