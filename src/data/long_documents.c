#include "data/long_documents.h"

#include "base/memory.h"

#include <string.h>

#define PART 4096 /* tokens that are read at a time */

/* Room for one more at the end of the list. */
static psk_status reserve(psk_long_documents *documents) {
    int64_t bytes;
    void *larger;
    if (documents->count < documents->capacity)
        return PSK_OK;
    const int64_t capacity = 2 * documents->capacity + 16;
    PSK_TRY(psk_size_mul(capacity, (int64_t)sizeof *documents->list, &bytes));
    PSK_TRY(psk_alloc((size_t)bytes, "table of long documents", &larger));
    if (documents->list)
        memcpy(larger, documents->list, (size_t)documents->count * sizeof *documents->list);
    psk_free(documents->list);
    documents->list = larger;
    documents->capacity = capacity;
    return PSK_OK;
}

/* The document of the tokens start ... end - 1, if it is long. */
static psk_status add(psk_long_documents *documents, int64_t start, int64_t end) {
    const int64_t windows = (end - start) / documents->window;
    if (windows == 0)
        return PSK_OK;
    PSK_TRY(reserve(documents));
    documents->list[documents->count++] = (psk_long_document){start, documents->windows};
    documents->windows += windows;
    return PSK_OK;
}

static psk_status find(const psk_dataset *dataset, psk_long_documents *documents) {
    int32_t tokens[PART];
    const int32_t end_of_text = dataset->tokenizer->end_of_text;
    int64_t start = 0, part;
    for (int64_t first = 0; first < dataset->tokens; first += part) {
        part = dataset->tokens - first < PART ? dataset->tokens - first : PART;
        PSK_TRY(psk_dataset_read(dataset, first, part, tokens));
        for (int64_t i = 0; i < part; i++)
            if (tokens[i] == end_of_text) {
                PSK_TRY(add(documents, start, first + i + 1));
                start = first + i + 1;
            }
    }
    PSK_TRY(add(documents, start, dataset->tokens)); /* text that no end-of-text follows */
    PSK_TRY(reserve(documents));
    documents->list[documents->count] = (psk_long_document){dataset->tokens, documents->windows};
    documents->rest = dataset->tokens - documents->windows * documents->window;
    return PSK_OK;
}

psk_status psk_long_documents_find(const psk_dataset *dataset, int64_t window, psk_long_documents *out) {
    PSK_ASSERT(window >= 1);
    *out = (psk_long_documents){.window = window};
    const psk_status status = find(dataset, out);
    if (status != PSK_OK)
        psk_long_documents_free(out);
    return status;
}

void psk_long_documents_free(psk_long_documents *documents) {
    psk_free(documents->list);
    *documents = (psk_long_documents){0};
}

/* Tokens of the rest before long document i, or before the end. */
static int64_t rest_before(const psk_long_documents *documents, int64_t i) {
    return documents->list[i].start - documents->list[i].window * documents->window;
}

static int64_t window_of(const psk_long_documents *documents, int64_t i) {
    return documents->list[i].window;
}

/* The last long document whose measure, which never falls along the list, is at most `value`; -1: there is none. */
static int64_t last_at_most(const psk_long_documents *documents, int64_t value,
                            int64_t (*measure)(const psk_long_documents *documents, int64_t i)) {
    int64_t low = -1, high = documents->count;
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (measure(documents, middle) <= value)
            low = middle;
        else
            high = middle;
    }
    return low;
}

int64_t psk_long_documents_window(const psk_long_documents *documents, int64_t window) {
    PSK_ASSERT(window >= 0 && window < documents->windows);
    const psk_long_document *document = &documents->list[last_at_most(documents, window, window_of)];
    return document->start + (window - document->window) * documents->window;
}

psk_piece psk_long_documents_rest(const psk_long_documents *documents, int64_t place) {
    PSK_ASSERT(place >= 0 && place < documents->rest);
    const int64_t next = last_at_most(documents, place, rest_before) + 1; /* its windows come after the place */
    return (psk_piece){.first = place + documents->list[next].window * documents->window,
                       .count = rest_before(documents, next) - place};
}
