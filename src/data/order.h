/* The order of the training data: windows of N + 1 tokens, shuffled without a table.
 *
 * The T tokens form a ring, cut into W = floor(T / N) windows from an offset that is new in every epoch, so that window
 * edges move. Epoch e visits the windows in the order of a permutation of 0 ... W - 1: a Feistel network on the
 * smallest even number of bits that holds W (Black and Rogaway 2002: cycle walking brings what falls outside back in),
 * its rounds keyed by Philox of (seed, epoch). Sequence number s of a run is therefore a pure function of (T, N, seed,
 * s): nothing but the cursor needs saving.
 *
 * A window is text as it stands: of a document longer than N tokens most windows hold nothing else, short documents lie
 * one after the other in it, with end-of-text between them (psk_batch_buffer tells where, for a reset). Aligned, the
 * windows of long documents are those of long_documents.h, the same in every epoch, and only the rest is a ring that is
 * cut from an offset. */
#ifndef PSK_ORDER_H
#define PSK_ORDER_H

#include "data/long_documents.h"

typedef struct psk_order {
    int64_t tokens;  /* T */
    int64_t window;  /* N */
    int64_t windows; /* W, an epoch */
    uint64_t seed;
    const psk_long_documents *aligned; /* NULL: one ring */
} psk_order;

typedef struct psk_cursor {
    int64_t epoch, index; /* the next sequence: 0 <= index < windows */
} psk_cursor;

/* Errors: ARGUMENT if there are fewer than N + 1 tokens. */
psk_status psk_order_create(int64_t tokens, int64_t window, uint64_t seed, psk_order *out);

/* Where token n < N of the sequence at the cursor is, and how many more of it follow there; the target of each is the
 * token after it in the dataset, which is taken as a ring. */
psk_piece psk_order_piece(const psk_order *order, psk_cursor cursor, int64_t n);

/* Place of `index` in the epoch's permutation: 0 <= result < windows. */
int64_t psk_order_permute(const psk_order *order, psk_cursor cursor);

/* The cursor `count` sequences on. */
psk_cursor psk_order_next(const psk_order *order, psk_cursor cursor, int64_t count);

/* From now on windows are aligned to the long documents, found for the same dataset and N; they must outlive the order.
 * Less than N tokens of rest are in no window. */
void psk_order_align(psk_order *order, const psk_long_documents *documents);

#endif
