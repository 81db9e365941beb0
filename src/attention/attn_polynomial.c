/* Polynomial attention (paper, section 2.1): w_ij = <q_i, k_j>^p, o_i = sum_j w_ij v_j / (beta + sum_j w_ij).
 * Tile by tile, never an N x N matrix; quadratic in time, linear with local_only. */
#include "attention/attn_local.h"

static psk_status tile_forward(const psk_attention *at, const psk_attention_views *views, const psk_query_tile *tile,
                               int64_t first_key) {
    const psk_local_weights w = psk_local_exact(at, views);
    PSK_RUN(at->device, fill, .n = at->rep * views->groups * tile->rows * (at->shape.d + 1), .x = at->o1,
            .value = 0.0f);
    PSK_TRY(psk_local_forward(at, views, &w, tile, first_key));
    return psk_tile_normalise_forward(at, views, tile, at->config.denominator_bias);
}

static psk_status tile_backward(const psk_attention *at, const psk_attention_views *views, const psk_query_tile *tile,
                                int64_t first_key) {
    const psk_local_weights w = psk_local_exact(at, views);
    PSK_TRY(psk_tile_normalise_backward(at, views, tile));
    return psk_local_backward(at, views, &w, tile, first_key);
}

psk_status psk_polynomial_forward(const psk_attention *at, const psk_attention_views *views) {
    return psk_each_query_tile(at, views, tile_forward);
}

psk_status psk_polynomial_backward(const psk_attention *at, const psk_attention_views *views) {
    return psk_each_query_tile(at, views, tile_backward);
}
