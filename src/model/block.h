/* One layer, forward and backward, on the operation table:
 *     x_mid = x + out( attention( rope(q), rope(k), v ) ),   q,k,v = split(qkv(LN_1(x)))
 *     x_out = x_mid + down( u gelu(g) ),                     u,g = halves of up(LN_2(x_mid))
 * in three parts, so that a decoding session can put its cache between them: projections (up to what attention reads),
 * attention, outputs (all after attention). */
#ifndef PSK_BLOCK_H
#define PSK_BLOCK_H

#include "attention/attention.h"
#include "model/params.h"

/* q or k of a layer, and what attention reads instead of it. NULL where the mechanism has no such tensor. */
typedef struct psk_heads {
    float *x;                               /* rope(q): B x H x N x h; rope(k): B x Hkv x N x h */
    float *norm, *norm_mean, *norm_rstd;    /* LN_qk(x), its statistics: B x H x N */
    float *local, *local_mean, *local_rstd; /* q'' or k'': LN_q(x), LN_k(x) */
    float *s;                               /* sketch, of q with the gain of its head, or features: B x H x N x r */
} psk_heads;

/* What forward leaves for backward. T = B N rows. */
typedef struct psk_activations {
    float *n1, *mean1, *rstd1; /* LN_1(x): T x D, T, T */
    psk_heads q, k;
    float *v;                  /* B x Hkv x N x h */
    float *o;                  /* attention's output: B x H x N x h */
    float *normaliser;         /* B x H x N */
    float *rows;               /* o as rows: T x D */
    float *mid;                /* x_mid: T x D */
    float *n2, *mean2, *rstd2; /* LN_2(x_mid): T x D, T, T */
    float *shared;             /* first qkv's rows: T x E; then [u, g]: T x 2F, and u gelu(g): T x F; backward, once the
                                  MLP has been through: psk_block_gradients */
} psk_activations;

/* What is used inside one layer only, shared by all. */
typedef struct psk_block_workspace {
    float *sketch; /* psk_sketch_workspace */
    float *d_o;    /* backward: gradient of o; then of LN_qk(q), of LN_qk(k) */
} psk_block_workspace;

/* Plans them for at most B x N tokens: activations under the category "activations" and names "<name>.n1", ...;
 * workspace under "workspace", with training also what backward needs. */
psk_status psk_block_plan_activations(const psk_model_config *config, int64_t B, int64_t N, const char *name,
                                      psk_arena *arena, psk_activations *out);
psk_status psk_block_plan_workspace(const psk_model_config *config, int64_t B, int64_t N, bool training,
                                    psk_arena *arena, psk_block_workspace *out);

/* One layer at work; everything is borrowed. */
typedef struct psk_block {
    psk_device *device;
    const psk_model_config *config;
    psk_sizes s;
    int64_t B, N; /* of this call; at most those planned */
    int64_t layer;
    psk_layer_pointers weights;
    psk_activations act;
    psk_block_workspace work;
    psk_attention *attention;  /* for B x N tokens; not used by projections and outputs */
    bool all_near;             /* nothing reads sketches, in this call or after: they become 0 */
    const int32_t *positions;  /* B x N */
    const int64_t *cu_seqlens; /* as in psk_attention_tensors */
    int64_t documents;
    float dropout; /* 0: none */
    uint64_t dropout_seed;
} psk_block;

/* The stream of the masks on the embedding's output; those of the layers follow, two a layer. */
#define PSK_DROPOUT_EMBEDDING 0

psk_status psk_block_projections(const psk_block *b, const float *x); /* x -> act.q, act.k, act.v */
psk_status psk_block_attention(const psk_block *b);                   /* -> act.o */

/* Of act.q or act.k: what attention multiplies with each other, NULL where it takes sketches or features only. */
float *psk_block_multiplied(const psk_block *b, const psk_heads *heads);

/* act.o -> x_out; x_out may be x. NULL: everything but x_out, which backward does not need. */
psk_status psk_block_outputs(const psk_block *b, const float *x, float *x_out);

/* The three. */
psk_status psk_block_forward(const psk_block *b, const float *x, float *x_out);

/* dx: dL/dx_out in, dL/dx out, T x D. grads += ; the activations are used up. */
psk_status psk_block_backward(const psk_block *b, const float *x, const psk_layer_pointers *grads, float *dx);

/* y = x w^T, of rows x cols, w: cols x k; the dense layer (here also for the head). */
psk_status psk_linear_forward(psk_device *device, int64_t rows, int64_t k, int64_t cols, const float *x, const float *w,
                              float *y);

/* dw += dy^T x, then dx = dy w. dx may alias x. */
psk_status psk_linear_backward(psk_device *device, int64_t rows, int64_t k, int64_t cols, const float *x,
                               const float *w, const float *dy, float *dw, float *dx);

/* LayerNorm's epsilon, everywhere in the model. */
#define PSK_LAYERNORM_EPS 1e-5f

#endif
