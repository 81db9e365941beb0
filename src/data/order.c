#include "data/order.h"

#include "base/rng.h"

#include <inttypes.h>

#define ROUNDS 8

psk_status psk_order_create(int64_t tokens, int64_t window, uint64_t seed, psk_order *out) {
    PSK_ASSERT(window >= 1);
    if (tokens <= window)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "the data has %" PRId64 " tokens, a context of %" PRId64 " needs at least %" PRId64
                        ": prepare more text or train with a shorter context",
                        tokens, window, window + 1);
    *out = (psk_order){.tokens = tokens, .window = window, .windows = tokens / window, .seed = seed};
    return PSK_OK;
}

/* One epoch's permutation of 0 ... 4^half_bits - 1. */
static uint64_t feistel(uint64_t seed, uint64_t epoch, int half_bits, uint64_t x) {
    const uint64_t mask = ((uint64_t)1 << half_bits) - 1;
    const uint64_t stream = psk_rng_stream("data order") ^ epoch;
    uint64_t left = x >> half_bits, right = x & mask;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        uint32_t words[4];
        psk_philox(seed, stream, round << 32 | right, words);
        const uint64_t next = left ^ (words[0] & mask);
        left = right;
        right = next;
    }
    return left << half_bits | right;
}

int64_t psk_order_permute(const psk_order *order, psk_cursor cursor) {
    int half_bits = 1;
    while (order->windows > (int64_t)1 << (2 * half_bits)) /* at most 31: right has room below the round's number */
        half_bits++;
    uint64_t x = (uint64_t)cursor.index;
    do
        x = feistel(order->seed, (uint64_t)cursor.epoch, half_bits, x);
    while (x >= (uint64_t)order->windows);
    return (int64_t)x;
}

/* Where an epoch begins to cut a ring of `tokens` tokens. */
static int64_t epoch_offset(const psk_order *order, int64_t epoch, int64_t tokens) {
    psk_rng rng = psk_rng_make(order->seed, psk_rng_stream("epoch offset") ^ (uint64_t)epoch);
    return (int64_t)psk_rng_below(&rng, (uint64_t)tokens);
}

/* Where the window at the cursor begins in the one ring of an order that is not aligned. */
static int64_t ring_start(const psk_order *order, psk_cursor cursor) {
    const int64_t offset = epoch_offset(order, cursor.epoch, order->tokens);
    return (offset + psk_order_permute(order, cursor) * order->window) % order->tokens;
}

void psk_order_align(psk_order *order, const psk_long_documents *documents) {
    PSK_ASSERT(documents->window == order->window);
    order->aligned = documents;
    order->windows = documents->windows + documents->rest / order->window;
}

psk_piece psk_order_piece(const psk_order *order, psk_cursor cursor, int64_t n) {
    const psk_long_documents *documents = order->aligned;
    const int64_t left = order->window - n;
    if (!documents)
        return (psk_piece){ring_start(order, cursor) + n, left};
    const int64_t window = psk_order_permute(order, cursor);
    if (window < documents->windows)
        return (psk_piece){psk_long_documents_window(documents, window) + n, left};
    const int64_t offset = epoch_offset(order, cursor.epoch, documents->rest) + n;
    const int64_t place = (offset + (window - documents->windows) * order->window) % documents->rest;
    psk_piece piece = psk_long_documents_rest(documents, place);
    piece.count = piece.count < left ? piece.count : left;
    return piece;
}

psk_cursor psk_order_next(const psk_order *order, psk_cursor cursor, int64_t count) {
    const int64_t index = cursor.index + count;
    return (psk_cursor){.epoch = cursor.epoch + index / order->windows, .index = index % order->windows};
}
