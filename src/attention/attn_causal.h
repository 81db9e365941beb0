/* The block algorithm: attention in linear time with a state (paper, section 3).
 *
 * Weights that are an inner product of features, w_ij = <psi_q(a_i), psi_k(b_j)>, need only one sum over keys:
 *     Z = sum_j psi_k(b_j)^T [v_j, 1]        m x (d+1) per group, the state
 *     O1 = psi_q(A) Z,   out = O1[:, :d] / (beta + O1[:, d])
 * Causal: in blocks of b keys, counted from key 0. When the queries of block l read Z, the keys before far_keys(l) are
 * in it; those from there up to the query itself are weighted pair by pair (attn_local.h):
 *                         far_keys(l)       weights of the pairs
 *     no local part       l b               scale <a,b>^power, the same as the far ones
 *     block               l b               <q,k>^p
 *     window              (l-1) b           <q,k>^p, own block and the one before
 *     bidirectional       Nk                none: one block with all queries
 * Of the features it knows only how a and b make them:
 *     power 2 (polysketch)  psi packs the symmetric product x x^T, m = r (r+1) / 2 numbers; the factors scale and 2 (of
 * the pairs i < j) are on the query side power 1 (performer)   psi(x) = x, m = r
 *
 * Backward makes two sweeps instead of storing states: forwards with Z for da, backwards with U = dL/dZ for db and dv.
 * One state is alive at a time, whatever N. */
#ifndef PSK_ATTN_CAUSAL_H
#define PSK_ATTN_CAUSAL_H

#include "attention/attn_parts.h"

/* Polysketch and performer, on at most at->slab groups; gradients are accumulated (+=). */
psk_status psk_causal_forward(const psk_attention *at, const psk_attention_views *views);
psk_status psk_causal_backward(const psk_attention *at, const psk_attention_views *views);

#endif
