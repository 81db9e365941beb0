/* The stream of characters: whole ones only, U+FFFD for what is none. */
#include "support.h"

#include "base/utf8.h"

#include <stdio.h>
#include <string.h>

/* Pushes `size` bytes; after each, what has come out so far must be whole characters. */
static size_t stream(const unsigned char *bytes, size_t size, char *out) {
    psk_utf8_stream s = {.count = 0};
    size_t used = 0;
    for (size_t i = 0; i < size; i++)
        used += psk_utf8_push(&s, bytes[i], out + used);
    return used + psk_utf8_finish(&s, out + used);
}

static void check(const char *bytes, const char *expected) {
    char out[256];
    const size_t size = stream((const unsigned char *)bytes, strlen(bytes), out);
    out[size] = '\0';
    assert_string_equal(out, expected);
}

#define FFFD "\xEF\xBF\xBD"

static void test_characters(void **state) {
    (void)state;
    check("", "");
    check("plain\n", "plain\n");
    check("\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");         /* 2, 3, 4 bytes */
    check("\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF", "\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF"); /* first and last */
    check("\xF0\x90\x80\x80\xF4\x8F\xBF\xBF\xED\x9F\xBF\xEE\x80\x80",
          "\xF0\x90\x80\x80\xF4\x8F\xBF\xBF\xED\x9F\xBF\xEE\x80\x80");
}

/* Examples of the Unicode standard, section 3.9, tables 3-8 to 3-11. */
static void test_replacement(void **state) {
    (void)state;
    check("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", FFFD FFFD FFFD FFFD FFFD FFFD FFFD FFFD "A");
    check("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", FFFD FFFD FFFD FFFD FFFD FFFD FFFD FFFD "A");
    check("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", FFFD FFFD FFFD FFFD FFFD "A" FFFD FFFD "B");
    check("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", FFFD FFFD FFFD FFFD "A");
    check("x\xE2\x82", "x" FFFD); /* not finished */
}

/* A character comes out with its last byte and not before. */
static void test_timing(void **state) {
    (void)state;
    psk_utf8_stream s = {.count = 0};
    char out[PSK_UTF8_OUTPUT_CAPACITY];
    assert_int_equal(psk_utf8_push(&s, 0xF0, out), 0);
    assert_int_equal(psk_utf8_push(&s, 0x9F, out), 0);
    assert_int_equal(psk_utf8_push(&s, 0x98, out), 0);
    assert_int_equal(psk_utf8_push(&s, 0x80, out), 4);
    assert_memory_equal(out, "\xF0\x9F\x98\x80", 4);
    assert_int_equal(psk_utf8_finish(&s, out), 0);
}

/* Whether `length` bytes, the third and fourth of them continuing, are a character: by the number that they spell. */
static bool spells_a_character(const unsigned char *bytes, size_t length) {
    static const unsigned int least[] = {0, 0x80, 0x800, 0x10000};
    unsigned int number = length == 1 ? bytes[0] : bytes[0] & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++)
        number = number << 6 | (bytes[i] & 0x3F);
    return (length == 1 || (bytes[1] & 0xC0) == 0x80) && number >= least[length - 1] && number <= 0x10FFFF &&
           (number < 0xD800 || number > 0xDFFF);
}

/* All first bytes with all second ones: a character is valid, comes out of the stream as it is, and not without its
 * last byte; what is none is neither. */
static void test_validity(void **state) {
    (void)state;
    for (unsigned int first = 0; first < 256; first++)
        for (unsigned int second = 0; second < 256; second++) {
            const unsigned char bytes[] = {(unsigned char)first, (unsigned char)second, 0xBF, 0x80};
            const char *const text = (const char *)bytes;
            const size_t length = first < 0x80 ? 1 : first < 0xC0 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
            const bool whole = length > 0 && first < 0xF8 && spells_a_character(bytes, length);
            char out[64];
            assert_int_equal(psk_utf8_valid_end(text, length ? length : 1, 0), whole ? length : 0);
            if (length > 1)
                assert_int_equal(psk_utf8_valid_end(text, length - 1, 0), 0);
            if (length > 0)
                assert_true(whole == (stream(bytes, length, out) == length && memcmp(out, bytes, length) == 0));
        }
}

static void test_valid_end(void **state) {
    (void)state;
    for (size_t bad = 0; bad < 40; bad++) { /* wherever it is in the words that are looked at */
        char text[43] = "forty letters, and \xC3\xA9 somewhere in between";
        const size_t end = bad == 20 ? 19 : bad; /* in the midst of a character */
        text[bad] = '\xFF';
        assert_int_equal(psk_utf8_valid_end(text, 40, 0), end);
        assert_int_equal(psk_utf8_valid_end(text, 40, end), end);
        assert_int_equal(psk_utf8_valid_end(text, bad, 0), end);
    }
    assert_int_equal(psk_utf8_valid_end("\xE2\x82x", 3, 0), 0);
    assert_int_equal(psk_utf8_valid_end("\xF0\x9Fx\x80", 4, 0), 0);
    assert_int_equal(psk_utf8_valid_end("\xF0\x9F\x98x", 4, 0), 0);
    assert_int_equal(psk_utf8_valid_end("", 0, 0), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_characters), cmocka_unit_test(test_replacement), cmocka_unit_test(test_timing),
        cmocka_unit_test(test_validity),   cmocka_unit_test(test_valid_end),
    };
    return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}
