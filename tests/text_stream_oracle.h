/* psk_text_stream by its definition, on whole strings and without state: what the tests and the fuzz target compare
 * with. */
#ifndef PSK_TESTS_TEXT_STREAM_ORACLE_H
#define PSK_TESTS_TEXT_STREAM_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Well-formed UTF-8: Unicode, section 3.9, table 3-7. Third and fourth bytes are 80 ... BF. */
static const struct {
    unsigned char first[2], second[2];
    size_t size;
} oracle_rows[] = {
    {{0x00, 0x7F}, {0, 0}, 1},       {{0xC2, 0xDF}, {0x80, 0xBF}, 2}, {{0xE0, 0xE0}, {0xA0, 0xBF}, 3},
    {{0xE1, 0xEC}, {0x80, 0xBF}, 3}, {{0xED, 0xED}, {0x80, 0x9F}, 3}, {{0xEE, 0xEF}, {0x80, 0xBF}, 3},
    {{0xF0, 0xF0}, {0x90, 0xBF}, 4}, {{0xF1, 0xF3}, {0x80, 0xBF}, 4}, {{0xF4, 0xF4}, {0x80, 0x8F}, 4},
};

static bool oracle_within(unsigned char byte, const unsigned char range[2]) {
    return byte >= range[0] && byte <= range[1];
}

/* How many of the bytes at `bytes` are the character, or the longest beginning of one; *whole: is it all of it? */
static size_t oracle_character(const unsigned char *bytes, size_t size, bool *whole) {
    static const unsigned char rest[2] = {0x80, 0xBF};
    *whole = false;
    for (size_t r = 0; r < sizeof oracle_rows / sizeof oracle_rows[0]; r++) {
        if (!oracle_within(bytes[0], oracle_rows[r].first))
            continue;
        size_t count = 1;
        while (count < size && count < oracle_rows[r].size &&
               oracle_within(bytes[count], count == 1 ? oracle_rows[r].second : rest))
            count++;
        *whole = count == oracle_rows[r].size;
        return count;
    }
    return 1;
}

/* Text of the bytes into out (3 bytes for each), how long returned. ended: no more bytes come; otherwise the beginning
 * of a character at the end is left out. */
static size_t oracle_decode(const unsigned char *bytes, size_t size, bool ended, char *out) {
    size_t used = 0;
    for (size_t i = 0, count; i < size; i += count) {
        bool whole;
        count = oracle_character(bytes + i, size - i, &whole);
        const bool possible = count > 1 || oracle_within(bytes[i], (const unsigned char[2]){0xC2, 0xF4});
        if (!whole && !ended && possible && i + count == size)
            break;
        memcpy(out + used, whole ? (const char *)bytes + i : "\xEF\xBF\xBD", whole ? count : 3);
        used += whole ? count : 3;
    }
    return used;
}

static bool oracle_ends_with(const char *text, size_t size, const char *end, size_t end_size) {
    return end_size <= size && memcmp(text + size - end_size, end, end_size) == 0;
}

/* The text before the stop string that is complete first (the longest of several), and whether there is one. */
static size_t oracle_stop(const char *text, size_t size, const char *const *stops, size_t stop_count, bool *stopped) {
    *stopped = true;
    for (size_t end = 1; end <= size; end++) {
        size_t longest = 0;
        for (size_t s = 0; s < stop_count; s++)
            if (strlen(stops[s]) > longest && oracle_ends_with(text, end, stops[s], strlen(stops[s])))
                longest = strlen(stops[s]);
        if (longest > 0)
            return end - longest;
    }
    *stopped = false;
    return size;
}

/* Bytes at the end of the text that may be the beginning of a stop string. */
static size_t oracle_held(const char *text, size_t size, const char *const *stops, size_t stop_count) {
    size_t held = 0;
    for (size_t s = 0; s < stop_count; s++)
        for (size_t n = 1; n < strlen(stops[s]); n++)
            if (n > held && oracle_ends_with(text, size, stops[s], n))
                held = n;
    return held;
}

/* What has been shown after these bytes, into out; how long returned. */
static size_t oracle_shown(const unsigned char *bytes, size_t size, bool ended, const char *const *stops,
                           size_t stop_count, char *out, bool *stopped) {
    const size_t decoded = oracle_decode(bytes, size, ended, out);
    const size_t used = oracle_stop(out, decoded, stops, stop_count, stopped);
    return *stopped || ended ? used : used - oracle_held(out, used, stops, stop_count);
}

#endif
