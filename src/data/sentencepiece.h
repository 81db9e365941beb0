/* The SentencePiece library (Kudo and Richardson 2018) behind functions of C: sentencepiece.cc is the one file of C++.
 * Nothing is thrown out of it. */
#ifndef PSK_SENTENCEPIECE_H
#define PSK_SENTENCEPIECE_H

#include "data/tokenizer.h"

typedef struct psk_sentencepiece psk_sentencepiece; /* safe for any number of threads at once */

/* From the bytes of a .model file. Errors: FORMAT, MEMORY. */
psk_status psk_sentencepiece_create(const char *bytes, size_t size, psk_sentencepiece **out);
void psk_sentencepiece_free(psk_sentencepiece *model);

int32_t psk_sentencepiece_count(const psk_sentencepiece *model);
int32_t psk_sentencepiece_end(const psk_sentencepiece *model); /* id of the piece that ends a sequence, -1: none */

typedef enum { PSK_PIECE_TEXT, PSK_PIECE_BYTE, PSK_PIECE_CONTROL, PSK_PIECE_UNKNOWN } psk_piece_type;

/* 0 <= id < count. *text lives as long as the model; spaces are U+2581 in it, bytes are "<0xE9>". */
psk_piece_type psk_sentencepiece_piece(const psk_sentencepiece *model, int32_t id, const char **text, size_t *size);

/* Appends the ids of a text. Errors: MEMORY, INTERNAL. */
psk_status psk_sentencepiece_encode(const psk_sentencepiece *model, const char *text, size_t size, psk_tokens *tokens);

/* Training: a new BPE vocabulary of vocab_size pieces. next gives the next line without its end, *text NULL after the
 * last. *bytes, the .model, is released by psk_free. Errors: those of next; ARGUMENT for a vocab_size that does not go
 * with the text, with the least or the most that does; FORMAT if there is no line; MEMORY. */
typedef psk_status (*psk_next_line)(void *user, const char **text, size_t *size);
psk_status psk_sentencepiece_train(int64_t vocab_size, psk_next_line next, void *user, char **bytes, size_t *size);

#endif
