/* The order of the training data: windows of N + 1 tokens, shuffled without a table.
 *
 * The T tokens form a ring, cut into W = floor(T / N) windows from an offset that is new in every epoch, so that window
 * edges move. Epoch e visits the windows in the order of a permutation of 0 ... W - 1: a Feistel network on the
 * smallest even number of bits that holds W (Black and Rogaway 2002: cycle walking brings what falls outside back in),
 * its rounds keyed by Philox of (seed, epoch). Sequence number s of a run is therefore a pure function of (T, N, seed,
 * s): nothing but the cursor needs saving. */
#ifndef PSK_ORDER_H
#define PSK_ORDER_H

#include "base/status.h"

typedef struct psk_order {
    int64_t tokens;  /* T */
    int64_t window;  /* N */
    int64_t windows; /* W, an epoch */
    uint64_t seed;
} psk_order;

typedef struct psk_cursor {
    int64_t epoch, index; /* the next sequence: 0 <= index < windows */
} psk_cursor;

/* Errors: ARGUMENT if there are fewer than N + 1 tokens. */
psk_status psk_order_create(int64_t tokens, int64_t window, uint64_t seed, psk_order *out);

/* Index of the first of the N + 1 tokens (taken around the ring) of the sequence at the cursor. */
int64_t psk_order_start(const psk_order *order, psk_cursor cursor);

/* Place of `index` in the epoch's permutation: 0 <= result < windows. */
int64_t psk_order_permute(const psk_order *order, psk_cursor cursor);

psk_cursor psk_order_next(const psk_order *order, psk_cursor cursor);

#endif
