/* JSON: what is read, what is refused and with which words, and what happens without memory. */
#include "support.h"

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *parse(const char *text) {
    json_t *object;
    PSK_TEST_OK(psk_json_parse(text, strlen(text), "config", &object));
    return object;
}

static void getters(void **state) {
    (void)state;
    json_t *object = parse("{\"n\": 7, \"x\": 0.5, \"yes\": true, \"no\": false, \"s\": \"text\"}");
    int64_t n = 1;
    double x = 1;
    bool yes = false, no = true;
    const char *s = NULL;
    PSK_TEST_OK(psk_json_int(object, "config", "n", 7, 7, &n));
    assert_int_equal(n, 7);
    PSK_TEST_OK(psk_json_double(object, "config", "x", 0.5, 1, &x));
    assert_true(x == 0.5);
    PSK_TEST_OK(psk_json_double(object, "config", "n", 0, 9, &x)); /* an integer is a number */
    assert_true(x == 7);
    PSK_TEST_OK(psk_json_bool(object, "config", "yes", &yes));
    PSK_TEST_OK(psk_json_bool(object, "config", "no", &no));
    assert_true(yes && !no);
    PSK_TEST_OK(psk_json_string(object, "config", "s", &s));
    assert_string_equal(s, "text");

    PSK_TEST_OK(psk_json_int(object, "config", "absent", 0, 9, &n));
    PSK_TEST_OK(psk_json_double(object, "config", "absent", 0, 9, &x));
    PSK_TEST_OK(psk_json_bool(object, "config", "absent", &yes));
    PSK_TEST_OK(psk_json_string(object, "config", "absent", &s));
    assert_true(n == 7 && x == 7 && yes);
    assert_string_equal(s, "text");
    json_decref(object);
}

static void wrong_values_are_named(void **state) {
    (void)state;
    json_t *object = parse("{\"n\": 7, \"x\": 0.5, \"s\": \"text\", \"none\": null, \"list\": "
                           "[1000000000, 1000000000, 1000000000, 1000000000, 1000000000, 1000000000, 1000000000]}");
    int64_t n = 1;
    double x = 1;
    bool b = false;
    const char *s = NULL;
    PSK_TEST_FAILS(psk_json_int(object, "config", "n", 8, 9, &n), PSK_ERROR_FORMAT, "config: \"n\" is 7",
                   "an integer from 8 to 9");
    PSK_TEST_FAILS(psk_json_int(object, "config", "n", 0, 6, &n), PSK_ERROR_FORMAT, "from 0 to 6");
    PSK_TEST_FAILS(psk_json_int(object, "config", "x", 0, 9, &n), PSK_ERROR_FORMAT, "\"x\" is 0.5", "an integer");
    PSK_TEST_FAILS(psk_json_int(object, "config", "none", 0, 9, &n), PSK_ERROR_FORMAT, "\"none\" is null");
    PSK_TEST_FAILS(psk_json_int(object, "config", "list", 0, 9, &n), PSK_ERROR_FORMAT, "[1000000000,", "..., expected");
    PSK_TEST_FAILS(psk_json_double(object, "config", "x", 0.75, 2, &x), PSK_ERROR_FORMAT, "a number from 0.75 to 2");
    PSK_TEST_FAILS(psk_json_double(object, "config", "s", 0, 2, &x), PSK_ERROR_FORMAT, "\"s\" is \"text\"");
    PSK_TEST_FAILS(psk_json_bool(object, "config", "n", &b), PSK_ERROR_FORMAT, "\"n\" is 7", "true or false");
    PSK_TEST_FAILS(psk_json_string(object, "config", "n", &s), PSK_ERROR_FORMAT, "\"n\" is 7", "a string");
    assert_true(n == 1 && x == 1 && !b && !s);
    json_decref(object);
}

static void bad_text_is_refused(void **state) {
    (void)state;
    json_t *object = NULL;
#define FAILS(text, ...)                                                                                               \
    PSK_TEST_FAILS(psk_json_parse(text, sizeof text - 1, "here", &object), PSK_ERROR_FORMAT, "here", __VA_ARGS__)
    FAILS("", "not valid JSON");
    FAILS("{\"a\": 1,\n \"b\" 2}", "line 2");
    FAILS("{\"a\": 1, \"a\": 2}", "duplicate", "\"a\"");
    FAILS("{\"a\": 1} x", "end of file expected");
    FAILS("{\"a\": 99999999999999999999}", "too big integer");
    FAILS("{\"a\": \"\xff\"}", "unable to decode byte 0xff");
    FAILS("{\"a\0b\": 1}", "not valid JSON");
    FAILS("[1]", "not an object");
#undef FAILS
    assert_null(object);
    char deep[100000];
    memset(deep, '[', sizeof deep);
    PSK_TEST_FAILS(psk_json_parse(deep, sizeof deep, "here", &object), PSK_ERROR_FORMAT, "depth");
}

static void save_and_load(void **state) {
    (void)state;
    char *folder = psk_test_folder(), *path, *text;
    size_t size;
    json_t *object = parse("{\"z\": 1, \"a\": [true, \"b\"]}"), *loaded;
    PSK_TEST_OK(psk_join_path(folder, "config.json", &path));
    PSK_TEST_OK(psk_json_save(path, object));
    PSK_TEST_OK(psk_read_file(path, 1000, &text, &size));
    assert_string_equal(text, "{\n  \"z\": 1,\n  \"a\": [\n    true,\n    \"b\"\n  ]\n}\n");
    PSK_TEST_OK(psk_json_load(path, &loaded));
    assert_true(json_equal(object, loaded));
    json_decref(loaded);
    json_decref(object);
    psk_free(text);
    PSK_TEST_OK(psk_write_file(path, "{\"a\": }", 7));
    PSK_TEST_FAILS(psk_json_load(path, &loaded), PSK_ERROR_FORMAT, path, "line 1");
    assert_null(loaded);
    PSK_TEST_FAILS(psk_json_load("/no/such", &loaded), PSK_ERROR_FILE, "/no/such");
    psk_free(path);
    psk_test_remove_folder(folder);
}

static void set(void **state) {
    (void)state;
    psk_json_init();
    json_t *object = json_object();
    PSK_TEST_OK(psk_json_set(object, "lr", json_real(0.5)));
    PSK_TEST_FAILS(psk_json_set(object, "loss", json_real(NAN)), PSK_ERROR_ARGUMENT, "loss", "not finite");
    PSK_TEST_FAILS(psk_json_set(object, "text", json_string("\xff")), PSK_ERROR_ARGUMENT, "text", "UTF-8");
    psk_alloc_fail_after(1);
    PSK_TEST_FAILS(psk_json_set(object, "key", json_integer(1)), PSK_ERROR_MEMORY, "out of memory", "key");
    psk_alloc_fail_after(0);
    assert_int_equal(json_object_size(object), 1);
    json_decref(object);
}

static psk_status build_save_load(void *path) {
    static const char text[] =
        "{\"a\": {\"b\": [1, 2.5, \"three\", null]}, \"long\": \"0123456789012345678901234567890\"}";
    json_t *object, *loaded = NULL;
    psk_status status;
    PSK_TRY(psk_json_parse(text, sizeof text - 1, "text", &object));
    PSK_TRY_GOTO(status, psk_json_set(object, "more", json_integer(5)), done);
    PSK_TRY_GOTO(status, psk_json_save(path, object), done);
    PSK_TRY_GOTO(status, psk_json_load(path, &loaded), done);
    assert_true(json_equal(object, loaded));
done:
    json_decref(object);
    json_decref(loaded);
    return status;
}

static void without_memory(void **state) {
    (void)state;
    char *folder = psk_test_folder(), *path;
    PSK_TEST_OK(psk_join_path(folder, "x.json", &path));
    assert_true(psk_test_allocation_failures(build_save_load, path) > 20);
    psk_free(path);
    psk_test_remove_folder(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(getters),
        cmocka_unit_test(wrong_values_are_named),
        cmocka_unit_test(bad_text_is_refused),
        cmocka_unit_test(save_and_load),
        cmocka_unit_test(set),
        cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
