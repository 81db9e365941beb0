/* Sketches: x -> s(x), r numbers with <s(q), s(k)> close to <q,k>^(p/2) (random) or trained to serve instead (learned).
 *
 *   random          S(x,1) = x,  S(x,t) = sqrt(1/r) [(S1(x,t/2) G1) * (S2(x,t/2) G2)],  s(x) = S(x, p/2)   Algorithm 1
 *   random_hadamard the same with G = D H: columns of a Hadamard matrix H under random signs D
 *   learned         s(x) = sqrt(r) tanh(a(x) * b(x) / sqrt(r)), a and b networks of two levels of
 *                   [LayerNorm, Linear -> 8 r, GELU, Linear -> r]                                   paper, section 2.3
 *   learned_linear  s(x) = (Wa x) * (Wb x) / sqrt(r)
 *
 * Rows are independent: nothing here knows of causality, heads or blocks. */
#ifndef PSK_ATTN_SKETCH_H
#define PSK_ATTN_SKETCH_H

#include "attention/attention.h"

/* PSK_ERROR_ARGUMENT unless the sketch of `config` exists for head size h: random forms need p/2 a power of two (p = 2
 * is s(x) = x and needs r = h), random_hadamard needs h (and r for p >= 8) a power of two. */
psk_status psk_sketch_check(const psk_attention_config *config, int64_t h);

/* Floats of workspace for psk_sketch_forward and psk_sketch_backward, whatever the number of rows. */
int64_t psk_sketch_workspace(const psk_attention_config *config, int64_t h);

/* s = s(x).   x: rows x h, s: rows x r, both contiguous; workspace: psk_sketch_workspace floats. Weights: ops.h */
psk_status psk_sketch_forward(psk_device *device, const psk_attention_config *config, int64_t h, int64_t rows,
                              const float *x, const psk_sketch_params *params, float *s, float *workspace);

/* dx (=, +=) dL/dx, grads +=. Reads x and s of forward, recomputes the rest in chunks of rows.
 * grads may be NULL for the random forms, which have nothing to train. */
typedef struct psk_sketch_backward_args {
    int64_t h, rows;
    const float *x, *s, *ds; /* rows x h, rows x r, rows x r */
    const psk_sketch_params *params;
    float *dx; /* rows x h */
    psk_write dx_write;
    psk_sketch_grads *grads;
    float *workspace;
} psk_sketch_backward_args;
psk_status psk_sketch_backward(psk_device *device, const psk_attention_config *config,
                               const psk_sketch_backward_args *args);

/* Random forms: the number of matrices, 2 (p/2 - 1) (0 for other forms), and the shape [rows, r] of matrix j. */
int64_t psk_sketch_matrix_count(const psk_attention_config *config);
int64_t psk_sketch_matrix_rows(const psk_attention_config *config, int64_t h, int64_t j);

/* matrix = G.j: entries N(0,1), or for random_hadamard D H[:, chosen] with fresh signs D and fresh columns, none twice,
 * for each group of `rows` columns. A pure function of (seed, stream); stream names the tensor (psk_rng_stream). */
psk_status psk_sketch_random_init(const psk_attention_config *config, int64_t h, int64_t j, uint64_t seed,
                                  uint64_t stream, float *matrix);

#endif
