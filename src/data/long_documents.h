/* Where the long documents of a dataset are, so that their windows can begin where they begin.
 *
 * A document is its text and the end-of-text after it; long is one of at least N tokens. Its first floor(length / N) N
 * tokens are windows of its own, numbered through all long documents in the order of the text. What is in none of them,
 * the ends of long documents and all short ones, is the rest: one sequence, in the order of the text, whose pieces all
 * end with end-of-text. The table has 16 bytes a long document, at most T / N of them. */
#ifndef PSK_LONG_DOCUMENTS_H
#define PSK_LONG_DOCUMENTS_H

#include "data/dataset.h"

typedef struct psk_long_document {
    int64_t start;  /* index of its first token */
    int64_t window; /* number of its first window */
} psk_long_document;

typedef struct psk_long_documents {
    int64_t window;          /* N */
    int64_t windows;         /* of all long documents */
    int64_t rest;            /* tokens in none of them */
    int64_t count, capacity; /* long documents; room in the list */
    psk_long_document *list; /* one more than count: T and `windows` */
} psk_long_documents;

/* Tokens of the dataset that stand there one after the other. */
typedef struct psk_piece {
    int64_t first, count;
} psk_piece;

/* Reads all tokens once. Errors: MEMORY, those of psk_dataset_read. */
psk_status psk_long_documents_find(const psk_dataset *dataset, int64_t window, psk_long_documents *out);
void psk_long_documents_free(psk_long_documents *documents); /* accepts an empty one */

/* Index of the first token of a window: 0 <= window < windows. */
int64_t psk_long_documents_window(const psk_long_documents *documents, int64_t window);

/* The tokens of the rest from `place` on, as far as no window interrupts them: 0 <= place < rest. */
psk_piece psk_long_documents_rest(const psk_long_documents *documents, int64_t place);

#endif
