/* Fuzz target: any bytes, any stop strings, any cut of them through psk_text_stream; what is shown after each piece is
 * held against the definition. Input: up to three stop strings, each ended by 0xFE, then 0xFD, then pieces ended by
 * 0xFC (their bytes go in as they are). Not built with the tests; from the root folder:
 *   clang -D_GNU_SOURCE -g -O1 -fsanitize=fuzzer,address,undefined -Iinclude -Isrc -Itests src/base/?*.c
 * src/infer/text_stream.c tests/fuzz_text_stream.c -ljansson -lm -o build/fuzz_text_stream &&
 * build/fuzz_text_stream -max_len=200 */
#include "polysketch.h"
#include "text_stream_oracle.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STOPS     3
#define STOP_END  0xFE
#define STOPS_END 0xFD
#define PIECE_END 0xFC

typedef struct shown_text {
    char *text;
    size_t size;
} shown_text;

static void append(shown_text *shown, const char *text, size_t size) {
    memcpy(shown->text + shown->size, text, size);
    shown->size += size;
}

/* `shown` must be what the oracle says of these bytes. */
static void compare(const shown_text *shown, const uint8_t *bytes, size_t size, bool ended, const char *const *stops,
                    size_t stop_count, int said) {
    bool stopped;
    char *const want = malloc(3 * size + 1);
    const size_t used = oracle_shown(bytes, size, ended, stops, stop_count, want, &stopped);
    if (used != shown->size || memcmp(want, shown->text, used) != 0 || (!ended && said != stopped))
        __builtin_trap();
    free(want);
}

static void run_pieces(psk_text_stream *stream, const uint8_t *data, size_t size, const char *const *stops,
                       size_t stop_count) {
    uint8_t *const bytes = malloc(size + 1);
    shown_text shown = {.text = malloc(3 * size + 1)};
    size_t used = 0;
    const char *text;
    size_t text_size;
    int stopped = 0;
    for (size_t i = 0, first = 0; i <= size; i++) {
        if (i < size && data[i] != PIECE_END)
            continue;
        memcpy(bytes + used, data + first, i - first);
        if (psk_text_stream_push(stream, (const char *)data + first, i - first, &text, &text_size, &stopped) != PSK_OK)
            __builtin_trap();
        append(&shown, text, text_size);
        used += i - first;
        compare(&shown, bytes, used, false, stops, stop_count, stopped);
        first = i + 1;
    }
    if (psk_text_stream_finish(stream, &text, &text_size) != PSK_OK)
        __builtin_trap();
    append(&shown, text, text_size);
    compare(&shown, bytes, used, true, stops, stop_count, stopped);
    free(shown.text);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *stops[STOPS] = {NULL};
    size_t stop_count = 0, first = 0, i = 0;
    for (; i < size && data[i] != STOPS_END; i++)
        if (data[i] == STOP_END && stop_count < STOPS) {
            stops[stop_count++] = strndup((const char *)data + first, i - first);
            first = i + 1;
        }
    psk_text_stream *stream;
    if (psk_text_stream_create((const char *const *)stops, (int64_t)stop_count, &stream) == PSK_OK) {
        const size_t start = i < size ? i + 1 : first;
        run_pieces(stream, data + start, size - start, (const char *const *)stops, stop_count);
        psk_text_stream_free(stream);
    }
    for (size_t s = 0; s < stop_count; s++)
        free(stops[s]);
    return 0;
}
