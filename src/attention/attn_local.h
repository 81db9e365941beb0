/* Weights computed pair by pair: w_ij = scale <x_i, y_j>^p for a tile of queries against a range of keys.
 * The local part of polysketch (x, y = q, k and degree p: paper, section 3.2), the diagonal blocks where there is none
 * (a, b and power 2, or 1 for performer), and all of polynomial attention. */
#ifndef PSK_ATTN_LOCAL_H
#define PSK_ATTN_LOCAL_H

#include "attention/attn_parts.h"

typedef struct psk_local_weights {
    psk_rows x, y, dx, dy; /* one pair of query and key rows, and their gradients */
    int64_t power;
    float scale;
} psk_local_weights;

/* q and k with <q,k>^p, or a and b with scale <a,b>^power. */
psk_local_weights psk_local_exact(const psk_attention *at, const psk_attention_views *views);
psk_local_weights psk_local_sketched(const psk_attention_views *views, int64_t power, float scale);

/* at->o1 += W V1 for all heads of the tile: keys `first_key` up to the last that the tile may see. */
psk_status psk_local_forward(const psk_attention *at, const psk_attention_views *views, const psk_local_weights *w,
                             const psk_query_tile *tile, int64_t first_key);

/* With dL/dO1 in at->o1: dx, dy and views->dv += for the same pairs. */
psk_status psk_local_backward(const psk_attention *at, const psk_attention_views *views, const psk_local_weights *w,
                              const psk_query_tile *tile, int64_t first_key);

#endif
