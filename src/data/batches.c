#include "data/batches.h"

psk_status psk_batch_reserve(psk_arena *arena, int64_t B, int64_t N, psk_documents_mode mode, psk_batch_buffer *out) {
    int64_t count, bytes;
    *out = (psk_batch_buffer){.B = B, .N = N, .mode = mode};
    PSK_TRY(psk_size_mul(B, N, &count));
    PSK_TRY(psk_size_mul(count, (int64_t)sizeof(int32_t), &bytes));
    PSK_TRY(psk_arena_reserve(arena, "data", "tokens", bytes, (void **)&out->tokens));
    PSK_TRY(psk_arena_reserve(arena, "data", "targets", bytes, (void **)&out->targets));
    if (mode == PSK_KEEP_GOING)
        return PSK_OK;
    PSK_TRY(psk_arena_reserve(arena, "data", "positions", bytes, (void **)&out->positions));
    PSK_TRY(psk_size_mul(count + 1, (int64_t)sizeof(int64_t), &bytes));
    return psk_arena_reserve(arena, "data", "cu_seqlens", bytes, (void **)&out->cu_seqlens);
}

/* Row `row` from token `start` on; only the first `count` of its targets count. */
static psk_status read_row(psk_batch_buffer *buffer, const psk_dataset *dataset, int64_t row, int64_t start,
                           int64_t count) {
    int32_t *tokens = buffer->tokens + row * buffer->N, *targets = buffer->targets + row * buffer->N;
    PSK_TRY(psk_dataset_read(dataset, start, buffer->N, tokens));
    PSK_TRY(psk_dataset_read(dataset, start + 1, count, targets));
    for (int64_t n = count; n < buffer->N; n++)
        targets[n] = -1;
    buffer->counted += count;
    return PSK_OK;
}

/* Row `row`: the sequence at the cursor. */
static psk_status read_sequence(psk_batch_buffer *buffer, const psk_dataset *dataset, int64_t row,
                                const psk_order *order, psk_cursor cursor) {
    int32_t *tokens = buffer->tokens + row * buffer->N, *targets = buffer->targets + row * buffer->N;
    psk_piece piece;
    for (int64_t n = 0; n < buffer->N; n += piece.count) {
        piece = psk_order_piece(order, cursor, n);
        PSK_TRY(psk_dataset_read(dataset, piece.first, piece.count, tokens + n));
        PSK_TRY(psk_dataset_read(dataset, piece.first + 1, piece.count, targets + n));
    }
    buffer->counted += buffer->N;
    return PSK_OK;
}

static void find_documents(psk_batch_buffer *buffer, int32_t end_of_text) {
    int32_t position = 0;
    buffer->documents = 0;
    for (int64_t i = 0; i < buffer->B * buffer->N; i++) {
        if (i % buffer->N == 0 || buffer->tokens[i] == end_of_text) {
            buffer->cu_seqlens[buffer->documents++] = i;
            position = 0;
        }
        buffer->positions[i] = position++;
    }
    buffer->cu_seqlens[buffer->documents] = buffer->B * buffer->N;
}

psk_status psk_batch_fill(psk_batch_buffer *buffer, const psk_dataset *dataset, const psk_order *order,
                          psk_cursor *cursor) {
    PSK_ASSERT(order->window == buffer->N && order->tokens == dataset->tokens);
    buffer->counted = 0;
    for (int64_t row = 0; row < buffer->B; row++)
        PSK_TRY(read_sequence(buffer, dataset, row, order, psk_order_next(order, *cursor, row)));
    *cursor = psk_order_next(order, *cursor, buffer->B);
    if (buffer->mode == PSK_RESET_AT_DOCUMENTS)
        find_documents(buffer, dataset->tokenizer->end_of_text);
    return PSK_OK;
}

int64_t psk_window_count(const psk_dataset *dataset, int64_t N) {
    return dataset->tokens < 2 ? 0 : (dataset->tokens - 1 + N - 1) / N;
}

psk_status psk_batch_fill_windows(psk_batch_buffer *buffer, const psk_dataset *dataset, const int64_t *windows,
                                  int64_t rows) {
    PSK_ASSERT(rows <= buffer->B);
    buffer->counted = 0;
    for (int64_t row = 0; row < buffer->B; row++) {
        const int64_t start = row < rows ? windows[row] * buffer->N : 0;
        const int64_t left = row < rows ? dataset->tokens - 1 - start : 0;
        PSK_TRY(read_row(buffer, dataset, row, start, left < buffer->N ? left : buffer->N));
    }
    if (buffer->mode == PSK_RESET_AT_DOCUMENTS)
        find_documents(buffer, dataset->tokenizer->end_of_text);
    return PSK_OK;
}
