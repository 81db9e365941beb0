/* Tokenizers: "bytes". */
#include "base/files.h"
#include "base/memory.h"
#include "data/tokenizer.h"
#include "support.h"

#include <stdio.h>
#include <string.h>

static int set_up(void **state) {
    return psk_test_place_enter(state, PSK_TOKENIZER_FILE);
}

static void write_text(const psk_test_place *place, const char *text) {
    PSK_TEST_OK(psk_write_file(place->path, text, strlen(text)));
}

static void bytes_there_and_back(void **state) {
    (void)state;
    psk_tokenizer *tokenizer;
    char text[256];
    const char *out;
    int32_t *tokens;
    int64_t count;
    size_t size;
    for (int i = 0; i < 256; i++)
        text[i] = (char)i;
    PSK_TEST_OK(psk_tokenizer_load("bytes", &tokenizer));
    assert_string_equal(psk_tokenizer_name(tokenizer), "bytes");
    assert_int_equal(psk_tokenizer_vocab_size(tokenizer), 257);
    assert_int_equal(psk_tokenizer_end_of_text(tokenizer), 256);
    PSK_TEST_OK(psk_tokenizer_encode(tokenizer, text, sizeof text, &tokens, &count));
    assert_int_equal(count, 256);
    for (int i = 0; i < 256; i++) {
        assert_int_equal(tokens[i], i);
        PSK_TEST_OK(psk_tokenizer_token_text(tokenizer, tokens[i], &out, &size));
        assert_int_equal(size, 1);
        assert_int_equal((unsigned char)out[0], i);
    }
    psk_buffer_free(tokens);
    PSK_TEST_OK(psk_tokenizer_token_text(tokenizer, 256, &out, &size));
    assert_int_equal(size, 0);
    PSK_TEST_FAILS(psk_tokenizer_token_text(tokenizer, 257, &out, &size), PSK_ERROR_ARGUMENT, "257", "256");
    PSK_TEST_FAILS(psk_tokenizer_token_text(tokenizer, -1, &out, &size), PSK_ERROR_ARGUMENT, "-1");
    PSK_TEST_OK(psk_tokenizer_check(tokenizer, 257));
    PSK_TEST_FAILS(psk_tokenizer_check(tokenizer, 256), PSK_ERROR_ARGUMENT, "257", "256");
    psk_tokenizer_free(tokenizer);
}

static void bytes_in_a_folder(void **state) {
    const psk_test_place *place = *state;
    psk_tokenizer *tokenizer, *found;
    PSK_TEST_OK(psk_tokenizer_load("bytes", &tokenizer));
    PSK_TEST_OK(psk_tokenizer_save(tokenizer, place->folder));
    PSK_TEST_OK(psk_tokenizer_load(place->folder, &found));
    assert_string_equal(psk_tokenizer_name(found), "bytes");
    psk_tokenizer_free(found);
    PSK_TEST_OK(psk_tokenizer_load(place->path, &found));
    assert_string_equal(psk_tokenizer_name(found), "bytes");
    psk_tokenizer_free(found);
    psk_tokenizer_free(tokenizer);
}

static void what_is_no_tokenizer(void **state) {
    const psk_test_place *place = *state;
    psk_tokenizer *tokenizer;
    PSK_TEST_FAILS(psk_tokenizer_load("gpt9", &tokenizer), PSK_ERROR_ARGUMENT, "gpt9", "bytes");
    PSK_TEST_FAILS(psk_tokenizer_load(NULL, &tokenizer), PSK_ERROR_ARGUMENT, "bytes");
    PSK_TEST_FAILS(psk_tokenizer_load(place->folder, &tokenizer), PSK_ERROR_FILE, place->folder, PSK_TOKENIZER_FILE);
    write_text(place, "{\"tokenizer\": \"bytes\", \"vocab_size\": 256, \"end_of_text\": 255}");
    PSK_TEST_FAILS(psk_tokenizer_load(place->folder, &tokenizer), PSK_ERROR_FORMAT, place->path, "256", "257");
    assert_null(tokenizer);
    write_text(place, "{\"tokenizer\": \"gpt9\", \"vocab_size\": 256, \"end_of_text\": 255}");
    PSK_TEST_FAILS(psk_tokenizer_load(place->path, &tokenizer), PSK_ERROR_FORMAT, place->path, "gpt9");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, psk_test_place_leave)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(bytes_there_and_back),
        TEST(bytes_in_a_folder),
        TEST(what_is_no_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
