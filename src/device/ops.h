/* The contract between everything above and a device: one table of operations.
 *
 * Common to all entries, unless an entry says otherwise:
 *   - Tensors are float32, row-major; the last index is contiguous. B batch, N tokens, H heads, h head size, r sketch
 * size, D width, F MLP width, V vocabulary.
 *   - "G x rows x n, leading dimension ld, stride s": element (g, i, j) is at x[g * s + i * ld + j].
 *   - Outputs never alias inputs, except where "in place" is said.
 *   - Sums run in float32 or better; the result does not depend on the number of threads.
 *   - Sizes may be 0 (then nothing is read or written); negative sizes are a broken contract (PSK_ASSERT).
 *   - An entry allocates nothing after the first call with a given shape.
 *   - PSK_SET writes (=), PSK_ADD accumulates (+=).
 *   - Returns PSK_OK, or an error with a message (out of memory, a failure inside a library).
 * A device serves one thread at a time.
 */
#ifndef PSK_OPS_H
#define PSK_OPS_H

#include "base/bf16.h"
#include "base/status.h"

#include <stdint.h>

typedef enum { PSK_SET, PSK_ADD } psk_write;
typedef enum { PSK_PLAIN, PSK_TRANSPOSED } psk_orientation;

/* A mask over a tile of weights. Row i may see column j iff j <= i + offset (causal); PSK_NO_MASK lets it see all. */
#define PSK_NO_MASK INT64_MAX

/* C[g] = alpha op(A[g]) op(B[g]) + beta C[g] for g < batch. op(A) is m x k, op(B) k x n, C m x n.
 * A is stored m x k with leading dimension lda (k x m if a_orientation is PSK_TRANSPOSED), B likewise. A stride may be
 * 0. beta == 0: C is only written (it may hold NaN). k == 0: C = beta C. */
typedef struct psk_matmul_args {
    int64_t batch, m, n, k;
    const float *a;
    int64_t lda, a_stride;
    psk_orientation a_orientation;
    const float *b;
    int64_t ldb, b_stride;
    psk_orientation b_orientation;
    float *c;
    int64_t ldc, c_stride;
    float alpha, beta;
} psk_matmul_args;

/* out[j] += sum_i x[i, j].   x: rows x n, out: n */
typedef struct psk_column_sum_args {
    int64_t rows, n;
    const float *x;
    float *out;
} psk_column_sum_args;

/* Weights rounded to bfloat16, in the order in which a product with few rows reads them: panels of 16 columns, in each
 * the pairs along k. Element (l, j) of the k x n matrix is number ((j / 16 ceil(k/2) + l / 2) 16 + j mod 16) 2 + l mod
 * 2; what lies beyond k or n is 0. */
#define PSK_PANEL 16
static inline int64_t psk_panel_numbers(int64_t n, int64_t k) {
    return (n + PSK_PANEL - 1) / PSK_PANEL * ((k + 1) / 2) * 2 * PSK_PANEL;
}

/* y = alpha x op(w) + beta y, for few rows and weights that are read once: row i of y depends on row i of x alone, bit
 * for bit, whatever the other rows are and however many. op(w) is k x n, stored n x k if w_orientation is
 * PSK_TRANSPOSED. panels: op(w) as panels, read instead of w; x is then rounded to bfloat16 too, sums stay in float32.
 * NULL: float32. beta == 0: y is only written.   x: rows x k, y: rows x n, leading dimensions x_ld, w_ld, y_ld */
typedef struct psk_row_products_args {
    int64_t rows, n, k;
    const float *x;
    int64_t x_ld;
    const float *w;
    int64_t w_ld;
    psk_orientation w_orientation;
    const psk_bf16 *panels;
    float *y;
    int64_t y_ld;
    float alpha, beta;
} psk_row_products_args;

/* panels = op(w), psk_panel_numbers(n, k) of them; w as for row_products. */
typedef struct psk_pack_panels_args {
    int64_t n, k;
    const float *w;
    int64_t w_ld;
    psk_orientation w_orientation;
    psk_bf16 *panels;
} psk_pack_panels_args;

/* y = x rounded to bfloat16.   x, y: rows x n, leading dimensions x_ld, y_ld */
typedef struct psk_round_rows_args {
    int64_t rows, n, x_ld, y_ld;
    const float *x;
    psk_bf16 *y;
} psk_round_rows_args;

/* y = (x - mean) rstd weight + bias over each row, mean and rstd = 1 / sqrt(var + eps) kept for backward.
 * x, y: rows x n (in place allowed); weight, bias: n; mean, rstd: rows. Variance is the biased one (PyTorch's). */
typedef struct psk_layernorm_forward_args {
    int64_t rows, n;
    const float *x, *weight, *bias;
    float *y, *mean, *rstd;
    float eps;
} psk_layernorm_forward_args;

/* dx (=, +=) dL/dx; dweight +=, dbias +=.  dx may alias dy when dx_write is PSK_SET. */
typedef struct psk_layernorm_backward_args {
    int64_t rows, n;
    const float *x, *weight, *mean, *rstd, *dy;
    float *dx, *dweight, *dbias;
    psk_write dx_write;
} psk_layernorm_backward_args;

/* y = u gelu(g) for each row [u, g] of x; gelu(g) = g/2 (1 + tanh(sqrt(2/pi) (g + 0.044715 g^3))).   x: rows x 2F, y:
 * rows x F */
typedef struct psk_geglu_forward_args {
    int64_t rows, F;
    const float *x;
    float *y;
} psk_geglu_forward_args;

/* dx = dL/dx.   dx: rows x 2F, may alias x. dy: rows x F */
typedef struct psk_geglu_backward_args {
    int64_t rows, F;
    const float *x, *dy;
    float *dx;
} psk_geglu_backward_args;

/* y = gelu(x), in place allowed.   n elements */
typedef struct psk_gelu_forward_args {
    int64_t n;
    const float *x;
    float *y;
} psk_gelu_forward_args;

/* dx = dy gelu'(x), dx may alias dy or x. */
typedef struct psk_gelu_backward_args {
    int64_t n;
    const float *x, *dy;
    float *dx;
} psk_gelu_backward_args;

/* y = scale a b, element by element; y may alias a or b. The product of the two halves of a sketch. */
typedef struct psk_product_forward_args {
    int64_t n;
    const float *a, *b;
    float *y;
    float scale;
} psk_product_forward_args;

/* da = scale dy b, db = scale dy a.  da may alias b only if db aliases a (and so on): both inputs of an element are
 * read first. da or db may alias dy. */
typedef struct psk_product_backward_args {
    int64_t n;
    const float *a, *b, *dy;
    float *da, *db;
    float scale;
} psk_product_backward_args;

/* y = c tanh(a b / c), the closing step of the learned sketch (c = sqrt(r)); y may alias a or b. */
typedef struct psk_tanh_product_forward_args {
    int64_t n;
    const float *a, *b;
    float *y;
    float c;
} psk_tanh_product_forward_args;

/* With t = y / c: da = dy (1 - t^2) b, db = dy (1 - t^2) a. Aliasing as for product_backward; da, db may alias y too.
 */
typedef struct psk_tanh_product_backward_args {
    int64_t n;
    const float *a, *b, *y, *dy;
    float *da, *db;
    float c;
} psk_tanh_product_backward_args;

/* x[t] = wte[tokens[t]] + c P[positions[t]], c = position_scale, P[n] = (sin n theta_0, cos n theta_0, sin n theta_1,
 * ...), theta_i = 10000^(-i/(D/2)). tokens, positions: rows (0 <= token < V is checked by the caller); wte: V x D; x:
 * rows x D; D may be odd (last one a sine). The angle is formed in double: positions reach millions. */
typedef struct psk_embedding_forward_args {
    int64_t rows, D;
    const int32_t *tokens, *positions;
    const float *wte;
    float *x;
    float position_scale;
} psk_embedding_forward_args;

/* dwte[tokens[t]] += dx[t], in the order of t. */
typedef struct psk_embedding_backward_args {
    int64_t rows, D, V;
    const int32_t *tokens;
    const float *dx;
    float *dwte;
} psk_embedding_backward_args;

/* With z = logits + bias: loss[t] = log(sum_v exp z_v) - z_target (nats), 0 where targets[t] < 0 (ignored).
 * If scale != 0, logits become dL/dz = scale (softmax(z) - onehot(target)), 0 where ignored; if scale == 0 they are
 * left alone. logits: rows x V; bias: V or NULL; targets, loss: rows. Sums in float64 or with compensation. */
typedef struct psk_cross_entropy_args {
    int64_t rows, V;
    float *logits;
    const float *bias;
    const int32_t *targets;
    float *loss;
    float scale;
} psk_cross_entropy_args;

/* x[i] = keep(i) ? x[i] / (1 - p) : 0, in place; keep(i) = word (i mod 4) of psk_philox(seed, stream, i / 4) >= p 2^32.
 * 0 <= p < 1. Its own backward: the same call on the gradient. */
typedef struct psk_dropout_args {
    int64_t n;
    float *x;
    float p;
    uint64_t seed, stream;
} psk_dropout_args;

/* From the rows of qkv to heads: q = rope(.), k = rope(.), v. qkv: B N x (H h + 2 Hkv h), all q heads, then k, then v.
 * q: B x H x N x h; k, v: B x Hkv x N x h, head (b, j) starting at k + (b Hkv + j) kv_stride (kv_stride >= N h leaves
 * room for a cache). rope turns pairs (x_2i, x_2i+1) by the angle positions[b N + n] 10000^(-2i/h), result (i, h/2 +
 * i): first halves, then second halves. For odd h the last element is left in its place. positions: B N. */
typedef struct psk_split_heads_forward_args {
    int64_t B, N, H, Hkv, h;
    const float *qkv;
    const int32_t *positions;
    float *q, *k, *v;
    int64_t kv_stride;
} psk_split_heads_forward_args;

/* dqkv = the inverse rotation of dq, dk, and dv. Layouts as forward with kv_stride = N h. */
typedef struct psk_split_heads_backward_args {
    int64_t B, N, H, Hkv, h;
    const float *dq, *dk, *dv;
    const int32_t *positions;
    float *dqkv;
} psk_split_heads_backward_args;

/* y[b, j, i, :] = x[b, i, j, :].   x: B x P x Q x n, y: B x Q x P x n. Heads to rows and back. */
typedef struct psk_transpose_heads_args {
    int64_t B, P, Q, n;
    const float *x;
    float *y;
} psk_transpose_heads_args;

/* y = exp(gain_e / 2) x for head e of each sequence; in place allowed. Squares of inner products with x grow by
 * exp(gain_e).   x, y: B x H x n (n: all numbers of a head); gain: H, |gain_e| < 170, so that its exponential has an
 * inverse */
typedef struct psk_head_gain_forward_args {
    int64_t B, H, n;
    const float *gain, *x;
    float *y;
} psk_head_gain_forward_args;

/* From y of forward: dgain_e += <y, dy> / 2 over all sequences, x = exp(-gain_e / 2) y, dx = exp(gain_e / 2) dy.
 * x may be y, dx may be dy. */
typedef struct psk_head_gain_backward_args {
    int64_t B, H, n;
    const float *gain, *y, *dy;
    float *x, *dx, *dgain;
} psk_head_gain_backward_args;

/* w = scale s^p where the mask lets it through, 0 elsewhere; in place (w may equal s). p >= 1.
 * s, w: batch x rows x cols, leading dimension ld, stride `stride`. Masked s may hold anything, NaN too. */
typedef struct psk_power_weights_forward_args {
    int64_t batch, rows, cols, ld, stride, p, offset;
    const float *s;
    float *w;
    float scale;
} psk_power_weights_forward_args;

/* From scores s and dL/dw: w (as forward) and ds = scale p s^(p-1) dw, 0 where masked. w may alias s, ds may alias dw.
 * w may be NULL. All of the same layout. */
typedef struct psk_power_weights_backward_args {
    int64_t batch, rows, cols, ld, stride, p, offset;
    const float *s, *dw;
    float *w, *ds;
    float scale;
} psk_power_weights_backward_args;

/* The symmetric product of each row, packed: y[e(i,j)] = scale f x_i x_j for i <= j, f = off_diagonal for i < j and 1
 * for i == j; e runs over (0,0), (0,1), ..., (0,r-1), (1,1), ...: m = r (r+1) / 2 numbers. With off_diagonal 2 on one
 * side and 1 on the other <y_q, y_k> = scale_q scale_k <x_q, x_k>^2: psi_q and psi_k of the block algorithm. x: batch x
 * rows x r, contiguous rows, stride x_stride; y: batch x rows x m, stride y_stride. */
typedef struct psk_pack_features_forward_args {
    int64_t batch, rows, r, x_stride, y_stride;
    const float *x;
    float *y;
    float scale, off_diagonal;
} psk_pack_features_forward_args;

/* dx (=, +=): dx_i = scale (2 dy_(i,i) x_i + off_diagonal sum_(j != i) dy_(i,j) x_j). dx has the layout of x, dy that
 * of y. */
typedef struct psk_pack_features_backward_args {
    int64_t batch, rows, r, x_stride, y_stride;
    const float *x, *dy;
    float *dx;
    float scale, off_diagonal;
    psk_write dx_write;
} psk_pack_features_backward_args;

/* FAVOR+ features (Choromanski et al. 2021, positive form): f_w = (exp(u_w - |x|^2 / (2 sqrt(h))) + 1e-6) / sqrt(m), u
 * = <x, w> / h^(1/4) already formed by a matmul. u, f: rows x m, in place allowed; x: rows x h. */
typedef struct psk_performer_features_forward_args {
    int64_t rows, h, m;
    const float *u, *x;
    float *f;
} psk_performer_features_forward_args;

/* du_w = df_w (f_w - 1e-6 / sqrt(m)), may alias df; dx = - x / sqrt(h) sum_w du_w. The path through u is the caller's
 * matmul. */
typedef struct psk_performer_features_backward_args {
    int64_t rows, h, m;
    const float *f, *x, *df;
    float *du, *dx;
} psk_performer_features_backward_args;

/* y = [x, 1]: V1, the values with the normaliser's column.   x: batch x rows x d, stride x_stride; y: batch x rows x
 * (d+1), contiguous */
typedef struct psk_append_one_args {
    int64_t batch, rows, d, x_stride;
    const float *x;
    float *y;
} psk_append_one_args;

/* den = beta + o1[.., d], out = o1[.., :d] / den.  o1: batch x rows x (d+1), contiguous; out: batch x rows x d, stride
 * out_stride; den: batch x rows, stride den_stride. den == 0 (only if beta is 0 and every weight is 0) gives out = 0.
 */
typedef struct psk_normalise_forward_args {
    int64_t batch, rows, d, out_stride, den_stride;
    const float *o1;
    float *out, *den;
    float beta;
} psk_normalise_forward_args;

/* dn1 = [dout / den, -<dout, out> / den] = dL/do1 (0 where den == 0).   dout, out: stride out_stride; dn1: batch x rows
 * x (d+1), contiguous */
typedef struct psk_normalise_backward_args {
    int64_t batch, rows, d, out_stride, den_stride;
    const float *dout, *out, *den;
    float *dn1;
} psk_normalise_backward_args;

/* One tile of softmax attention with a running maximum (FlashAttention): for each row
 *     new = max(row_max, max_j s_j);  p_j = exp(s_j - new) (0 where masked);  c = exp(row_max - new)
 *     row_sum = c row_sum + sum_j p_j;  o *= c;  row_max = new
 * s -> p in place. s: batch x rows x cols, contiguous; row_max, row_sum: batch x rows (start: -INFINITY, 0); o: batch x
 * rows x d, contiguous. A row with nothing to see yet keeps row_max = -INFINITY and p = 0. */
typedef struct psk_softmax_tile_forward_args {
    int64_t batch, rows, cols, d, offset;
    float *s, *row_max, *row_sum, *o;
} psk_softmax_tile_forward_args;

/* p = exp(s - lse) (0 where masked) into s; ds = scale p (dp - delta) into dp. s, dp: batch x rows x cols, contiguous;
 * lse, delta: batch x rows, strides lse_stride, delta_stride. */
typedef struct psk_softmax_tile_backward_args {
    int64_t batch, rows, cols, offset, lse_stride, delta_stride;
    float *s, *dp;
    const float *lse, *delta;
    float scale;
} psk_softmax_tile_backward_args;

/* out = o / row_sum, lse = row_max + log(row_sum).   o: batch x rows x d, contiguous; out, lse with strides as for
 * normalise */
typedef struct psk_softmax_finish_args {
    int64_t batch, rows, d, out_stride, lse_stride;
    const float *o, *row_max, *row_sum;
    float *out, *lse;
} psk_softmax_finish_args;

/* out[i] = <x_i, y_i>.   x, y: batch x rows x n, stride x_stride; out: batch x rows, contiguous */
typedef struct psk_row_dot_args {
    int64_t batch, rows, n, x_stride;
    const float *x, *y;
    float *out;
} psk_row_dot_args;

/* What one sequence keeps of one layer for its next token. Rows are a ring: the oldest is in slot `first`, the others
 * follow, slot capacity - 1 before slot 0. NULL where the mechanism has no such thing.
 * rounded: copies in bfloat16, read instead where they are given (all that the mechanism reads, or none); the new row
 * goes into both. Their layouts are the same but for the state's, whose column of normalisers is kept apart, so that a
 * row of it is whole lines of the cache. */
typedef struct psk_step_session {
    const float *state;            /* Hkv x m x (d+1), as in psk_attention_tensors */
    float *k, *v, *b;              /* Hkv x capacity x h, d, r */
    int64_t capacity, first, rows; /* first < capacity, rows < capacity */
    struct {
        const psk_bf16 *state; /* Hkv x (m x d, then m) */
        psk_bf16 *k, *v, *b;
    } rounded;
} psk_step_session;

/* Attention of one token in each of `count` sequences. The token's k, v, b become row `rows` of its session; its query
 * then sees that row and the older ones pair by pair, and what is in the state:
 *     o1 = psi_q(a) Z + sum_j w_j [v_j, 1],   out = o1[:d] / (beta + o1[d]), 0 if that is 0 / 0
 * w_j = <q,k_j>^p (polynomial; polysketch with a local part), far_scale <a,b_j>^2 (polysketch without), <a,b_j>
 * (performer), exp(<q,k_j> / sqrt(h)) (softmax). psi_q carries far_scale; performer's is a itself. What is computed for
 * a session does not depend on the others, bit for bit.   q: count x H x h, a: count x H x r; k, v, b: count x Hkv x h,
 * d, r; out: count x H x d */
typedef struct psk_attention_step_args {
    const psk_attention_config *config;
    int64_t count, H, Hkv, h, d, r;
    const psk_step_session *sessions;
    const float *q, *a, *k, *v, *b;
    float *out;
} psk_attention_step_args;

/* y (=, +=) alpha x.   batch x rows x n; x: x_ld, x_stride; y: y_ld, y_stride. In place (y == x, same layout) allowed.
 */
typedef struct psk_copy_args {
    int64_t batch, rows, n, x_ld, x_stride, y_ld, y_stride;
    const float *x;
    float *y;
    float alpha;
    psk_write write;
} psk_copy_args;

/* x[i] = value. */
typedef struct psk_fill_args {
    int64_t n;
    float *x;
    float value;
} psk_fill_args;

/* *out = sum_i x_i^2 in float64 (host memory). */
typedef struct psk_sum_squares_args {
    int64_t n;
    const float *x;
    double *out;
} psk_sum_squares_args;

/* AdamW (Loshchilov and Hutter 2019), PyTorch's order: with g = grad_scale grad
 *     param *= 1 - lr weight_decay;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
 *     param -= lr (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps)              step counts from 1 */
typedef struct psk_adamw_args {
    int64_t n, step;
    float *param, *m, *v;
    const float *grad;
    float lr, beta1, beta2, eps, weight_decay, grad_scale;
} psk_adamw_args;

/* ------------------------------------------------------------------------------------------------------------- fused
 *
 * Entries that do at once what src/attention composes from the ones above. A device may leave them NULL, or refuse a
 * configuration; the composed path stays, and is their oracle in the tests. */

/* Rows of a tensor, seen by group and head: element (group g, head e of the group, row i, column c) is at
 * data + g group_stride + e head_stride + i width + c. Keys and values have one head per group (head_stride unused).
 * data == NULL: the mechanism has no such tensor. The data of an input is only read. */
typedef struct psk_rows {
    float *data;
    int64_t group_stride, head_stride, width;
} psk_rows;

/* One call of attention, in views. Names, meaning, = and += as in psk_attention_tensors, except that every gradient is
 * accumulated (+=). rep, widths and d are those of the attention's shape; groups, Nq and Nk at most those.
 * Nq = 0 is allowed: keys are then only folded into the state. States are contiguous, G x m x (d+1);
 * state1 may be state0 (in place), and so may dstate0 and dstate1. */
typedef struct psk_attention_views {
    int64_t groups, Nq, Nk;
    psk_rows q, k, v, a, b;
    const float *state0;
    psk_rows out, normaliser; /* normaliser: width 1 */
    float *state1;
    psk_rows dout;
    const float *dstate1;
    psk_rows dq, dk, dv, da, db;
    float *dstate0;
} psk_attention_views;

/* One attention call for all groups. Two steps:
 *     workspace == NULL: sets *workspace_floats to what the call needs, or to -1 if this configuration is not fused; of
 * the views only sizes and widths are read. The need does not grow with groups, Nq or Nk. otherwise:         runs,
 * gradients +=, with that workspace. */
typedef struct psk_fused_attention_args {
    const psk_attention_config *config;
    int64_t rep; /* query heads of a group */
    const psk_attention_views *views;
    float *workspace;
    int64_t *workspace_floats;
} psk_fused_attention_args;
typedef psk_fused_attention_args psk_fused_attention_forward_args;
typedef psk_fused_attention_args psk_fused_attention_backward_args;

#define PSK_SKETCH_MAX_DEGREE 64
#define PSK_SKETCH_LEVELS     2
#define PSK_SKETCH_EXPANSION  8     /* hidden width of a level, in units of r */
#define PSK_SKETCH_EPS        1e-5f /* of its LayerNorms */

/* Leaves x of the recursion come in pairs under 2 (p/2 - 1) matrices. */
#define PSK_MAX_SKETCH_MATRICES (PSK_SKETCH_MAX_DEGREE - 2)

/* Weights of a sketch; only the fields of its form are read.  in: h on level 0, r on level 1 */
typedef struct psk_sketch_params {
    const float *g[PSK_MAX_SKETCH_MATRICES]; /* random: [in, r], depth first: left, right, G1, G2 */
    struct {
        const float *norm_weight, *norm_bias; /* [in] */
        const float *up;                      /* [8 r, in] */
        const float *down;                    /* [r, 8 r] */
    } net[2][PSK_SKETCH_LEVELS];              /* learned: nets a and b */
    const float *weight[2];                   /* learned_linear: Wa, Wb, [r, h] */
} psk_sketch_params;

/* Their gradients. Random matrices are not trained. */
typedef struct psk_sketch_grads {
    struct {
        float *norm_weight, *norm_bias, *up, *down;
    } net[2][PSK_SKETCH_LEVELS];
    float *weight[2];
} psk_sketch_grads;

/* psk_sketch_forward and psk_sketch_backward (attention/attn_sketch.h) of the learned forms at once, for many rows.
 *     forward:  s = s(x).   x: rows x h, s: rows x r
 *     backward: reads x, s and ds; dx (=, +=) dL/dx, grads += */
typedef struct psk_fused_sketch_args {
    const psk_attention_config *config;
    int64_t h, rows;
    const float *x;
    const psk_sketch_params *params;
    float *s;
    const float *ds;
    float *dx;
    psk_write dx_write;
    psk_sketch_grads *grads;
} psk_fused_sketch_args;
typedef psk_fused_sketch_args psk_fused_sketch_forward_args;
typedef psk_fused_sketch_args psk_fused_sketch_backward_args;

/* ------------------------------------------------------------------------------------------------------------- table
 */

typedef struct psk_ops {
#define PSK_OP(name) psk_status (*name)(psk_device * device, const psk_##name##_args *args);
#include "device/ops.def"
#undef PSK_OP
#define PSK_FUSED_OP(name) psk_status (*name)(psk_device * device, const psk_##name##_args *args);
#include "device/fused.def"
#undef PSK_FUSED_OP
} psk_ops;

#endif
