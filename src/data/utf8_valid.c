#include "data/utf8_valid.h"

#include <stdint.h>
#include <string.h>

/* Bytes of the well-formed character (Unicode, table 3-7) at text, 0 if there is none. */
static size_t character_size(const unsigned char *text, size_t size) {
    static const struct {
        unsigned char first, last, low, high; /* of the first byte; of the second */
        unsigned char size;
    } forms[] = {
        {0x00, 0x7F, 0x00, 0x00, 1}, {0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3},
        {0xE1, 0xEC, 0x80, 0xBF, 3}, {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3},
        {0xF0, 0xF0, 0x90, 0xBF, 4}, {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4},
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (text[0] < forms[i].first || text[0] > forms[i].last)
            continue;
        if (size < forms[i].size || (forms[i].size > 1 && (text[1] < forms[i].low || text[1] > forms[i].high)))
            return 0;
        for (size_t j = 2; j < forms[i].size; j++)
            if ((text[j] & 0xC0) != 0x80)
                return 0;
        return forms[i].size;
    }
    return 0;
}

size_t psk_utf8_valid_end(const char *text, size_t size, size_t start) {
    const uint64_t high_bits = 0x8080808080808080u;
    size_t at = start;
    while (at < size) {
        uint64_t word;
        if (size - at >= sizeof word && (memcpy(&word, text + at, sizeof word), (word & high_bits) == 0)) {
            at += sizeof word;
            continue;
        }
        const size_t step = character_size((const unsigned char *)text + at, size - at);
        if (step == 0)
            return at;
        at += step;
    }
    return at;
}
