#include "model/block.h"

#include "attention/attn_performer.h"

#include <stdio.h>

/* -------------------------------------------------------------------------------------------------------------- plan
 */

/* Plans floats under "<prefix>.<name>"; nothing if the tensor is absent. */
typedef struct psk_planner {
    psk_arena *arena;
    const char *category, *prefix;
} psk_planner;

static psk_status plan_if(bool present, const psk_planner *p, const char *name, int64_t count, float **where) {
    char full[96];
    *where = NULL;
    if (!present)
        return PSK_OK;
    snprintf(full, sizeof full, "%s.%s", p->prefix, name);
    return psk_arena_floats(p->arena, p->category, full, count, where);
}

static psk_status plan(const psk_planner *p, const char *name, int64_t count, float **where) {
    return plan_if(true, p, name, count, where);
}

static psk_status plan_heads(const psk_planner *outer, const psk_sizes *s, int64_t rows, const char *name,
                             psk_heads *out) {
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s.%s", outer->prefix, name);
    const psk_planner p = {outer->arena, outer->category, prefix};
    PSK_TRY(plan(&p, "x", rows * s->h, &out->x));
    PSK_TRY(plan_if(s->qk_norm, &p, "norm", rows * s->h, &out->norm));
    PSK_TRY(plan_if(s->qk_norm, &p, "norm_mean", rows, &out->norm_mean));
    PSK_TRY(plan_if(s->qk_norm, &p, "norm_rstd", rows, &out->norm_rstd));
    PSK_TRY(plan_if(s->local_norms, &p, "local", rows * s->h, &out->local));
    PSK_TRY(plan_if(s->local_norms, &p, "local_mean", rows, &out->local_mean));
    PSK_TRY(plan_if(s->local_norms, &p, "local_rstd", rows, &out->local_rstd));
    return plan_if(s->r > 0, &p, "s", rows * s->r, &out->s);
}

/* Floats a token of act.shared: the larger of its two uses. */
static int64_t shared_width(const psk_sizes *s) {
    const int64_t mlp = 3 * s->F, attention = s->E + s->D + 2 * s->Hkv * s->h + (s->H + s->Hkv) * s->r;
    return mlp > attention ? mlp : attention;
}

psk_status psk_block_plan_activations(const psk_model_config *config, int64_t B, int64_t N, const char *name,
                                      psk_arena *arena, psk_activations *out) {
    const psk_sizes s = psk_sizes_of(config);
    const int64_t T = B * N;
    const psk_planner p = {arena, "activations", name};
    PSK_TRY(plan(&p, "n1", T * s.D, &out->n1));
    PSK_TRY(plan(&p, "mean1", T, &out->mean1));
    PSK_TRY(plan(&p, "rstd1", T, &out->rstd1));
    PSK_TRY(plan_heads(&p, &s, T * s.H, "q", &out->q));
    PSK_TRY(plan_heads(&p, &s, T * s.Hkv, "k", &out->k));
    PSK_TRY(plan(&p, "v", T * s.Hkv * s.h, &out->v));
    PSK_TRY(plan(&p, "o", T * s.D, &out->o));
    PSK_TRY(plan(&p, "normaliser", T * s.H, &out->normaliser));
    PSK_TRY(plan(&p, "rows", T * s.D, &out->rows));
    PSK_TRY(plan(&p, "mid", T * s.D, &out->mid));
    PSK_TRY(plan(&p, "n2", T * s.D, &out->n2));
    PSK_TRY(plan(&p, "mean2", T, &out->mean2));
    PSK_TRY(plan(&p, "rstd2", T, &out->rstd2));
    return plan(&p, "shared", T * shared_width(&s), &out->shared);
}

psk_status psk_block_plan_workspace(const psk_model_config *config, int64_t B, int64_t N, bool training,
                                    psk_arena *arena, psk_block_workspace *out) {
    const psk_sizes s = psk_sizes_of(config);
    const int64_t T = B * N;
    const psk_planner p = {arena, "workspace", "layer"};
    PSK_TRY(
        plan_if(s.sketch, &p, "sketch", s.sketch ? psk_sketch_workspace(&config->attention, s.h) : 0, &out->sketch));
    return plan_if(training, &p, "d_o", T * s.D, &out->d_o);
}

/* ------------------------------------------------------------------------------------------- what shares act.shared
 */

/* Gradients inside attention's half of a layer. */
typedef struct psk_block_gradients {
    float *qkv;          /* T x E: that of qkv's rows */
    float *dq, *dk, *dv; /* of q'' or q' and then of q, ... */
    float *ds_q, *ds_k;  /* of q.s, k.s; NULL where there are none */
} psk_block_gradients;

static int64_t rows_of(const psk_block *b) {
    return b->B * b->N;
}

static float *qkv_of(const psk_block *b) {
    return b->act.shared;
}

static float *up_of(const psk_block *b) {
    return b->act.shared;
}

static float *hidden_of(const psk_block *b) {
    return b->act.shared + rows_of(b) * 2 * b->s.F;
}

static psk_block_gradients gradients_of(const psk_block *b) {
    const int64_t T = rows_of(b), kv = b->s.Hkv * b->s.h;
    psk_block_gradients g = {.qkv = b->act.shared};
    g.dq = g.qkv + T * b->s.E;
    g.dk = g.dq + T * b->s.D;
    g.dv = g.dk + T * kv;
    if (b->s.r > 0) {
        g.ds_q = g.dv + T * kv;
        g.ds_k = g.ds_q + T * b->s.H * b->s.r;
    }
    return g;
}

/* ------------------------------------------------------------------------------------------------------- dense layers
 */

psk_status psk_linear_forward(psk_device *device, int64_t rows, int64_t k, int64_t cols, const float *x, const float *w,
                              float *y) {
    PSK_RUN(device, matmul, .batch = 1, .m = rows, .n = cols, .k = k, .a = x, .lda = k, .b = w, .ldb = k,
            .b_orientation = PSK_TRANSPOSED, .c = y, .ldc = cols, .alpha = 1);
    return PSK_OK;
}

psk_status psk_linear_backward(psk_device *device, int64_t rows, int64_t k, int64_t cols, const float *x,
                               const float *w, const float *dy, float *dw, float *dx) {
    PSK_RUN(device, matmul, .batch = 1, .m = cols, .n = k, .k = rows, .a = dy, .lda = cols,
            .a_orientation = PSK_TRANSPOSED, .b = x, .ldb = k, .c = dw, .ldc = k, .alpha = 1, .beta = 1);
    PSK_RUN(device, matmul, .batch = 1, .m = rows, .n = k, .k = cols, .a = dy, .lda = cols, .b = w, .ldb = k, .c = dx,
            .ldc = k, .alpha = 1);
    return PSK_OK;
}

/* y += x, n numbers */
static psk_status add(psk_device *device, int64_t n, const float *x, float *y) {
    PSK_RUN(device, copy, .batch = 1, .rows = 1, .n = n, .x_ld = n, .y_ld = n, .x = x, .y = y, .alpha = 1,
            .write = PSK_ADD);
    return PSK_OK;
}

/* ------------------------------------------------------------------------------------------------------------ dropout
 */

enum { PSK_SITE_ATTENTION, PSK_SITE_MLP, PSK_SITES };

/* Forward and backward alike: the mask depends on seed and stream alone. */
static psk_status drop(const psk_block *b, int64_t site, float *x) {
    if (b->dropout > 0)
        PSK_RUN(b->device, dropout, .n = rows_of(b) * b->s.D, .x = x, .p = b->dropout, .seed = b->dropout_seed,
                .stream = (uint64_t)(PSK_DROPOUT_EMBEDDING + 1 + PSK_SITES * b->layer + site));
    return PSK_OK;
}

/* ------------------------------------------------------------------------------------------------------------ forward
 */

/* One of the two sides of attention: q with its weights, or k with its own. */
typedef struct psk_side {
    const psk_heads *heads;
    int64_t rows;                           /* B H N or B Hkv N */
    const float *local_weight, *local_bias; /* of LN_q or LN_k */
} psk_side;

static psk_side query_side(const psk_block *b) {
    return (psk_side){&b->act.q, b->B * b->s.H * b->N, b->weights.q_norm_weight, b->weights.q_norm_bias};
}

static psk_side key_side(const psk_block *b) {
    return (psk_side){&b->act.k, b->B * b->s.Hkv * b->N, b->weights.k_norm_weight, b->weights.k_norm_bias};
}

/* What is sketched: the network has LayerNorms of its own, the other forms take LN_qk(x). */
static const float *sketched(const psk_block *b, const psk_heads *heads) {
    return b->s.learned ? heads->x : heads->norm;
}

/* x -> LN_qk(x), x'', s: what the mechanism reads of them. */
static psk_status side_forward(const psk_block *b, psk_side side) {
    const psk_heads *heads = side.heads;
    const int64_t rows = side.rows, h = b->s.h;
    const bool unread = b->s.sketch && b->all_near;
    if (b->s.qk_norm && !unread)
        PSK_RUN(b->device, layernorm_forward, .rows = rows, .n = h, .x = heads->x, .weight = b->weights.qk_norm_weight,
                .bias = b->weights.qk_norm_bias, .y = heads->norm, .mean = heads->norm_mean, .rstd = heads->norm_rstd,
                .eps = PSK_LAYERNORM_EPS);
    if (b->s.local_norms)
        PSK_RUN(b->device, layernorm_forward, .rows = rows, .n = h, .x = heads->x, .weight = side.local_weight,
                .bias = side.local_bias, .y = heads->local, .mean = heads->local_mean, .rstd = heads->local_rstd,
                .eps = PSK_LAYERNORM_EPS);
    if (unread)
        PSK_RUN(b->device, fill, .n = rows * b->s.r, .x = heads->s, .value = 0.0f);
    else if (b->s.sketch)
        PSK_TRY(psk_sketch_forward(b->device, &b->config->attention, h, rows, sketched(b, heads), &b->weights.sketch,
                                   heads->s, b->work.sketch));
    if (b->s.performer)
        PSK_TRY(psk_performer_features_forward(b->device, h, b->s.r, rows, heads->x, b->weights.projection, heads->s));
    return PSK_OK;
}

/* The gain of each head on what the query's sketch sees. */
static bool has_gain(const psk_block *b) {
    return b->s.far_gain && !b->all_near;
}

/* a = exp(g_e / 2) s(q): far weights <a,b>^2 times exp(g_e), in every form of attention */
static psk_status gain_forward(const psk_block *b) {
    if (has_gain(b))
        PSK_RUN(b->device, head_gain_forward, .B = b->B, .H = b->s.H, .n = b->N * b->s.r, .gain = b->weights.far_gain,
                .x = b->act.q.s, .y = b->act.q.s);
    return PSK_OK;
}

psk_status psk_block_projections(const psk_block *b, const float *x) {
    const psk_activations *act = &b->act;
    const int64_t T = rows_of(b);
    PSK_RUN(b->device, layernorm_forward, .rows = T, .n = b->s.D, .x = x, .weight = b->weights.ln_1_weight,
            .bias = b->weights.ln_1_bias, .y = act->n1, .mean = act->mean1, .rstd = act->rstd1,
            .eps = PSK_LAYERNORM_EPS);
    PSK_TRY(psk_linear_forward(b->device, T, b->s.D, b->s.E, act->n1, b->weights.qkv, qkv_of(b)));
    PSK_RUN(b->device, split_heads_forward, .B = b->B, .N = b->N, .H = b->s.H, .Hkv = b->s.Hkv, .h = b->s.h,
            .qkv = qkv_of(b), .positions = b->positions, .q = act->q.x, .k = act->k.x, .v = act->v,
            .kv_stride = b->N * b->s.h);
    PSK_TRY(side_forward(b, query_side(b)));
    PSK_TRY(gain_forward(b));
    return side_forward(b, key_side(b));
}

float *psk_block_multiplied(const psk_block *b, const psk_heads *heads) {
    if (!psk_attention_uses_qk(&b->config->attention))
        return NULL;
    if (b->s.local_norms)
        return heads->local;
    return b->s.qk_norm ? heads->norm : heads->x;
}

static psk_attention_tensors attention_tensors(const psk_block *b) {
    return (psk_attention_tensors){
        .q = psk_block_multiplied(b, &b->act.q),
        .k = psk_block_multiplied(b, &b->act.k),
        .v = b->act.v,
        .a = b->act.q.s,
        .b = b->act.k.s,
        .cu_seqlens = b->cu_seqlens,
        .documents = b->documents,
        .out = b->act.o,
        .normaliser = b->act.normaliser,
    };
}

psk_status psk_block_attention(const psk_block *b) {
    const psk_attention_tensors tensors = attention_tensors(b);
    return psk_attention_forward(b->attention, &tensors);
}

psk_status psk_block_outputs(const psk_block *b, const float *x, float *x_out) {
    const psk_activations *act = &b->act;
    const int64_t T = rows_of(b), D = b->s.D, F = b->s.F;
    PSK_RUN(b->device, transpose_heads, .B = b->B, .P = b->s.H, .Q = b->N, .n = b->s.h, .x = act->o, .y = act->rows);
    PSK_TRY(psk_linear_forward(b->device, T, D, D, act->rows, b->weights.out, act->mid));
    PSK_TRY(drop(b, PSK_SITE_ATTENTION, act->mid));
    PSK_TRY(add(b->device, T * D, x, act->mid));
    PSK_RUN(b->device, layernorm_forward, .rows = T, .n = D, .x = act->mid, .weight = b->weights.ln_2_weight,
            .bias = b->weights.ln_2_bias, .y = act->n2, .mean = act->mean2, .rstd = act->rstd2,
            .eps = PSK_LAYERNORM_EPS);
    PSK_TRY(psk_linear_forward(b->device, T, D, 2 * F, act->n2, b->weights.up, up_of(b)));
    PSK_RUN(b->device, geglu_forward, .rows = T, .F = F, .x = up_of(b), .y = hidden_of(b));
    if (x_out == NULL)
        return PSK_OK;
    PSK_TRY(psk_linear_forward(b->device, T, F, D, hidden_of(b), b->weights.down, x_out));
    PSK_TRY(drop(b, PSK_SITE_MLP, x_out));
    return add(b->device, T * D, act->mid, x_out);
}

psk_status psk_block_forward(const psk_block *b, const float *x, float *x_out) {
    PSK_TRY(psk_block_projections(b, x));
    PSK_TRY(psk_block_attention(b));
    return psk_block_outputs(b, x, x_out);
}

/* ----------------------------------------------------------------------------------------------------------- backward
 */

/* A copy of dx with the mask of `site`, or dx itself. */
static psk_status dropped_gradient(const psk_block *b, int64_t site, float *dx, float *copy, float **out) {
    *out = dx;
    if (!(b->dropout > 0))
        return PSK_OK;
    const int64_t n = rows_of(b) * b->s.D;
    PSK_RUN(b->device, copy, .batch = 1, .rows = 1, .n = n, .x_ld = n, .y_ld = n, .x = dx, .y = copy, .alpha = 1);
    *out = copy;
    return drop(b, site, copy);
}

/* dx += the way through x_mid -> LN_2 -> up -> geglu -> down */
static psk_status mlp_backward(const psk_block *b, const psk_layer_pointers *grads, float *dx) {
    const psk_activations *act = &b->act;
    const int64_t T = rows_of(b), D = b->s.D, F = b->s.F;
    float *const up = up_of(b), *const hidden = hidden_of(b);
    float *d_down;
    PSK_TRY(dropped_gradient(b, PSK_SITE_MLP, dx, b->work.d_o, &d_down));
    PSK_TRY(psk_linear_backward(b->device, T, F, D, hidden, b->weights.down, d_down, grads->down, hidden));
    PSK_RUN(b->device, geglu_backward, .rows = T, .F = F, .x = up, .dy = hidden, .dx = up);
    PSK_TRY(psk_linear_backward(b->device, T, D, 2 * F, act->n2, b->weights.up, up, grads->up, act->n2));
    PSK_RUN(b->device, layernorm_backward, .rows = T, .n = D, .x = act->mid, .weight = b->weights.ln_2_weight,
            .mean = act->mean2, .rstd = act->rstd2, .dy = act->n2, .dx = dx, .dweight = grads->ln_2_weight,
            .dbias = grads->ln_2_bias, .dx_write = PSK_ADD);
    return PSK_OK;
}

/* Where the gradients of a side are. */
typedef struct psk_side_grads {
    float *dx;                        /* that of what attention multiplies in, that of x out */
    float *ds;                        /* of s */
    float *local_weight, *local_bias; /* of the weights of LN_q or LN_k */
} psk_side_grads;

/* LN_qk: dx (=, +=) from dy; dy may be dx if =. */
static psk_status qk_norm_backward(const psk_block *b, psk_side side, const psk_layer_pointers *grads, const float *dy,
                                   float *dx, psk_write write) {
    PSK_RUN(b->device, layernorm_backward, .rows = side.rows, .n = b->s.h, .x = side.heads->x,
            .weight = b->weights.qk_norm_weight, .mean = side.heads->norm_mean, .rstd = side.heads->norm_rstd, .dy = dy,
            .dx = dx, .dweight = grads->qk_norm_weight, .dbias = grads->qk_norm_bias, .dx_write = write);
    return PSK_OK;
}

/* s = sketch(x) or sketch(LN_qk(x)): dx (=, +=) from ds */
static psk_status sketch_side_backward(const psk_block *b, psk_side side, psk_layer_pointers grads, psk_side_grads d,
                                       psk_write write) {
    psk_sketch_backward_args args = {
        .h = b->s.h,
        .rows = side.rows,
        .x = sketched(b, side.heads),
        .s = side.heads->s,
        .ds = d.ds,
        .params = &b->weights.sketch,
        .dx = b->s.learned ? d.dx : b->work.d_o, /* d_o is free once attention has been through */
        .dx_write = b->s.learned ? write : PSK_SET,
        .grads = &grads.sketch_grads,
        .workspace = b->work.sketch,
    };
    PSK_TRY(psk_sketch_backward(b->device, &b->config->attention, &args));
    return b->s.learned ? PSK_OK : qk_norm_backward(b, side, &grads, b->work.d_o, d.dx, write);
}

/* Inverts side_forward. */
static psk_status side_backward(const psk_block *b, psk_side side, const psk_layer_pointers *grads, psk_side_grads d) {
    if (b->s.performer) {
        const psk_performer_backward_args args = {.h = b->s.h,
                                                  .m = b->s.r,
                                                  .rows = side.rows,
                                                  .x = side.heads->x,
                                                  .projection = b->weights.projection,
                                                  .f = side.heads->s,
                                                  .df = d.ds,
                                                  .dx = d.dx};
        return psk_performer_features_backward(b->device, &args);
    }
    if (b->s.local_norms)
        PSK_RUN(b->device, layernorm_backward, .rows = side.rows, .n = b->s.h, .x = side.heads->x,
                .weight = side.local_weight, .mean = side.heads->local_mean, .rstd = side.heads->local_rstd, .dy = d.dx,
                .dx = d.dx, .dweight = d.local_weight, .dbias = d.local_bias);
    if (b->s.sketch && b->all_near)
        return PSK_OK;
    if (b->s.sketch)
        return sketch_side_backward(b, side, *grads, d, b->s.local_norms ? PSK_ADD : PSK_SET);
    return b->s.qk_norm ? qk_norm_backward(b, side, grads, d.dx, d.dx, PSK_SET) : PSK_OK;
}

/* da -> ds(q) in its place, and dg; act.q.s is s(q) again */
static psk_status gain_backward(const psk_block *b, float *ds_q, float *dgain) {
    if (has_gain(b))
        PSK_RUN(b->device, head_gain_backward, .B = b->B, .H = b->s.H, .n = b->N * b->s.r, .gain = b->weights.far_gain,
                .y = b->act.q.s, .dy = ds_q, .x = b->act.q.s, .dx = ds_q, .dgain = dgain);
    return PSK_OK;
}

/* d_o -> dq, dk, dv -> gradient of qkv's rows */
static psk_status heads_backward(const psk_block *b, const psk_layer_pointers *grads) {
    const psk_block_gradients d = gradients_of(b);
    const bool multiplies = psk_attention_uses_qk(&b->config->attention);
    psk_attention_tensors tensors = attention_tensors(b);
    tensors.dout = b->work.d_o;
    tensors.dq = multiplies ? d.dq : NULL;
    tensors.dk = multiplies ? d.dk : NULL;
    tensors.dv = d.dv;
    tensors.da = d.ds_q;
    tensors.db = d.ds_k;
    PSK_TRY(psk_attention_backward(b->attention, &tensors));
    PSK_TRY(gain_backward(b, d.ds_q, grads->far_gain));
    PSK_TRY(side_backward(b, query_side(b), grads,
                          (psk_side_grads){d.dq, d.ds_q, grads->q_norm_weight, grads->q_norm_bias}));
    PSK_TRY(
        side_backward(b, key_side(b), grads, (psk_side_grads){d.dk, d.ds_k, grads->k_norm_weight, grads->k_norm_bias}));
    PSK_RUN(b->device, split_heads_backward, .B = b->B, .N = b->N, .H = b->s.H, .Hkv = b->s.Hkv, .h = b->s.h,
            .dq = d.dq, .dk = d.dk, .dv = d.dv, .positions = b->positions, .dqkv = d.qkv);
    return PSK_OK;
}

/* dx += the way through x -> LN_1 -> qkv -> attention -> out */
static psk_status attention_backward(const psk_block *b, const float *x, const psk_layer_pointers *grads, float *dx) {
    const psk_activations *act = &b->act;
    const int64_t T = rows_of(b), D = b->s.D;
    float *d_out;
    PSK_TRY(dropped_gradient(b, PSK_SITE_ATTENTION, dx, act->mid, &d_out));
    PSK_TRY(psk_linear_backward(b->device, T, D, D, act->rows, b->weights.out, d_out, grads->out, act->rows));
    PSK_RUN(b->device, transpose_heads, .B = b->B, .P = b->N, .Q = b->s.H, .n = b->s.h, .x = act->rows,
            .y = b->work.d_o);
    PSK_TRY(heads_backward(b, grads));
    PSK_TRY(psk_linear_backward(b->device, T, D, b->s.E, act->n1, b->weights.qkv, gradients_of(b).qkv, grads->qkv,
                                act->n1));
    PSK_RUN(b->device, layernorm_backward, .rows = T, .n = D, .x = x, .weight = b->weights.ln_1_weight,
            .mean = act->mean1, .rstd = act->rstd1, .dy = act->n1, .dx = dx, .dweight = grads->ln_1_weight,
            .dbias = grads->ln_1_bias, .dx_write = PSK_ADD);
    return PSK_OK;
}

psk_status psk_block_backward(const psk_block *b, const float *x, const psk_layer_pointers *grads, float *dx) {
    PSK_TRY(mlp_backward(b, grads, dx));
    return attention_backward(b, x, grads, dx);
}
