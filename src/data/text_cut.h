/* Where text may be cut: into pieces to encode, into the documents of a file, into a part to train on and one to
 * validate on. All are pure functions of the text. */
#ifndef PSK_TEXT_CUT_H
#define PSK_TEXT_CUT_H

#include "polysketch.h"

#include <stdbool.h>
#include <stdint.h>

/* A piece of a document: at most so many bytes are encoded at a time. */
#define PSK_PIECE_BYTES (1 << 18)

/* A document that has to be in memory whole, a JSON line or an article, has at most so many bytes. */
#define PSK_RECORD_BYTES (1 << 25)

/* Length of the first piece of `size` bytes of text (`size` > PSK_PIECE_BYTES: there is more than one). It ends before
 * the last space or line end with something else before it: there tokenizers cut too. Where there is none in the second
 * half of the piece, it ends at a UTF-8 character, else after PSK_PIECE_BYTES. */
int64_t psk_cut_piece(const unsigned char *text);

/* A cut at 0 < `at` < size of the text, moved back to the last line end within 1,024 bytes, or, where there is none, to
 * the beginning of a UTF-8 character. text[at] is read. */
#define PSK_CUT_WINDOW 1024
int64_t psk_cut_near(const unsigned char *text, int64_t at);

/* Where the held-out last part of a document of `size` bytes begins, before psk_cut_near: floor(size (1 - fraction)).
 */
int64_t psk_cut_tail(int64_t size, double fraction);

/* The last place > 0 in the text, `size` bytes of a file from the beginning of a document on, at which another document
 * begins whatever follows; 0: there is none. format: JSONL or WIKITEXT. */
int64_t psk_last_record(psk_text_format format, const unsigned char *text, int64_t size);

/* Length of the first document of a text that ends with a document; size > 0. */
int64_t psk_first_record(psk_text_format format, const unsigned char *text, int64_t size);

/* The text begins as WikiText does: with " = Title = " after empty lines, if any. */
bool psk_is_wikitext(const unsigned char *text, int64_t size);

/* There is nothing in it but spaces and line ends. */
bool psk_is_blank(const unsigned char *text, int64_t size);

#endif
