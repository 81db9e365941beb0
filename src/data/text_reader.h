/* Reads the inputs of a preparation, one after the other, as blocks of text that can be encoded independently. */
#ifndef PSK_TEXT_READER_H
#define PSK_TEXT_READER_H

#include "data/prepare_inputs.h"
#include "data/text_cut.h"

typedef enum { PSK_TRAIN, PSK_VALID, PSK_SIDES } psk_side;

/* Where a block begins; all that a reader needs to go on from there. */
typedef struct psk_position {
    int64_t input;    /* in the list; the others are of this input */
    int64_t offset;   /* bytes of text before, decompressed */
    int64_t lines;    /* line ends before */
    int64_t document; /* bytes of the text document when its tail is held out, else -1 */
    psk_side side;    /* of the text document */
    uint64_t hash;    /* XXH3-64 of the bytes before */
} psk_position;

typedef struct psk_block {
    psk_text_format format; /* TEXT: a piece of a document, or of its part; else whole documents */
    int64_t input;
    int64_t lines;                 /* line ends of the input before the block */
    psk_side side;                 /* TEXT; VALID also for all documents of a held-out input */
    bool ends_part, ends_document; /* TEXT */
    bool empty_document;           /* TEXT: there is nothing in the input */
    unsigned char *text;
    int64_t size, capacity;
    psk_position after; /* where the next block begins */
    int64_t consumed;   /* bytes of all inputs, as they lie on the disk, up to the end of the block */
} psk_block;
void psk_block_free(psk_block *block); /* accepts an empty one */

typedef struct psk_text_reader psk_text_reader;

/* The options and the list must outlive the reader. */
psk_status psk_text_reader_open(const psk_prepare_options *options, const psk_input_list *inputs, psk_position position,
                                psk_text_reader **out);
void psk_text_reader_close(psk_text_reader *reader); /* accepts NULL */

/* *end: there is no block any more. The blocks of a position are the same however it was reached. Errors: those of
 * byte_source.h; FORMAT for a document that is too long, for a file that changed while or since it was read; ARGUMENT
 * if the tail of a text from a pipe is to be held out. */
psk_status psk_text_reader_next(psk_text_reader *reader, psk_block *block, bool *end);

/* Which side a document is on that is not cut: `size` bytes, or more, of its beginning. */
psk_side psk_hash_side(const unsigned char *text, int64_t size, double fraction);

#endif
