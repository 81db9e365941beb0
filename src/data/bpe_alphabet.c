#include "data/bpe_alphabet.h"

#define FIRST_OTHER 0x100 /* the character of the first byte that does not stand for itself */

static bool stands_for_itself(unsigned int byte) {
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

static unsigned int character_of(unsigned int byte) {
    unsigned int character = FIRST_OTHER;
    if (stands_for_itself(byte))
        return byte;
    for (unsigned int i = 0; i < byte; i++)
        character += !stands_for_itself(i);
    return character;
}

/* -1: none. */
static int byte_of(unsigned int character) {
    if (character < FIRST_OTHER)
        return stands_for_itself(character) ? (int)character : -1;
    for (unsigned int byte = 0; byte < 256; byte++)
        if (!stands_for_itself(byte) && character_of(byte) == character)
            return (int)byte;
    return -1;
}

size_t psk_bpe_write_byte(unsigned char byte, char name[PSK_BPE_CHARACTER_SIZE]) {
    const unsigned int character = character_of(byte);
    if (character < 0x80) {
        name[0] = (char)character;
        return 1;
    }
    name[0] = (char)(0xC0 | character >> 6);
    name[1] = (char)(0x80 | (character & 0x3F));
    return 2;
}

bool psk_bpe_read_bytes(const char *name, size_t length, char *bytes, size_t *size) {
    const unsigned char *const text = (const unsigned char *)name;
    *size = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned int character = text[i];
        if (character >= 0x80) {
            if (i + 1 == length || (character & 0xE0) != 0xC0)
                return false;
            character = (character & 0x1F) << 6 | (text[++i] & 0x3F);
        }
        const int byte = byte_of(character);
        if (byte < 0)
            return false;
        bytes[(*size)++] = (char)byte;
    }
    return true;
}
