/* Tiles: products, values with the normaliser's column, and the division that ends every polynomial form. */
#include "attention/attn_parts.h"

/* All of a product except k and the orientations. */
static psk_matmul_args product(int64_t groups, float alpha, psk_tile a, psk_tile b, float beta, psk_tile c) {
    return (psk_matmul_args){.batch = groups,
                             .m = c.rows,
                             .n = c.cols,
                             .a = a.data,
                             .lda = a.ld,
                             .a_stride = a.stride,
                             .b = b.data,
                             .ldb = b.ld,
                             .b_stride = b.stride,
                             .c = c.data,
                             .ldc = c.ld,
                             .c_stride = c.stride,
                             .alpha = alpha,
                             .beta = beta};
}

psk_status psk_tile_ab(psk_device *device, int64_t groups, float alpha, psk_tile a, psk_tile b, float beta,
                       psk_tile c) {
    psk_matmul_args args = product(groups, alpha, a, b, beta, c);
    PSK_ASSERT(c.rows == a.rows && c.cols == b.cols && a.cols == b.rows);
    args.k = a.cols;
    return device->ops->matmul(device, &args);
}

psk_status psk_tile_abt(psk_device *device, int64_t groups, float alpha, psk_tile a, psk_tile b, float beta,
                        psk_tile c) {
    psk_matmul_args args = product(groups, alpha, a, b, beta, c);
    PSK_ASSERT(c.rows == a.rows && c.cols == b.rows && a.cols == b.cols);
    args.k = a.cols;
    args.b_orientation = PSK_TRANSPOSED;
    return device->ops->matmul(device, &args);
}

psk_status psk_tile_atb(psk_device *device, int64_t groups, float alpha, psk_tile a, psk_tile b, float beta,
                        psk_tile c) {
    psk_matmul_args args = product(groups, alpha, a, b, beta, c);
    PSK_ASSERT(c.rows == a.cols && c.cols == b.cols && a.rows == b.rows);
    args.k = a.rows;
    args.a_orientation = PSK_TRANSPOSED;
    return device->ops->matmul(device, &args);
}

psk_status psk_tile_values(const psk_attention *at, const psk_attention_views *views, int64_t first, int64_t keys,
                           psk_tile *v1) {
    const psk_tile v = psk_tile_of(&views->v, 0, first, keys);
    *v1 = psk_tile_in(at->v1, keys, v.cols + 1);
    PSK_RUN(at->device, append_one, .batch = views->groups, .rows = keys, .d = v.cols, .x_stride = v.stride,
            .x = v.data, .y = v1->data);
    return PSK_OK;
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

psk_blocks psk_blocks_of(const psk_attention *at, const psk_attention_views *views) {
    const psk_attention_config *config = &at->config;
    const bool causal = config->direction == PSK_CAUSAL, near = psk_attention_has_local(config);
    const int64_t all = larger(larger(views->Nk, views->Nq), 1), shift = causal ? views->Nk - views->Nq : 0;
    const bool cut = causal && (near || psk_attention_uses_ab(config));
    psk_blocks blocks = {.b = cut ? smaller(config->block_size, all) : all, .shift = shift};
    blocks.lag = near && config->local == PSK_LOCAL_WINDOW ? 1 : 0;
    blocks.first = shift / blocks.b;
    blocks.end = views->Nq == 0 ? blocks.first : (shift + views->Nq - 1) / blocks.b + 1;
    return blocks;
}

int64_t psk_block_near_key(const psk_blocks *blocks, int64_t block) {
    return larger(block - blocks->lag, 0) * blocks->b;
}

int64_t psk_block_queries(const psk_blocks *blocks, const psk_attention_views *views, int64_t block, int64_t *first) {
    *first = larger(block * blocks->b - blocks->shift, 0);
    return smaller((block + 1) * blocks->b - blocks->shift, views->Nq);
}

psk_status psk_each_query_tile(const psk_attention *at, const psk_attention_views *views, psk_tile_pass *pass) {
    const psk_blocks blocks = psk_blocks_of(at, views);
    for (int64_t block = blocks.first; block < blocks.end; block++) {
        int64_t first;
        const int64_t end = psk_block_queries(&blocks, views, block, &first);
        for (; first < end; first += PSK_QUERY_TILE) {
            const psk_query_tile tile = psk_query_tile_at(at, views, first, end);
            PSK_TRY(pass(at, views, &tile, psk_block_near_key(&blocks, block)));
        }
    }
    return PSK_OK;
}

psk_query_tile psk_query_tile_at(const psk_attention *at, const psk_attention_views *views, int64_t first,
                                 int64_t end) {
    const bool causal = at->config.direction == PSK_CAUSAL;
    return (psk_query_tile){.first = first,
                            .rows = end - first < PSK_QUERY_TILE ? end - first : PSK_QUERY_TILE,
                            .position = causal ? views->Nk - views->Nq + first : PSK_NO_MASK};
}

int64_t psk_query_tile_keys(const psk_query_tile *tile, int64_t Nk) {
    return tile->position == PSK_NO_MASK ? Nk : tile->position + tile->rows;
}

psk_tile psk_tile_o1(const psk_attention *at, const psk_attention_views *views, const psk_query_tile *tile,
                     int64_t head) {
    const int64_t cols = at->shape.d + 1;
    return psk_tile_in(at->o1 + head * views->groups * tile->rows * cols, tile->rows, cols);
}

psk_status psk_tile_normalise_forward(const psk_attention *at, const psk_attention_views *views,
                                      const psk_query_tile *tile, float beta) {
    for (int64_t e = 0; e < at->rep; e++) {
        const psk_tile out = psk_tile_of(&views->out, e, tile->first, tile->rows);
        const psk_tile den = psk_tile_of(&views->normaliser, e, tile->first, tile->rows);
        PSK_RUN(at->device, normalise_forward, .batch = views->groups, .rows = tile->rows, .d = out.cols,
                .out_stride = out.stride, .den_stride = den.stride, .o1 = psk_tile_o1(at, views, tile, e).data,
                .out = out.data, .den = den.data, .beta = beta);
    }
    return PSK_OK;
}

psk_status psk_tile_normalise_backward(const psk_attention *at, const psk_attention_views *views,
                                       const psk_query_tile *tile) {
    for (int64_t e = 0; e < at->rep; e++) {
        const psk_tile dout = psk_tile_of(&views->dout, e, tile->first, tile->rows);
        const psk_tile out = psk_tile_of(&views->out, e, tile->first, tile->rows);
        const psk_tile den = psk_tile_of(&views->normaliser, e, tile->first, tile->rows);
        PSK_RUN(at->device, normalise_backward, .batch = views->groups, .rows = tile->rows, .d = out.cols,
                .out_stride = out.stride, .den_stride = den.stride, .dout = dout.data, .out = out.data, .den = den.data,
                .dn1 = psk_tile_o1(at, views, tile, e).data);
    }
    return PSK_OK;
}
