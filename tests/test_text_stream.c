/* psk_text_stream: whole characters, stop strings, and the same text however the bytes are cut. */
#include "support.h"

#include "base/memory.h"
#include "base/rng.h"
#include "polysketch.h"
#include "text_stream_oracle.h"

#include <stdio.h>

#define SEED     20240713
#define CAPACITY 1024
#define FFFD     "\xEF\xBF\xBD"
#define SMILE    "\xF0\x9F\x98\x80"

static psk_text_stream *make(const char *const *stops, int64_t stop_count) {
    psk_text_stream *stream;
    PSK_TEST_OK(psk_text_stream_create(stops, stop_count, &stream));
    return stream;
}

/* Pushes the bytes and appends what is shown to out. */
static int push(psk_text_stream *stream, const char *bytes, size_t size, char *out) {
    const char *text = NULL;
    size_t text_size = 0;
    int stopped = -1;
    PSK_TEST_OK(psk_text_stream_push(stream, bytes, size, &text, &text_size, &stopped));
    strncat(out, text, text_size);
    return stopped;
}

static void finish(psk_text_stream *stream, char *out) {
    const char *text = NULL;
    size_t text_size = 0;
    PSK_TEST_OK(psk_text_stream_finish(stream, &text, &text_size));
    strncat(out, text, text_size);
}

/* ---------------------------------------------------------------------------------------------------------- examples
 */

/* Pieces that come (ending with NULL), and what is shown after each. stops end with NULL too. */
static void expect(const char *const *stops, const char *const *pieces, const char *const *shown, const char *rest) {
    int64_t count = 0;
    while (stops[count])
        count++;
    psk_text_stream *const stream = make(stops, count);
    for (; *pieces; pieces++, shown++) {
        char out[CAPACITY] = "";
        push(stream, *pieces, strlen(*pieces), out);
        assert_string_equal(out, *shown);
    }
    char out[CAPACITY] = "";
    finish(stream, out);
    assert_string_equal(out, rest);
    psk_text_stream_free(stream);
}
#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_characters(void **state) {
    (void)state;
    expect(LIST(NULL), LIST("a", "\xC3", "\xA9", SMILE), LIST("a", "", "\xC3\xA9", SMILE), "");
    expect(LIST(NULL), LIST("\xF0\x9F", "\x98\x80!"), LIST("", SMILE "!"), "");
    expect(LIST(NULL), LIST("\xF0\x9F", "x", "\x80", "\xE2\x82"), LIST("", FFFD "x", FFFD, ""), FFFD);
    expect(LIST(NULL), LIST(""), LIST(""), "");
}

static void test_stops(void **state) {
    (void)state;
    expect(LIST("END"), LIST("the E", "N", "D of it", "more"), LIST("the ", "", "", ""), "");
    expect(LIST("END"), LIST("the E", "N", "x"), LIST("the ", "", "ENx"), "");
    expect(LIST("END"), LIST("the EN"), LIST("the "), "EN"); /* the end of the bytes lets it go */
    /* stop strings that share a beginning with the text, with themselves and with each other */
    expect(LIST("aab"), LIST("a", "a", "a", "a", "b"), LIST("", "", "a", "a", ""), "");
    expect(LIST("abab", "abc"), LIST("ab", "ab"), LIST("", ""), "");
    expect(LIST("abab", "abc"), LIST("aba", "c"), LIST("", "abac"), "");
    expect(LIST("ababc", "babd"), LIST("abab", "d"), LIST("", "a"), "");
    expect(LIST("b", "abc"), LIST("xab", "c"), LIST("xa", ""), ""); /* the first to be complete */
    expect(LIST("b", "ab"), LIST("xab"), LIST("x"), "");            /* of two at one place the longer */
    expect(LIST("ab", "b"), LIST("xab"), LIST("x"), "");
    expect(LIST("\n\n"), LIST("one\n", "two\n", "\n", "three"), LIST("one", "\ntwo", "", ""), "");
    /* characters of several bytes before, in and as stop strings */
    expect(LIST("stop"), LIST(SMILE, "st", "op"), LIST(SMILE, "", ""), "");
    expect(LIST("stop"), LIST("\xF0\x9F\x98", "\x80stop"), LIST("", SMILE), "");
    expect(LIST("\xC3\xA9"), LIST("\xC3", "\xA8\xC3", "\xA9"), LIST("", "\xC3\xA8", ""), "");
    expect(LIST(SMILE "!"), LIST("a" SMILE, "?", SMILE "!"), LIST("a", SMILE "?", ""), "");
    expect(LIST(FFFD),
           LIST("a\xFF"
                "b"),
           LIST("a"), ""); /* the text is what is looked at, not the bytes */
    expect(LIST(FFFD), LIST("a\xE2\x82"), LIST("a"), "");
}

/* After `finish` a stream is as new, also after a stop and with something held back. */
static void test_again(void **state) {
    (void)state;
    psk_text_stream *const stream = make(LIST("END", "xyz"), 2);
    for (int i = 0; i < 3; i++) {
        char out[CAPACITY] = "";
        assert_int_equal(push(stream, "good EN", 7, out), 0);
        assert_int_equal(push(stream, "D\xE2", 2, out), 1);
        assert_int_equal(push(stream, "nothing", 7, out), 1);
        finish(stream, out);
        assert_string_equal(out, "good ");
        assert_int_equal(push(stream, "D xy", 4, out), 0);
        finish(stream, out);
        assert_string_equal(out, "good D xy");
        assert_int_equal(push(stream, "z \xE2", 3, out), 0);
        finish(stream, out);
        assert_string_equal(out, "good D xyz " FFFD);
    }
    psk_text_stream_free(stream);
    psk_text_stream_free(NULL);
}

/* A piece may be longer than all before, and hold bytes that each become three. */
static void test_long_pieces(void **state) {
    (void)state;
    static char bytes[100000];
    memset(bytes, 0xFF, sizeof bytes);
    psk_text_stream *const stream = make(NULL, 0);
    size_t total = 0;
    for (size_t size = 1; size <= sizeof bytes; size *= 10) {
        const char *text;
        size_t text_size;
        int stopped;
        PSK_TEST_OK(psk_text_stream_push(stream, bytes, size, &text, &text_size, &stopped));
        assert_int_equal(text_size, 3 * size);
        for (size_t i = 0; i < text_size; i += 3)
            assert_memory_equal(text + i, FFFD, 3);
        total += text_size;
    }
    assert_int_equal(total, 3 * 111111);
    psk_text_stream_free(stream);
}

/* ---------------------------------------------------------------------------------------------------------- property
 */

/* Few pieces, so that stop strings and characters come up often, whole and broken. */
static const char *const pieces[] = {"a",    "b",    "ab",       "\n",   "\xC3\xA9",     SMILE,
                                     "\xF0", "\x9F", "\xE2\x82", "\xA9", "\xEF\xBF\xBD", "\xED\xA0\x80"};

static size_t random_bytes(psk_rng *rng, char *bytes, size_t most) {
    size_t size = 0;
    const uint64_t count = psk_rng_below(rng, most);
    bytes[0] = '\0';
    for (uint64_t i = 0; i < count; i++) {
        const char *const piece = pieces[psk_rng_below(rng, sizeof pieces / sizeof pieces[0])];
        strcpy(bytes + size, piece);
        size += strlen(piece);
    }
    return size;
}

/* One cut of the bytes into pushes: after each what is shown must be what the oracle says of all bytes so far. */
static void check_cut(psk_rng *rng, psk_text_stream *stream, const char *const *stops, size_t stop_count,
                      const char *bytes, size_t size) {
    char got[CAPACITY] = "", want[CAPACITY];
    bool stopped;
    const uint64_t most = 1 + psk_rng_below(rng, 8);
    for (size_t done = 0; done < size;) {
        size_t piece = 1 + (size_t)psk_rng_below(rng, most);
        if (piece > size - done)
            piece = size - done;
        const int said = push(stream, bytes + done, piece, got);
        done += piece;
        want[oracle_shown((const unsigned char *)bytes, done, false, stops, stop_count, want, &stopped)] = '\0';
        assert_string_equal(got, want);
        assert_int_equal(said, stopped);
    }
    finish(stream, got);
    want[oracle_shown((const unsigned char *)bytes, size, true, stops, stop_count, want, &stopped)] = '\0';
    assert_string_equal(got, want);
}

static void test_every_cut(void **state) {
    (void)state;
    psk_rng rng = psk_rng_make(SEED, 0);
    int64_t with_stop = 0;
    print_message("seed %d\n", SEED);
    for (int round = 0; round < 4000; round++) {
        char stop_bytes[3][64], stop_texts[3][256], bytes[256];
        const char *stops[3];
        size_t stop_count = (size_t)psk_rng_below(&rng, 4);
        for (size_t s = 0; s < stop_count; s++) {
            const size_t size = random_bytes(&rng, stop_bytes[s], 5);
            stop_texts[s][oracle_decode((const unsigned char *)stop_bytes[s], size, true, stop_texts[s])] = '\0';
            stops[s] = stop_texts[s][0] ? stop_texts[s] : "ba";
        }
        psk_text_stream *const stream = make(stops, (int64_t)stop_count);
        const size_t size = random_bytes(&rng, bytes, 40);
        for (int cut = 0; cut < 4; cut++)
            check_cut(&rng, stream, stops, stop_count, bytes, size);
        char text[CAPACITY];
        bool stopped;
        oracle_shown((const unsigned char *)bytes, size, true, stops, stop_count, text, &stopped);
        with_stop += stopped;
        psk_text_stream_free(stream);
    }
    assert_in_range(with_stop, 800, 3200);
}

/* ----------------------------------------------------------------------------------------------------------- refused
 */

static void test_refused(void **state) {
    (void)state;
    psk_text_stream *stream;
    PSK_TEST_FAILS(psk_text_stream_create(LIST("a", ""), 2, &stream), PSK_ERROR_ARGUMENT, "stop string 1 is empty");
    assert_null(stream);
    PSK_TEST_FAILS(psk_text_stream_create(LIST(NULL), 1, &stream), PSK_ERROR_ARGUMENT, "stop string 0 is empty");
    static const char *const bad[] = {"\xFF", "a\xC3", "\xC3", "\xED\xA0\x80", "\xE2\x82x", "\x80", "\xC0\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        PSK_TEST_FAILS(psk_text_stream_create(&bad[i], 1, &stream), PSK_ERROR_ARGUMENT, "stop string 0 is not UTF-8");
    PSK_TEST_FAILS(psk_text_stream_create(NULL, -1, &stream), PSK_ERROR_ARGUMENT, "stop_count -1");
}

static psk_status run_once(void *unused) {
    (void)unused;
    psk_text_stream *stream;
    const char *text;
    size_t size;
    int stopped;
    psk_status status;
    PSK_TRY(psk_text_stream_create(LIST("ab", "c"), 2, &stream));
    PSK_TRY_GOTO(status, psk_text_stream_push(stream, "xa", 2, &text, &size, &stopped), done);
    PSK_TRY_GOTO(status,
                 psk_text_stream_push(stream, "this is longer than the room that it has", 40, &text, &size, &stopped),
                 done);
    status = psk_text_stream_finish(stream, &text, &size);
done:
    psk_text_stream_free(stream);
    return status;
}

/* A push that found no memory may be repeated. */
static void test_out_of_memory(void **state) {
    (void)state;
    assert_int_equal(psk_test_allocation_failures(run_once, NULL), 8);
    psk_text_stream *const stream = make(LIST("ab"), 1);
    char out[CAPACITY] = "";
    const char *text;
    size_t size;
    int stopped;
    push(stream, "xa", 2, out);
    psk_alloc_fail_after(1);
    PSK_TEST_FAILS(psk_text_stream_push(stream, "bcdefghijklmnopqrstuvwxyz", 25, &text, &size, &stopped),
                   PSK_ERROR_MEMORY, "");
    psk_alloc_fail_after(0);
    assert_int_equal(push(stream, "xbcdefghijklmnopqrstuvwxyz", 26, out), 0);
    assert_string_equal(out, "xaxbcdefghijklmnopqrstuvwxyz");
    psk_text_stream_free(stream);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_characters),    cmocka_unit_test(test_stops),     cmocka_unit_test(test_again),
        cmocka_unit_test(test_long_pieces),   cmocka_unit_test(test_every_cut), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests_name("text_stream", tests, NULL, NULL);
}
