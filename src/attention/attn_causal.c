#include "attention/attn_causal.h"

#include "attention/attn_local.h"

/* One call, in blocks. */
typedef struct block_pass {
    const psk_attention *at;
    const psk_attention_views *views;
    int64_t power;     /* of <a,b> */
    float scale, beta; /* far_scale and denominator_bias; performer: 1 and 0 */
    psk_blocks blocks;
    int64_t folded; /* the keys before this one are in state1 */
    psk_local_weights local;
} block_pass;

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static block_pass plan_blocks(const psk_attention *at, const psk_attention_views *views) {
    const psk_attention_config *config = &at->config;
    const bool sketched = config->mechanism == PSK_POLYSKETCH;
    block_pass p = {.at = at, .views = views, .blocks = psk_blocks_of(at, views)};
    p.power = sketched ? 2 : 1;
    p.scale = sketched ? config->far_scale : 1.0f;
    p.beta = sketched ? config->denominator_bias : 0.0f;
    p.folded = views->Nk - psk_attention_tail(config, views->Nk);
    p.local = psk_attention_uses_qk(config) ? psk_local_exact(at, views) : psk_local_sketched(views, p.power, p.scale);
    return p;
}

static int64_t far_keys(const block_pass *p, int64_t block) {
    if (p->at->config.direction == PSK_BIDIRECTIONAL)
        return p->views->Nk;
    return psk_block_near_key(&p->blocks, block);
}

/* psi(x) for power 2, in at->features; for power 1 x itself, whose scale is 1. */
static psk_status features_forward(const block_pass *p, psk_tile x, float scale, float off_diagonal, psk_tile *psi) {
    *psi = x;
    if (p->power == 1)
        return PSK_OK;
    *psi = psk_tile_in(p->at->features, x.rows, p->at->m);
    PSK_RUN(p->at->device, pack_features_forward, .batch = p->views->groups, .rows = x.rows, .r = x.cols,
            .x_stride = x.stride, .y_stride = psi->stride, .x = x.data, .y = psi->data, .scale = scale,
            .off_diagonal = off_diagonal);
    return PSK_OK;
}

/* dx += (dpsi/dx)^T dpsi with dpsi = left right^T: queries dN1 Z^T, keys V1 U^T. */
static psk_status features_backward(const block_pass *p, psk_tile x, psk_tile left, psk_tile right, float scale,
                                    float off_diagonal, psk_tile dx) {
    if (p->power == 1)
        return psk_tile_abt(p->at->device, p->views->groups, 1.0f, left, right, 1.0f, dx);
    const psk_tile dpsi = psk_tile_in(p->at->features, x.rows, p->at->m);
    PSK_TRY(psk_tile_abt(p->at->device, p->views->groups, 1.0f, left, right, 0.0f, dpsi));
    PSK_RUN(p->at->device, pack_features_backward, .batch = p->views->groups, .rows = x.rows, .r = x.cols,
            .x_stride = x.stride, .y_stride = dpsi.stride, .x = x.data, .dy = dpsi.data, .dx = dx.data, .scale = scale,
            .off_diagonal = off_diagonal, .dx_write = PSK_ADD);
    return PSK_OK;
}

static psk_tile state_in(const block_pass *p, float *buffer) {
    return psk_tile_in(buffer, p->at->m, p->at->shape.d + 1);
}

/* state = start, or 0. */
static psk_status start_state(const block_pass *p, psk_tile state, const float *start) {
    const int64_t n = p->views->groups * state.stride;
    if (start == state.data)
        return PSK_OK;
    if (start != NULL)
        PSK_RUN(p->at->device, copy, .batch = 1, .rows = 1, .n = n, .x_ld = n, .x_stride = n, .y_ld = n, .y_stride = n,
                .x = start, .y = state.data, .alpha = 1.0f, .write = PSK_SET);
    else
        PSK_RUN(p->at->device, fill, .n = n, .x = state.data, .value = 0.0f);
    return PSK_OK;
}

/* Z += psi_k(B)^T V1 for keys from ... to - 1. */
static psk_status fold_forward(const block_pass *p, psk_tile z, int64_t from, int64_t to) {
    for (int64_t key = from; key < to; key += PSK_FOLD_TILE) {
        const int64_t keys = smaller(to - key, PSK_FOLD_TILE);
        psk_tile psi, v1;
        PSK_TRY(features_forward(p, psk_tile_of(&p->views->b, 0, key, keys), 1.0f, 1.0f, &psi));
        PSK_TRY(psk_tile_values(p->at, p->views, key, keys, &v1));
        PSK_TRY(psk_tile_atb(p->at->device, p->views->groups, 1.0f, psi, v1, 1.0f, z));
    }
    return PSK_OK;
}

/* dV1 += psi_k(B) U, of which the last column is nobody's; dpsi_k = V1 U^T. */
static psk_status fold_backward(const block_pass *p, psk_tile u, int64_t from, int64_t to) {
    for (int64_t key = from; key < to; key += PSK_FOLD_TILE) {
        const int64_t keys = smaller(to - key, PSK_FOLD_TILE);
        const psk_tile b = psk_tile_of(&p->views->b, 0, key, keys), db = psk_tile_of(&p->views->db, 0, key, keys);
        const psk_tile dv = psk_tile_of(&p->views->dv, 0, key, keys);
        psk_tile psi, v1;
        PSK_TRY(features_forward(p, b, 1.0f, 1.0f, &psi));
        PSK_TRY(psk_tile_ab(p->at->device, p->views->groups, 1.0f, psi, psk_tile_columns(u, dv.cols), 1.0f, dv));
        PSK_TRY(psk_tile_values(p->at, p->views, key, keys, &v1));
        PSK_TRY(features_backward(p, b, v1, u, 1.0f, 1.0f, db));
    }
    return PSK_OK;
}

/* Z holds something when the queries of this block read it. */
static bool reads_state(const block_pass *p, int64_t block) {
    return far_keys(p, block) > 0 || p->views->state0 != NULL;
}

/* O1 = psi_q(A) Z + W V1, then out. */
static psk_status tile_forward(const block_pass *p, int64_t block, const psk_query_tile *tile, psk_tile z) {
    const psk_attention *at = p->at;
    if (!reads_state(p, block))
        PSK_RUN(at->device, fill, .n = at->rep * p->views->groups * tile->rows * z.cols, .x = at->o1, .value = 0.0f);
    for (int64_t e = 0; e < at->rep && reads_state(p, block); e++) {
        psk_tile psi;
        PSK_TRY(features_forward(p, psk_tile_of(&p->views->a, e, tile->first, tile->rows), p->scale, 2.0f, &psi));
        PSK_TRY(psk_tile_ab(at->device, p->views->groups, 1.0f, psi, z, 0.0f, psk_tile_o1(at, p->views, tile, e)));
    }
    PSK_TRY(psk_local_forward(at, p->views, &p->local, tile, far_keys(p, block)));
    return psk_tile_normalise_forward(at, p->views, tile, p->beta);
}

/* Sweep 1: dpsi_q = dN1 Z^T, and the gradients of the pairs. */
static psk_status tile_backward_queries(const block_pass *p, int64_t block, const psk_query_tile *tile, psk_tile z) {
    const psk_attention *at = p->at;
    PSK_TRY(psk_tile_normalise_backward(at, p->views, tile));
    for (int64_t e = 0; e < at->rep && reads_state(p, block); e++) {
        const psk_tile a = psk_tile_of(&p->views->a, e, tile->first, tile->rows);
        const psk_tile da = psk_tile_of(&p->views->da, e, tile->first, tile->rows);
        PSK_TRY(features_backward(p, a, psk_tile_o1(at, p->views, tile, e), z, p->scale, 2.0f, da));
    }
    return psk_local_backward(at, p->views, &p->local, tile, far_keys(p, block));
}

/* Sweep 2: U += psi_q(A)^T dN1. */
static psk_status tile_backward_state(const block_pass *p, int64_t block, const psk_query_tile *tile, psk_tile u) {
    const psk_attention *at = p->at;
    if (far_keys(p, block) == 0 && p->views->dstate0 == NULL)
        return PSK_OK; /* nobody reads this U */
    PSK_TRY(psk_tile_normalise_backward(at, p->views, tile));
    for (int64_t e = 0; e < at->rep; e++) {
        psk_tile psi;
        PSK_TRY(features_forward(p, psk_tile_of(&p->views->a, e, tile->first, tile->rows), p->scale, 2.0f, &psi));
        PSK_TRY(psk_tile_atb(at->device, p->views->groups, 1.0f, psi, psk_tile_o1(at, p->views, tile, e), 1.0f, u));
    }
    return PSK_OK;
}

typedef psk_status tile_pass(const block_pass *p, int64_t block, const psk_query_tile *tile, psk_tile state);

static psk_status each_tile(const block_pass *p, int64_t block, psk_tile state, tile_pass *pass) {
    int64_t first;
    const int64_t end = psk_block_queries(&p->blocks, p->views, block, &first);
    for (; first < end; first += PSK_QUERY_TILE) {
        const psk_query_tile tile = psk_query_tile_at(p->at, p->views, first, end);
        PSK_TRY(pass(p, block, &tile, state));
    }
    return PSK_OK;
}

/* Block after block, Z growing before each; returns the number of keys in Z. */
static psk_status sweep_forwards(const block_pass *p, psk_tile z, tile_pass *pass, int64_t *folded) {
    PSK_TRY(start_state(p, z, p->views->state0));
    *folded = 0;
    for (int64_t block = p->blocks.first; block < p->blocks.end; block++) {
        PSK_TRY(fold_forward(p, z, *folded, far_keys(p, block)));
        *folded = far_keys(p, block);
        PSK_TRY(each_tile(p, block, z, pass));
    }
    return PSK_OK;
}

psk_status psk_causal_forward(const psk_attention *at, const psk_attention_views *views) {
    const block_pass p = plan_blocks(at, views);
    const psk_tile z = state_in(&p, views->state1 != NULL ? views->state1 : at->state);
    int64_t folded;
    PSK_TRY(sweep_forwards(&p, z, tile_forward, &folded));
    return views->state1 != NULL ? fold_forward(&p, z, folded, p.folded) : PSK_OK;
}

/* Inverts psk_causal_forward from its end: U holds dL/dZ as it stood before the keys that are still to come. */
static psk_status sweep_backwards(const block_pass *p, psk_tile u) {
    int64_t folded = p->views->dstate1 != NULL ? p->folded : far_keys(p, p->blocks.end - 1);
    PSK_TRY(start_state(p, u, p->views->dstate1));
    for (int64_t block = p->blocks.end - 1; block >= p->blocks.first; block--) {
        PSK_TRY(fold_backward(p, u, far_keys(p, block), folded));
        folded = far_keys(p, block);
        PSK_TRY(each_tile(p, block, u, tile_backward_state));
    }
    return fold_backward(p, u, 0, folded);
}

psk_status psk_causal_backward(const psk_attention *at, const psk_attention_views *views) {
    const block_pass p = plan_blocks(at, views);
    int64_t folded;
    PSK_ASSERT(views->Nq >= 1);
    PSK_TRY(sweep_forwards(&p, state_in(&p, at->state), tile_backward_queries, &folded));
    return sweep_backwards(&p, state_in(&p, views->dstate0 != NULL ? views->dstate0 : at->state));
}
