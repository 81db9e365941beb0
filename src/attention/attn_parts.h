/* What the files of src/attention share: the attention object with its workspace, tiles, and products of tiles.
 * For src/attention only. */
#ifndef PSK_ATTN_PARTS_H
#define PSK_ATTN_PARTS_H

#include "attention/attention.h"

/* Queries are worked on 64 rows at a time: enough for a matrix product near peak, little enough that the half of a
 * diagonal tile above the diagonal, computed in vain, stays small beside a block of 256. */
#define PSK_QUERY_TILE 64

/* Keys seen exactly come 256 at a time: the weights of a tile, 64 x 256 floats, fit beside the features into L2. */
#define PSK_KEY_TILE 256

/* Keys are folded into the state 128 at a time: every fold reads and writes the whole state once. */
#define PSK_FOLD_TILE 128

/* Groups are worked on together as long as the workspace stays below this: about one core's share of an L3 cache. */
#define PSK_WORKSPACE_LIMIT (INT64_C(16) << 20)

struct psk_attention {
    psk_device *device;
    psk_attention_config config;
    psk_attention_shape shape;
    psk_arena *arena; /* own; NULL if planned into the caller's */
    int64_t bytes;    /* of workspace */
    int64_t rep;      /* query heads per key/value head */
    int64_t m;        /* rows of a group's state, 0 without a state */
    int64_t slab;     /* groups worked on at once */
    float *fused;     /* the fused operations' workspace; NULL: this configuration is composed here */
    /* Workspace of the composed form for G <= slab groups. rows <= PSK_QUERY_TILE, keys <= PSK_KEY_TILE */
    float *o1;                /* rep x G x rows x (d+1): sum of weights times [v, 1]; backward: dL/do1 */
    float *v1;                /* G x keys x (d+1): [v, 1] */
    float *weights;           /* G x rows x keys */
    float *dweights;          /* G x rows x keys */
    float *row_max, *row_sum; /* G x rows: softmax; backward keeps <dout, out> in row_sum */
    float *features;          /* G x PSK_FOLD_TILE x m */
    float *state;             /* G x m x (d+1): Z; sweep 2 of backward: U = dL/dZ */
};

/* A matrix per group: element (g, i, j) is at data + g stride + i ld + j. */
typedef struct psk_tile {
    float *data;
    int64_t rows, cols, ld, stride;
} psk_tile;

/* Rows first ... first + rows - 1 of a head. */
static inline psk_tile psk_tile_of(const psk_rows *x, int64_t head, int64_t first, int64_t rows) {
    float *data = x->data + head * x->head_stride + first * x->width;
    return (psk_tile){data, rows, x->width, x->width, x->group_stride};
}

/* A contiguous tile in a workspace buffer. */
static inline psk_tile psk_tile_in(float *buffer, int64_t rows, int64_t cols) {
    return (psk_tile){buffer, rows, cols, cols, rows * cols};
}

/* The first cols columns: the values' part of [v, 1] and of its gradient. */
static inline psk_tile psk_tile_columns(psk_tile x, int64_t cols) {
    x.cols = cols;
    return x;
}

/* c = alpha a b + beta c, a b^T, a^T b for each of `groups` groups. */
psk_status psk_tile_ab(psk_device *device, int64_t groups, float alpha, psk_tile a, psk_tile b, float beta, psk_tile c);
psk_status psk_tile_abt(psk_device *device, int64_t groups, float alpha, psk_tile a, psk_tile b, float beta,
                        psk_tile c);
psk_status psk_tile_atb(psk_device *device, int64_t groups, float alpha, psk_tile a, psk_tile b, float beta,
                        psk_tile c);

/* at->v1 as a tile: V1 = [V, 1] of keys first ... first + keys - 1. */
psk_status psk_tile_values(const psk_attention *at, const psk_attention_views *views, int64_t first, int64_t keys,
                           psk_tile *v1);

/* The blocks of a call, counted from key 0. Where near keys are not told from far ones there is one with all of them.
 */
typedef struct psk_blocks {
    int64_t b, lag;     /* tokens of a block; blocks before its own whose keys a query sees pair by pair */
    int64_t shift;      /* query row i is key shift + i */
    int64_t first, end; /* the blocks with queries */
} psk_blocks;

psk_blocks psk_blocks_of(const psk_attention *at, const psk_attention_views *views);

/* The first key of a block that its queries see pair by pair. */
int64_t psk_block_near_key(const psk_blocks *blocks, int64_t block);

/* Its query rows *first ... result - 1. */
int64_t psk_block_queries(const psk_blocks *blocks, const psk_attention_views *views, int64_t block, int64_t *first);

/* Query rows first ... first + rows - 1 with the keys that their first row may see under a causal mask. */
typedef struct psk_query_tile {
    int64_t first, rows;
    int64_t position; /* of the first row among the keys; PSK_NO_MASK: every row sees every key */
} psk_query_tile;

/* The tile at query row `first`, ending before `end`. */
psk_query_tile psk_query_tile_at(const psk_attention *at, const psk_attention_views *views, int64_t first, int64_t end);

/* pass(tile, first_key) for all query rows, each tile inside a block, first_key its psk_block_near_key. */
typedef psk_status psk_tile_pass(const psk_attention *at, const psk_attention_views *views, const psk_query_tile *tile,
                                 int64_t first_key);
psk_status psk_each_query_tile(const psk_attention *at, const psk_attention_views *views, psk_tile_pass *pass);

/* One past the last key that some row of the tile may see. */
int64_t psk_query_tile_keys(const psk_query_tile *tile, int64_t Nk);

/* The mask of the tile against keys from `key` on, as the operations take it. */
static inline int64_t psk_query_tile_offset(const psk_query_tile *tile, int64_t key) {
    return tile->position == PSK_NO_MASK ? PSK_NO_MASK : tile->position - key;
}

/* at->o1 of one head of the tile. */
psk_tile psk_tile_o1(const psk_attention *at, const psk_attention_views *views, const psk_query_tile *tile,
                     int64_t head);

/* out = O1[:, :d] / (beta + O1[:, d]) for all heads of the tile; the denominators are kept as views->normaliser. */
psk_status psk_tile_normalise_forward(const psk_attention *at, const psk_attention_views *views,
                                      const psk_query_tile *tile, float beta);

/* at->o1 = dL/dO1 = [dout / den, -<dout, out> / den] for all heads of the tile. */
psk_status psk_tile_normalise_backward(const psk_attention *at, const psk_attention_views *views,
                                       const psk_query_tile *tile);

/* Quadratic mechanisms, linear with local_only, on at most at->slab groups; gradients are accumulated (+=). */
psk_status psk_softmax_forward(const psk_attention *at, const psk_attention_views *views);
psk_status psk_softmax_backward(const psk_attention *at, const psk_attention_views *views);
psk_status psk_polynomial_forward(const psk_attention *at, const psk_attention_views *views);
psk_status psk_polynomial_backward(const psk_attention *at, const psk_attention_views *views);

#endif
