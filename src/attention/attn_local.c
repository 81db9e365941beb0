#include "attention/attn_local.h"

psk_local_weights psk_local_exact(const psk_attention *at, const psk_attention_views *views) {
    return (psk_local_weights){views->q, views->k, views->dq, views->dk, at->config.degree, 1.0f};
}

psk_local_weights psk_local_sketched(const psk_attention_views *views, int64_t power, float scale) {
    return (psk_local_weights){views->a, views->b, views->da, views->db, power, scale};
}

/* S = X Y^T of one head of the tile against keys key ... key + cols - 1, into at->weights. */
static psk_status scores(const psk_attention *at, const psk_attention_views *views, psk_tile x, psk_tile y,
                         psk_tile *s) {
    *s = psk_tile_in(at->weights, x.rows, y.rows);
    return psk_tile_abt(at->device, views->groups, 1.0f, x, y, 0.0f, *s);
}

psk_status psk_local_forward(const psk_attention *at, const psk_attention_views *views, const psk_local_weights *w,
                             const psk_query_tile *tile, int64_t first_key) {
    const int64_t end = psk_query_tile_keys(tile, views->Nk);
    for (int64_t key = first_key; key < end; key += PSK_KEY_TILE) {
        const int64_t cols = end - key < PSK_KEY_TILE ? end - key : PSK_KEY_TILE;
        const psk_tile y = psk_tile_of(&w->y, 0, key, cols);
        psk_tile v1, s;
        PSK_TRY(psk_tile_values(at, views, key, cols, &v1));
        for (int64_t e = 0; e < at->rep; e++) {
            const psk_tile x = psk_tile_of(&w->x, e, tile->first, tile->rows);
            PSK_TRY(scores(at, views, x, y, &s)); /* W = scale (X Y^T)^p */
            PSK_RUN(at->device, power_weights_forward, .batch = views->groups, .rows = s.rows, .cols = s.cols,
                    .ld = s.ld, .stride = s.stride, .p = w->power, .offset = psk_query_tile_offset(tile, key),
                    .s = s.data, .w = s.data, .scale = w->scale);
            /* O1 += W V1 */
            PSK_TRY(psk_tile_ab(at->device, views->groups, 1.0f, s, v1, 1.0f, psk_tile_o1(at, views, tile, e)));
        }
    }
    return PSK_OK;
}

/* One head of the tile against the keys of y, v1 and dv. */
static psk_status head_backward(const psk_attention *at, const psk_attention_views *views, const psk_local_weights *w,
                                const psk_query_tile *tile, int64_t e, int64_t key, psk_tile v1) {
    const int64_t groups = views->groups;
    const psk_tile x = psk_tile_of(&w->x, e, tile->first, tile->rows), y = psk_tile_of(&w->y, 0, key, v1.rows);
    const psk_tile dx = psk_tile_of(&w->dx, e, tile->first, tile->rows), dy = psk_tile_of(&w->dy, 0, key, v1.rows);
    const psk_tile dv = psk_tile_of(&views->dv, 0, key, v1.rows);
    const psk_tile dn1 = psk_tile_o1(at, views, tile, e), dw = psk_tile_in(at->dweights, x.rows, y.rows);
    psk_tile s;
    PSK_TRY(scores(at, views, x, y, &s));
    PSK_TRY(psk_tile_abt(at->device, groups, 1.0f, dn1, v1, 0.0f, dw)); /* inverts O1 += W V1 */
    PSK_RUN(at->device, power_weights_backward, .batch = groups, .rows = s.rows, .cols = s.cols, .ld = s.ld,
            .stride = s.stride, .p = w->power, .offset = psk_query_tile_offset(tile, key), .s = s.data, .dw = dw.data,
            .w = s.data, .ds = dw.data, .scale = w->scale); /* S becomes W, dW becomes dS */
    PSK_TRY(psk_tile_atb(at->device, groups, 1.0f, s, psk_tile_columns(dn1, dv.cols), 1.0f, dv));
    PSK_TRY(psk_tile_ab(at->device, groups, 1.0f, dw, y, 1.0f, dx)); /* inverts S = X Y^T */
    return psk_tile_atb(at->device, groups, 1.0f, dw, x, 1.0f, dy);
}

psk_status psk_local_backward(const psk_attention *at, const psk_attention_views *views, const psk_local_weights *w,
                              const psk_query_tile *tile, int64_t first_key) {
    const int64_t end = psk_query_tile_keys(tile, views->Nk);
    for (int64_t key = first_key; key < end; key += PSK_KEY_TILE) {
        const int64_t cols = end - key < PSK_KEY_TILE ? end - key : PSK_KEY_TILE;
        psk_tile v1;
        PSK_TRY(psk_tile_values(at, views, key, cols, &v1));
        for (int64_t e = 0; e < at->rep; e++)
            PSK_TRY(head_backward(at, views, w, tile, e, key, v1));
    }
    return PSK_OK;
}
