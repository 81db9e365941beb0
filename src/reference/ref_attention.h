/* Attention by its definition: every weight w_ij of every mechanism, quadratic, in double, and the gradients from the
 * same formulas. The oracle of the tests of src/attention and src/model, with which it shares no code. Only tests call
 * it. */
#ifndef PSK_REF_ATTENTION_H
#define PSK_REF_ATTENTION_H

#include "base/status.h"

/* psk_attention_tensors in double: same shapes, same meaning, same rules of NULL. */
typedef struct psk_ref_attention_tensors {
    /* inputs */
    const double *q;           /* B x H x Nq x h */
    const double *k;           /* B x Hkv x Nk x h */
    const double *v;           /* B x Hkv x Nk x d */
    const double *a;           /* B x H x Nq x r */
    const double *b;           /* B x Hkv x Nk x r */
    const double *state0;      /* B x Hkv x m x (d+1), or NULL */
    const int64_t *cu_seqlens; /* documents + 1 boundaries in the flat index 0 ... B Nq, or NULL */
    int64_t documents;
    /* outputs of forward; each may be NULL: not wanted */
    double *out;        /* B x H x Nq x d */
    double *normaliser; /* B x H x Nq */
    double *state1;     /* as state0 */
    /* backward: gradients in */
    const double *dout;    /* as out */
    const double *dstate1; /* as state1, or NULL: 0 */
    /* backward: gradients out, written (=); each may be NULL: not wanted */
    double *dq, *dk, *dv, *da, *db, *dstate0;
} psk_ref_attention_tensors;

/* out_i = sum_j w_ij v_j / (beta + sum_j w_ij) with the weights of psk_attention_config; the keys in state0 add
 * far_scale sum_e f_e a_x a_y state0[e] (polysketch, e = (x, y), f_e = 2 for x < y and 1 for x == y) or sum_e a_e
 * state0[e] (performer). Error: MEMORY. */
psk_status psk_ref_attention_forward(const psk_attention_config *config, const psk_attention_shape *shape,
                                     const psk_ref_attention_tensors *tensors);

/* All gradients of <dout, out> + <dstate1, state1>. Reads the inputs, dout and dstate1 only: it forms out and the
 * normaliser anew. */
psk_status psk_ref_attention_backward(const psk_attention_config *config, const psk_attention_shape *shape,
                                      const psk_ref_attention_tensors *tensors);

/* Rows m of a state: r (r + 1) / 2 packed pairs for polysketch, r features for performer, 0 for the exact mechanisms.
 */
int64_t psk_ref_state_rows(const psk_attention_config *config, int64_t r);

#endif
