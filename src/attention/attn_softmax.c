/* Softmax attention: w_ij = exp(<q_i, k_j> / sqrt(h)), tile by tile with a running maximum (FlashAttention, Dao et al.
 * 2022), never an N x N matrix; quadratic in time, linear with local_only. Backward recomputes the weights from the
 * saved lse_i = log sum_j exp(s_ij) and needs delta_i = <dout_i, out_i>. */
#include "attention/attn_parts.h"

#include <math.h>

static float score_scale(const psk_attention *at) {
    return (float)(1.0 / sqrt((double)at->shape.h));
}

/* S = Q K^T / sqrt(h) against keys key ... key + cols - 1, into at->weights. */
static psk_status scores(const psk_attention *at, const psk_attention_views *views, psk_tile q, psk_tile k,
                         psk_tile *s) {
    *s = psk_tile_in(at->weights, q.rows, k.rows);
    return psk_tile_abt(at->device, views->groups, score_scale(at), q, k, 0.0f, *s);
}

static psk_status head_forward(const psk_attention *at, const psk_attention_views *views, const psk_query_tile *tile,
                               int64_t first_key, int64_t e) {
    const int64_t groups = views->groups, rows = tile->rows, end = psk_query_tile_keys(tile, views->Nk);
    const psk_tile q = psk_tile_of(&views->q, e, tile->first, rows), o = psk_tile_in(at->o1, rows, at->shape.d);
    const psk_tile out = psk_tile_of(&views->out, e, tile->first, rows);
    const psk_tile lse = psk_tile_of(&views->normaliser, e, tile->first, rows);
    PSK_RUN(at->device, fill, .n = groups * rows * o.cols, .x = o.data, .value = 0.0f);
    PSK_RUN(at->device, fill, .n = groups * rows, .x = at->row_max, .value = -INFINITY);
    PSK_RUN(at->device, fill, .n = groups * rows, .x = at->row_sum, .value = 0.0f);
    for (int64_t key = first_key; key < end; key += PSK_KEY_TILE) {
        const int64_t cols = end - key < PSK_KEY_TILE ? end - key : PSK_KEY_TILE;
        const psk_tile k = psk_tile_of(&views->k, 0, key, cols), v = psk_tile_of(&views->v, 0, key, cols);
        psk_tile p;
        PSK_TRY(scores(at, views, q, k, &p));
        PSK_RUN(at->device, softmax_tile_forward, .batch = groups, .rows = rows, .cols = cols, .d = o.cols,
                .offset = psk_query_tile_offset(tile, key), .s = p.data, .row_max = at->row_max, .row_sum = at->row_sum,
                .o = o.data);                                          /* P = exp(S - max), O rescaled */
        PSK_TRY(psk_tile_ab(at->device, groups, 1.0f, p, v, 1.0f, o)); /* O += P V */
    }
    PSK_RUN(at->device, softmax_finish, .batch = groups, .rows = rows, .d = o.cols, .out_stride = out.stride,
            .lse_stride = lse.stride, .o = o.data, .row_max = at->row_max, .row_sum = at->row_sum, .out = out.data,
            .lse = lse.data);
    return PSK_OK;
}

static psk_status head_backward(const psk_attention *at, const psk_attention_views *views, const psk_query_tile *tile,
                                int64_t first_key, int64_t e) {
    const int64_t groups = views->groups, rows = tile->rows, end = psk_query_tile_keys(tile, views->Nk);
    const psk_tile q = psk_tile_of(&views->q, e, tile->first, rows), dq = psk_tile_of(&views->dq, e, tile->first, rows);
    const psk_tile out = psk_tile_of(&views->out, e, tile->first, rows);
    const psk_tile dout = psk_tile_of(&views->dout, e, tile->first, rows);
    const psk_tile lse = psk_tile_of(&views->normaliser, e, tile->first, rows);
    PSK_RUN(at->device, row_dot, .batch = groups, .rows = rows, .n = out.cols, .x_stride = out.stride, .x = dout.data,
            .y = out.data, .out = at->row_sum); /* delta */
    for (int64_t key = first_key; key < end; key += PSK_KEY_TILE) {
        const int64_t cols = end - key < PSK_KEY_TILE ? end - key : PSK_KEY_TILE;
        const psk_tile k = psk_tile_of(&views->k, 0, key, cols), v = psk_tile_of(&views->v, 0, key, cols);
        const psk_tile dk = psk_tile_of(&views->dk, 0, key, cols), dv = psk_tile_of(&views->dv, 0, key, cols);
        const psk_tile ds = psk_tile_in(at->dweights, rows, cols);
        psk_tile p;
        PSK_TRY(scores(at, views, q, k, &p));
        PSK_TRY(psk_tile_abt(at->device, groups, 1.0f, dout, v, 0.0f, ds)); /* dP = dO V^T */
        PSK_RUN(at->device, softmax_tile_backward, .batch = groups, .rows = rows, .cols = cols,
                .offset = psk_query_tile_offset(tile, key), .lse_stride = lse.stride, .delta_stride = rows, .s = p.data,
                .dp = ds.data, .lse = lse.data, .delta = at->row_sum,
                .scale = score_scale(at));                                  /* S becomes P, dP becomes dS */
        PSK_TRY(psk_tile_atb(at->device, groups, 1.0f, p, dout, 1.0f, dv)); /* inverts O += P V */
        PSK_TRY(psk_tile_ab(at->device, groups, 1.0f, ds, k, 1.0f, dq));    /* inverts S = Q K^T / sqrt(h) */
        PSK_TRY(psk_tile_atb(at->device, groups, 1.0f, ds, q, 1.0f, dk));
    }
    return PSK_OK;
}

static psk_status tile_forward(const psk_attention *at, const psk_attention_views *views, const psk_query_tile *tile,
                               int64_t first_key) {
    for (int64_t e = 0; e < at->rep; e++)
        PSK_TRY(head_forward(at, views, tile, first_key, e));
    return PSK_OK;
}

static psk_status tile_backward(const psk_attention *at, const psk_attention_views *views, const psk_query_tile *tile,
                                int64_t first_key) {
    for (int64_t e = 0; e < at->rep; e++)
        PSK_TRY(head_backward(at, views, tile, first_key, e));
    return PSK_OK;
}

psk_status psk_softmax_forward(const psk_attention *at, const psk_attention_views *views) {
    return psk_each_query_tile(at, views, tile_forward);
}

psk_status psk_softmax_backward(const psk_attention *at, const psk_attention_views *views) {
    return psk_each_query_tile(at, views, tile_backward);
}
