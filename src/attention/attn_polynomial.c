/* Polynomial attention (paper, section 2.1): w_ij = <q_i, k_j>^p, o_i = sum_j w_ij v_j / (beta + sum_j w_ij).
 * Tile by tile, never an N x N matrix; quadratic in time. */
#include "attention/attn_local.h"

psk_status psk_polynomial_forward(const psk_attention *at, const psk_attention_views *views) {
    const psk_local_weights w = psk_local_exact(at, views);
    for (int64_t first = 0; first < views->Nq; first += PSK_QUERY_TILE) {
        const psk_query_tile tile = psk_query_tile_at(at, views, first, views->Nq);
        PSK_RUN(at->device, fill, .n = at->rep * views->groups * tile.rows * (at->shape.d + 1), .x = at->o1,
                .value = 0.0f);
        PSK_TRY(psk_local_forward(at, views, &w, &tile, 0));
        PSK_TRY(psk_tile_normalise_forward(at, views, &tile, at->config.denominator_bias));
    }
    return PSK_OK;
}

psk_status psk_polynomial_backward(const psk_attention *at, const psk_attention_views *views) {
    const psk_local_weights w = psk_local_exact(at, views);
    for (int64_t first = 0; first < views->Nq; first += PSK_QUERY_TILE) {
        const psk_query_tile tile = psk_query_tile_at(at, views, first, views->Nq);
        PSK_TRY(psk_tile_normalise_backward(at, views, &tile));
        PSK_TRY(psk_local_backward(at, views, &w, &tile, 0));
    }
    return PSK_OK;
}
