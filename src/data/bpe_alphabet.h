/* How the files of byte-level BPE write bytes: each as one character that can be seen (GPT-2's bytes_to_unicode). The
 * printable ones of Latin-1 stand for themselves, the others, in order, are U+0100, U+0101, ... */
#ifndef PSK_BPE_ALPHABET_H
#define PSK_BPE_ALPHABET_H

#include <stdbool.h>
#include <stddef.h>

#define PSK_BPE_CHARACTER_SIZE 2 /* bytes at most that stand for a byte */

/* Writes the character of `byte` to name; returns how many bytes that is. */
size_t psk_bpe_write_byte(unsigned char byte, char name[PSK_BPE_CHARACTER_SIZE]);

/* bytes[0 ... *size - 1] from a name (UTF-8) of `length` bytes, at most as many. False: it has a character that stands
 * for no byte. */
bool psk_bpe_read_bytes(const char *name, size_t length, char *bytes, size_t *size);

#endif
