#include "data/text_cut.h"

#include <math.h>
#include <string.h>

static bool is_space(unsigned char byte) {
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

static bool continues_character(unsigned char byte) {
    return (byte & 0xc0) == 0x80;
}

/* `at`, moved back to the first byte of the UTF-8 character it is in; where the bytes are not UTF-8 it stays. */
static int64_t character_begin(const unsigned char *text, int64_t at) {
    int64_t begin = at;
    while (begin > 0 && at - begin < 3 && continues_character(text[begin]))
        begin--;
    return continues_character(text[begin]) ? at : begin;
}

int64_t psk_cut_piece(const unsigned char *text) {
    for (int64_t i = PSK_PIECE_BYTES; i > PSK_PIECE_BYTES / 2; i--)
        if ((text[i] == ' ' || text[i] == '\n') && !is_space(text[i - 1]))
            return i;
    return character_begin(text, PSK_PIECE_BYTES);
}

int64_t psk_cut_near(const unsigned char *text, int64_t at) {
    const int64_t first = at > PSK_CUT_WINDOW ? at - PSK_CUT_WINDOW : 0;
    for (int64_t i = at; i > first; i--)
        if (text[i - 1] == '\n')
            return i;
    return character_begin(text, at);
}

int64_t psk_cut_tail(int64_t size, double fraction) {
    return (int64_t)floor((double)size * (1 - fraction));
}

/* Length of the first line with its end; 0: it does not end. */
static int64_t line_length(const unsigned char *text, int64_t size) {
    const unsigned char *const end = size > 0 ? memchr(text, '\n', (size_t)size) : NULL;
    return end ? end - text + 1 : 0;
}

bool psk_is_blank(const unsigned char *text, int64_t size) {
    int64_t i = 0;
    while (i < size && is_space(text[i]))
        i++;
    return i == size;
}

/* " = Title = \n", but not " = = Section = = \n". */
static bool is_title(const unsigned char *line, int64_t length) {
    while (length > 0 && is_space(line[length - 1]))
        length--;
    return length > 5 && memcmp(line, " = ", 3) == 0 && line[3] != '=' && memcmp(line + length - 2, " =", 2) == 0 &&
           memcmp(line + length - 4, " = =", 4) != 0;
}

/* A title begins an article after an empty line: formulas that look like one stand between lines of text. Calls of this
 * walk along the lines; *after_blank is true where the text begins. */
static bool begins_article(const unsigned char *line, int64_t length, bool *after_blank) {
    const bool begins = *after_blank && is_title(line, length);
    *after_blank = psk_is_blank(line, length);
    return begins;
}

static int64_t last_article(const unsigned char *text, int64_t size) {
    int64_t last = 0, length;
    bool after_blank = true;
    for (int64_t at = 0; (length = line_length(text + at, size - at)) > 0; at += length)
        if (begins_article(text + at, length, &after_blank))
            last = at;
    return last;
}

static int64_t first_article(const unsigned char *text, int64_t size) {
    int64_t length;
    bool after_blank = true;
    for (int64_t at = 0; (length = line_length(text + at, size - at)) > 0; at += length)
        if (begins_article(text + at, length, &after_blank) && at > 0)
            return at;
    return size;
}

bool psk_is_wikitext(const unsigned char *text, int64_t size) {
    int64_t at = 0, length;
    while ((length = line_length(text + at, size - at)) > 0 && psk_is_blank(text + at, length))
        at += length;
    return length > 0 && is_title(text + at, length);
}

int64_t psk_last_record(psk_text_format format, const unsigned char *text, int64_t size) {
    if (format == PSK_FORMAT_WIKITEXT)
        return last_article(text, size);
    while (size > 0 && text[size - 1] != '\n')
        size--;
    return size;
}

int64_t psk_first_record(psk_text_format format, const unsigned char *text, int64_t size) {
    if (format == PSK_FORMAT_WIKITEXT)
        return first_article(text, size);
    const int64_t length = line_length(text, size);
    return length > 0 ? length : size;
}
