/* Batches: B rows of N tokens with their shifted targets, from a dataset into buffers taken once. */
#ifndef PSK_BATCHES_H
#define PSK_BATCHES_H

#include "base/memory.h"
#include "data/dataset.h"
#include "data/order.h"

typedef enum { PSK_KEEP_GOING, PSK_RESET_AT_DOCUMENTS } psk_documents_mode;

typedef struct psk_batch_buffer {
    int64_t B, N;
    psk_documents_mode mode;
    int32_t *tokens;  /* B x N */
    int32_t *targets; /* B x N: the token after each, -1 where there is none */
    /* With PSK_RESET_AT_DOCUMENTS; otherwise NULL and 0. A row begins a document, and so does each end-of-text. */
    int32_t *positions;  /* B x N: from 0 in every document */
    int64_t *cu_seqlens; /* documents + 1 boundaries in the flat index; room for B N + 1 */
    int64_t documents;
    int64_t counted; /* targets >= 0 */
} psk_batch_buffer;

/* Plans the buffers under the category "data". */
psk_status psk_batch_reserve(psk_arena *arena, int64_t B, int64_t N, psk_documents_mode mode, psk_batch_buffer *out);

/* The B sequences from *cursor on, which moves past them. */
psk_status psk_batch_fill(psk_batch_buffer *buffer, const psk_dataset *dataset, const psk_order *order,
                          psk_cursor *cursor);

/* Fixed windows for evaluation: number w starts at token w N. ceil((tokens - 1) / N) windows predict every token but
 * the first once; targets past the end are -1. */
int64_t psk_window_count(const psk_dataset *dataset, int64_t N);

/* Row i of the batch is window windows[i] for i < rows, the other rows have no targets. */
psk_status psk_batch_fill_windows(psk_batch_buffer *buffer, const psk_dataset *dataset, const int64_t *windows,
                                  int64_t rows);

#endif
