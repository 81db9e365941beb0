/* safetensors: what is read, every kind of damage that is refused and with which words, what is written. */
#include "support.h"

#include "base/bf16.h"
#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "io/safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int enter(void **state) {
    return psk_test_place_enter(state, "x.safetensors");
}

/* Not psk_write_file: hundreds of files that need not be safe on the disk. */
static void put(const char *path, const void *data, size_t bytes) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

/* Writes size, header and `data_bytes` bytes 0, 1, 2 ... */
static void write_raw(const char *path, const char *header, size_t data_bytes) {
    unsigned char bytes[2048];
    const uint64_t length = strlen(header);
    assert_true(8 + length + data_bytes <= sizeof bytes);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, header, length);
    for (size_t i = 0; i < data_bytes; i++)
        bytes[8 + length + i] = (unsigned char)i;
    put(path, bytes, 8 + length + data_bytes);
}

static psk_status try_open(const char *path) {
    psk_safetensors *file;
    const psk_status status = psk_safetensors_open(path, &file);
    assert_true((status == PSK_OK) == (file != NULL));
    psk_safetensors_close(file);
    return status;
}

static void write_and_read(void **state) {
    const psk_test_place *here = *state;
    const float w[6] = {1, -2, 3.5f, 0, 5, 6e30f};
    const double d[2] = {0.5, -1e10};
    const psk_bf16 b[3] = {psk_bf16_from_float(1.5f), psk_bf16_from_float(-2), psk_bf16_from_float(INFINITY)};
    const uint16_t h[6] = {0x3c00, 0xc000, 0x0001, 0x8000, 0x7bff, 0xfc00};
    const int64_t step = 77;
    const unsigned char odd[5] = {1, 2, 3, 4, 5};
    const psk_tensor_source sources[] = {
        {"odd", PSK_U8, 1, {5}, odd},        {"w", PSK_F32, 2, {2, 3}, w},      {"d", PSK_F64, 1, {2}, d},
        {"b", PSK_BF16, 3, {1, 3, 1}, b},    {"h", PSK_F16, 1, {6}, h},         {"step", PSK_I64, 0, {0}, &step},
        {"empty", PSK_F32, 2, {0, 7}, NULL}, {"\xc3\xa9", PSK_U8, 1, {5}, odd},
    };
    const int64_t count = sizeof sources / sizeof sources[0];
    json_t *metadata;
    PSK_TEST_OK(psk_json_parse("{\"p\": \"4\"}", 10, "metadata", &metadata));
    PSK_TEST_OK(psk_safetensors_write(here->path, sources, count, metadata));
    json_decref(metadata);

    psk_safetensors *file;
    PSK_TEST_OK(psk_safetensors_open(here->path, &file));
    assert_string_equal(psk_safetensors_path(file), here->path);
    assert_int_equal(psk_safetensors_count(file), count);
    assert_string_equal(psk_safetensors_metadata(file, "p"), "4");
    assert_null(psk_safetensors_metadata(file, "q"));
    assert_null(psk_safetensors_find(file, "p"));
    assert_null(psk_safetensors_find(file, "__metadata__"));
    assert_string_equal(psk_safetensors_at(file, 0)->name, "odd");
    assert_string_equal(psk_safetensors_at(file, count - 1)->name, "\xc3\xa9");
    for (int64_t i = 0; i < count; i++) {
        const psk_tensor_view *view = psk_safetensors_find(file, sources[i].name);
        assert_non_null(view);
        assert_int_equal(view->dtype, sources[i].dtype);
        assert_int_equal(view->dims, sources[i].dims);
        int64_t product = 1;
        for (int64_t j = 0; j < view->dims; j++) {
            assert_int_equal(view->shape[j], sources[i].shape[j]);
            product *= view->shape[j];
        }
        assert_int_equal(view->count, product);
        if (product)
            assert_memory_equal(view->data, sources[i].data, (size_t)(product * psk_dtype_size(view->dtype)));
    }
    assert_int_equal((uintptr_t)psk_safetensors_at(file, 0)->data % 8, 0); /* the header is padded */

    float *out = psk_test_buffer(6);
    PSK_TEST_OK(psk_safetensors_read_floats(file, "w", 2, (int64_t[]){2, 3}, out));
    assert_memory_equal(out, w, sizeof w);
    PSK_TEST_OK(psk_safetensors_read_floats(file, "d", 1, (int64_t[]){2}, out));
    assert_true(out[0] == 0.5f && out[1] == -1e10f);
    PSK_TEST_OK(psk_safetensors_read_floats(file, "b", 3, (int64_t[]){1, 3, 1}, out));
    assert_true(out[0] == 1.5f && out[1] == -2 && isinf(out[2]));
    PSK_TEST_OK(psk_safetensors_read_floats(file, "h", 1, (int64_t[]){6}, out));
    assert_true(out[0] == 1 && out[1] == -2 && out[2] == 0x1p-24f && out[3] == 0 && signbit(out[3]));
    assert_true(out[4] == 65504 && isinf(out[5]) && out[5] < 0);
    PSK_TEST_OK(psk_safetensors_read_floats(file, "empty", 2, (int64_t[]){0, 7}, NULL));
    psk_test_free(out);
    psk_safetensors_close(file);
}

static void wrong_requests_are_named(void **state) {
    const psk_test_place *here = *state;
    float out[6] = {0};
    const int64_t step = 3;
    const psk_tensor_source sources[] = {{"w", PSK_F32, 2, {2, 3}, out}, {"step", PSK_I64, 0, {0}, &step}};
    PSK_TEST_OK(psk_safetensors_write(here->path, sources, 2, NULL));
    psk_safetensors *file;
    PSK_TEST_OK(psk_safetensors_open(here->path, &file));
    assert_null(psk_safetensors_metadata(file, "p"));
    PSK_TEST_FAILS(psk_safetensors_read_floats(file, "v", 1, (int64_t[]){6}, out), PSK_ERROR_FORMAT, here->path,
                   "\"v\"", "not there", "[6]");
    PSK_TEST_FAILS(psk_safetensors_read_floats(file, "w", 2, (int64_t[]){3, 2}, out), PSK_ERROR_FORMAT, here->path,
                   "\"w\"", "has shape [2, 3]", "expected [3, 2]");
    PSK_TEST_FAILS(psk_safetensors_read_floats(file, "w", 1, (int64_t[]){2}, out), PSK_ERROR_FORMAT, "expected [2]");
    PSK_TEST_FAILS(psk_safetensors_read_floats(file, "step", 0, NULL, out), PSK_ERROR_FORMAT, "\"step\"", "I64");
    psk_safetensors_close(file);
}

static void no_tensors(void **state) {
    const psk_test_place *here = *state;
    write_raw(here->path, "{}", 0);
    PSK_TEST_OK(try_open(here->path));
    write_raw(here->path, "{\"__metadata__\":{\"a\":\"b\"}}   ", 0);
    psk_safetensors *file;
    PSK_TEST_OK(psk_safetensors_open(here->path, &file));
    assert_int_equal(psk_safetensors_count(file), 0);
    assert_string_equal(psk_safetensors_metadata(file, "a"), "b");
    assert_null(psk_safetensors_find(file, "a"));
    psk_safetensors_close(file);
    PSK_TEST_OK(psk_safetensors_write(here->path, NULL, 0, NULL));
    PSK_TEST_OK(try_open(here->path));
    psk_safetensors_close(NULL);
}

static void damaged_prefix(void **state) {
    const psk_test_place *here = *state;
    static const struct {
        uint64_t header;
        size_t bytes; /* of the whole file */
        const char *message;
    } cases[] = {
        {0, 0, "0 bytes are too few"},
        {0, 7, "7 bytes are too few"},
        {0, 8, "does not begin with {"},
        {0, 16, "does not begin with {"},
        {4, 16, "does not begin with {"}, /* zeros */
        {9, 16, "header size 9 is more than the 8 bytes"},
        {100000000, 16, "header size 100000000 is more than the 8 bytes"},
        {100000001, 16, "above the limit of 100000000"},
        {UINT64_MAX, 16, "header size 18446744073709551615 is above the limit"},
        {UINT64_MAX - 7, 16, "above the limit"},
        {(uint64_t)1 << 63, 16, "above the limit"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        unsigned char bytes[16] = {0};
        memcpy(bytes, &cases[i].header, 8);
        put(here->path, bytes, cases[i].bytes);
        PSK_TEST_FAILS(try_open(here->path), PSK_ERROR_FORMAT, here->path, cases[i].message);
    }
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n";
    put(here->path, pointer, sizeof pointer - 1);
    PSK_TEST_FAILS(try_open(here->path), PSK_ERROR_FORMAT, here->path, "Git LFS pointer", "git lfs pull");
    PSK_TEST_FAILS(try_open("/no/such"), PSK_ERROR_FILE, "/no/such");
}

#define A(fields)                     "{\"a\":{" fields "}}"
#define TENSOR(dtype, shape, offsets) "\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets
#define F32_4                         TENSOR("\"F32\"", "[4]", "[0,16]")

static void damaged_header(void **state) {
    const psk_test_place *here = *state;
    /* Each with 16 bytes of data behind it. */
    static const struct {
        const char *header, *message;
    } cases[] = {
        {"{", "not valid JSON"},
        {" {}", "does not begin with {"},
        {"{} {}", "not valid JSON"},
        {A(F32_4) "\x01", "not valid JSON"},
        {"{\"a\":{" F32_4 "},\"a\":{" F32_4 "}}", "duplicate"},
        {A(F32_4 ",\"dtype\":\"F64\""), "duplicate"},
        {"{\"\xff\":1}", "unable to decode byte 0xff"},
        {"{\"a\":[]}", "\"a\": is not described by a JSON object"},
        {"{\"a\":null}", "\"a\": is not described by a JSON object"},
        /* dtype */
        {A("\"shape\":[4],\"data_offsets\":[0,16]"), "\"a\": dtype is missing"},
        {A(TENSOR("4", "[4]", "[0,16]")), "\"a\": dtype is missing or not a string"},
        {A(TENSOR("\"F8_E4M3\"", "[16]", "[0,16]")), "\"a\": dtype \"F8_E4M3\" is not one of"},
        {A(TENSOR("\"f32\"", "[4]", "[0,16]")), "read here: F32 F64 BF16 F16 I32 I64 U8 U16 U32"},
        /* shape */
        {A("\"dtype\":\"F32\",\"data_offsets\":[0,16]"), "\"a\": shape is missing"},
        {A(TENSOR("\"F32\"", "4", "[0,16]")), "\"a\": shape is missing or not an array"},
        {A(TENSOR("\"F32\"", "[-4]", "[0,16]")), "\"a\": shape[0] is not an integer >= 0"},
        {A(TENSOR("\"F32\"", "[2,-2]", "[0,16]")), "\"a\": shape[1] is not an integer >= 0"},
        {A(TENSOR("\"F32\"", "[4.0]", "[0,16]")), "\"a\": shape[0] is not an integer >= 0"},
        {A(TENSOR("\"F32\"", "[\"4\"]", "[0,16]")), "\"a\": shape[0] is not an integer >= 0"},
        {A(TENSOR("\"F32\"", "[4,1,1,1,1,1,1,1,1]", "[0,16]")), "\"a\": shape has 9 dimensions, the limit is 8"},
        {A(TENSOR("\"F32\"", "[4294967296,4294967296]", "[0,0]")), "\"a\": shape has more elements"},
        {A(TENSOR("\"F32\"", "[9223372036854775807,2,0]", "[0,0]")), "\"a\": shape has more elements"},
        {A(TENSOR("\"F32\"", "[4611686018427387905]", "[0,4]")), "\"a\": shape has more bytes"},
        {A(TENSOR("\"F32\"", "[18446744073709551617]", "[0,4]")), "too big integer"},
        /* data_offsets */
        {A("\"dtype\":\"F32\",\"shape\":[4]"), "\"a\": data_offsets is missing"},
        {A(TENSOR("\"F32\"", "[4]", "16")), "\"a\": data_offsets is missing or not an array of two"},
        {A(TENSOR("\"F32\"", "[4]", "[16]")), "\"a\": data_offsets is missing or not an array of two"},
        {A(TENSOR("\"F32\"", "[4]", "[0,16,16]")), "\"a\": data_offsets is missing or not an array of two"},
        {A(TENSOR("\"F32\"", "[4]", "[0,16.0]")), "\"a\": data_offsets is missing or not an array of two"},
        {A(TENSOR("\"F32\"", "[4]", "[-16,0]")), "integers >= 0"},
        {A(TENSOR("\"F32\"", "[4]", "[0,-16]")), "integers >= 0"},
        {A(TENSOR("\"F32\"", "[4]", "[16,0]")), "\"a\": data_offsets begin at 16 and end before that, at 0"},
        {A(TENSOR("\"F32\"", "[4]", "[4,20]")), "\"a\": data_offsets end at 20, but only 16 bytes"},
        {A(TENSOR("\"F32\"", "[4]", "[0,9223372036854775807]")), "end at 9223372036854775807, but only 16"},
        {A(TENSOR("\"F32\"", "[3]", "[0,16]")), "\"a\": data_offsets span 16 bytes, shape and dtype F32 take 12"},
        {A(TENSOR("\"BF16\"", "[4]", "[0,16]")), "span 16 bytes, shape and dtype BF16 take 8"},
        {A(TENSOR("\"F32\"", "[]", "[0,16]")), "span 16 bytes, shape and dtype F32 take 4"},
        {A(TENSOR("\"F32\"", "[0]", "[0,16]")), "span 16 bytes, shape and dtype F32 take 0"},
        /* between the tensors */
        {"{\"a\":{" F32_4 "},\"b\":{" F32_4 "}}",
         "\"b\": data_offsets begin at 0, inside tensor \"a\", which ends at 16"},
        {"{\"b\":{" TENSOR("\"F32\"", "[2]", "[4,12]") "},\"a\":{" TENSOR("\"F32\"", "[2]", "[0,8]") "}}",
         "\"b\": data_offsets begin at 4, inside tensor \"a\", which ends at 8"},
        {"{\"a\":{" TENSOR("\"F32\"", "[1]", "[0,4]") "},\"b\":{" TENSOR("\"F32\"", "[2]", "[8,16]") "}}",
         "\"b\": data_offsets begin at 8, but bytes from 4 on"},
        {A(TENSOR("\"F32\"", "[3]", "[4,16]")), "\"a\": data_offsets begin at 4, but bytes from 0 on"},
        {"{\"a\":{" F32_4 "},\"b\":{" TENSOR("\"F32\"", "[0]", "[8,8]") "}}", "inside tensor \"a\""},
        {A(TENSOR("\"F32\"", "[3]", "[0,12]")), "4 bytes behind the last tensor belong to none"},
        {"{}", "16 bytes behind the last tensor belong to none"},
        /* metadata */
        {"{\"__metadata__\":[],\"a\":{" F32_4 "}}", "__metadata__ is not a JSON object"},
        {"{\"__metadata__\":{\"p\":4},\"a\":{" F32_4 "}}", "__metadata__: \"p\" is not a string"},
        {"{\"__metadata__\":{\"p\":\"4\",\"p\":\"5\"},\"a\":{" F32_4 "}}", "duplicate"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_raw(here->path, cases[i].header, 16);
        PSK_TEST_FAILS(try_open(here->path), PSK_ERROR_FORMAT, here->path, cases[i].message);
    }
}

/* What looks odd but is valid: any order in the header, unaligned data, empty tensors at a border, unknown fields. */
static void odd_but_valid(void **state) {
    const psk_test_place *here = *state;
    write_raw(here->path,
              "{\"c\":{" TENSOR("\"F32\"", "[3]", "[1,13]") "},\"e\":{" TENSOR(
                  "\"F32\"", "[0,5]",
                  "[1,1]") "},"
                           "\"a\":{" TENSOR("\"U8\"", "[1]", "[0,1]") ",\"extra\":1},\"z\":{" TENSOR("\"F32\"", "[0]",
                                                                                                     "[13,13]") "}} ",
              13);
    psk_safetensors *file;
    PSK_TEST_OK(psk_safetensors_open(here->path, &file));
    static const char *const order[] = {"a", "e", "c", "z"};
    for (int i = 0; i < 4; i++)
        assert_string_equal(psk_safetensors_at(file, i)->name, order[i]);
    unsigned char expected[12];
    float *out = psk_test_buffer(3);
    for (int i = 0; i < 12; i++)
        expected[i] = (unsigned char)(i + 1);
    PSK_TEST_OK(psk_safetensors_read_floats(file, "c", 1, (int64_t[]){3}, out));
    assert_memory_equal(out, expected, sizeof expected);
    psk_test_free(out);
    psk_safetensors_close(file);
}

/* Every byte of a small file changed in turn, and every length cut: an answer, whatever it is, and no wrong read. */
static void every_byte_damaged(void **state) {
    const psk_test_place *here = *state;
    write_raw(here->path,
              "{\"a\":{" TENSOR("\"U8\"", "[2,3]", "[0,6]") "},\"b\":{" TENSOR("\"BF16\"", "[]", "[6,8]") "}}", 8);
    char *text;
    size_t size;
    PSK_TEST_OK(psk_read_file(here->path, 1000, &text, &size));
    static const unsigned char changes[] = {0x01, 0x80, 0xff};
    for (size_t i = 0; i < size; i++) {
        put(here->path, text, i);
        PSK_TEST_FAILS(try_open(here->path), PSK_ERROR_FORMAT, here->path);
        for (size_t j = 0; j < sizeof changes; j++) {
            text[i] = (char)(text[i] ^ changes[j]);
            put(here->path, text, size);
            const psk_status status = try_open(here->path);
            assert_true(status == PSK_OK || status == PSK_ERROR_FORMAT);
            text[i] = (char)(text[i] ^ changes[j]);
        }
    }
    psk_free(text);
}

static void wrong_sources_are_refused(void **state) {
    const psk_test_place *here = *state;
    const float x[4] = {0};
    json_t *metadata;
    PSK_TEST_OK(psk_json_parse("{\"p\": 4}", 8, "metadata", &metadata));
    PSK_TEST_FAILS(psk_safetensors_write(here->path, NULL, 0, metadata), PSK_ERROR_ARGUMENT, here->path, "\"p\"");
    json_decref(metadata);
    static const struct {
        const char *name;
        int64_t dims, shape[2];
        const char *message;
    } cases[] = {{"a", 1, {4, 0}, "\"a\": the name is given twice"},
                 {"__metadata__", 1, {4, 0}, "reserved"},
                 {"\xff", 1, {4, 0}, "UTF-8"},
                 {"b", 9, {1, 1}, "\"b\": 9 dimensions, the limit is 8"},
                 {"b", -1, {1, 1}, "\"b\": -1 dimensions"},
                 {"b", 2, {-1, 4}, "\"b\": size 4 x -1"},
                 {"b", 2, {INT64_MAX / 4, 8}, "larger than memory"},
                 {"b", 1, {INT64_MAX / 4, 0}, "2^63"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        psk_tensor_source sources[] = {{"a", PSK_F32, 1, {4}, x}, {cases[i].name, PSK_F32, cases[i].dims, {0}, x}};
        memcpy(sources[1].shape, cases[i].shape, sizeof cases[i].shape);
        PSK_TEST_FAILS(psk_safetensors_write(here->path, sources, 2, NULL), PSK_ERROR_ARGUMENT, here->path,
                       cases[i].message);
        assert_false(psk_is_file(here->path));
    }
}

/* What the reader would refuse is not written. */
static void header_of_more_than_100_mb(void **state) {
    const psk_test_place *here = *state;
    const size_t length = 100000000;
    void *name;
    PSK_TEST_OK(psk_alloc(length + 1, "a long name", &name));
    memset(name, 'x', length);
    ((char *)name)[length] = 0;
    const psk_tensor_source source = {name, PSK_F32, 1, {0}, NULL};
    PSK_TEST_FAILS(psk_safetensors_write(here->path, &source, 1, NULL), PSK_ERROR_ARGUMENT, "header of 1000000",
                   "above the limit of 100000000");
    assert_false(psk_is_file(here->path));
    psk_free(name);
}

static psk_status write_open_read(void *path) {
    const float x[4] = {1, 2, 3, 4};
    float out[4];
    const psk_tensor_source sources[] = {{"a", PSK_F32, 1, {4}, x}, {"b", PSK_F32, 2, {2, 2}, x}};
    json_t *metadata;
    PSK_TRY(psk_json_parse("{\"p\": \"4\"}", 10, "metadata", &metadata));
    psk_status status = psk_safetensors_write(path, sources, 2, metadata);
    json_decref(metadata);
    psk_safetensors *file = NULL;
    if (status == PSK_OK)
        status = psk_safetensors_open(path, &file);
    if (status == PSK_OK)
        status = psk_safetensors_read_floats(file, "b", 2, (int64_t[]){2, 2}, out);
    psk_safetensors_close(file);
    return status;
}

static void without_memory(void **state) {
    const psk_test_place *here = *state;
    assert_true(psk_test_allocation_failures(write_open_read, here->path) > 50);
    char **names;
    int64_t count;
    PSK_TEST_OK(psk_list_folder(here->folder, &names, &count));
    psk_free_names(names, count);
    assert_int_equal(count, 1);
}

static void many_tensors_are_found(void **state) {
    const psk_test_place *here = *state;
    enum { COUNT = 2003 };
    static psk_tensor_source sources[COUNT];
    static char names[COUNT][24];
    static int32_t values[COUNT];
    for (int i = 0; i < COUNT; i++) {
        values[i] = i;
        snprintf(names[i], sizeof names[i], "blocks.%d.weight", i * 7 % COUNT);
        sources[i] = (psk_tensor_source){names[i], PSK_I32, 1, {1}, &values[i]};
    }
    PSK_TEST_OK(psk_safetensors_write(here->path, sources, COUNT, NULL));
    psk_safetensors *file;
    PSK_TEST_OK(psk_safetensors_open(here->path, &file));
    for (int i = 0; i < COUNT; i++) {
        const psk_tensor_view *view = psk_safetensors_find(file, names[i]);
        assert_non_null(view);
        assert_memory_equal(view->data, &values[i], sizeof values[i]);
    }
    assert_null(psk_safetensors_find(file, "blocks.2003.weight"));
    assert_null(psk_safetensors_find(file, ""));
    psk_safetensors_close(file);
}

/* Opens the file, reads every tensor of floats and writes all to `copy`: it must read back the same. */
static void check_golden(const char *path, const char *copy) {
    psk_safetensors *file, *again;
    PSK_TEST_OK(psk_safetensors_open(path, &file));
    const int64_t count = psk_safetensors_count(file);
    assert_true(count > 0);
    void *sources;
    PSK_TEST_OK(psk_alloc((size_t)count * sizeof(psk_tensor_source), "sources", &sources));
    for (int64_t i = 0; i < count; i++) {
        const psk_tensor_view *view = psk_safetensors_at(file, i);
        psk_tensor_source *source = (psk_tensor_source *)sources + i;
        *source = (psk_tensor_source){view->name, view->dtype, view->dims, {0}, view->data};
        memcpy(source->shape, view->shape, sizeof source->shape);
        if (view->dtype != PSK_F32)
            continue;
        float *out = psk_test_buffer(view->count);
        PSK_TEST_OK(psk_safetensors_read_floats(file, view->name, view->dims, view->shape, out));
        assert_true(psk_test_relative_rms(out, out, view->count) == 0); /* all finite */
        psk_test_free(out);
    }
    PSK_TEST_OK(psk_safetensors_write(copy, sources, count, NULL));
    PSK_TEST_OK(psk_safetensors_open(copy, &again));
    assert_int_equal(psk_safetensors_count(again), count);
    for (int64_t i = 0; i < count; i++) {
        const psk_tensor_view *a = psk_safetensors_at(file, i), *b = psk_safetensors_find(again, a->name);
        assert_non_null(b);
        assert_int_equal(a->count, b->count);
        assert_memory_equal(a->data, b->data, (size_t)(a->count * psk_dtype_size(a->dtype)));
    }
    psk_safetensors_close(again);
    psk_safetensors_close(file);
    psk_free(sources);
}

static void golden_files(void **state) {
    const psk_test_place *here = *state;
    char **names;
    int64_t count, opened = 0;
    PSK_TEST_OK(psk_list_folder(PSK_GOLDEN_DIR, &names, &count));
    for (int64_t i = 0; i < count; i++) {
        char *path;
        if (!strstr(names[i], ".safetensors"))
            continue;
        PSK_TEST_OK(psk_join_path(PSK_GOLDEN_DIR, names[i], &path));
        check_golden(path, here->path);
        psk_free(path);
        opened++;
    }
    psk_free_names(names, count);
    assert_true(opened >= 66);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, enter, psk_test_place_leave)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(write_and_read),
        TEST(wrong_requests_are_named),
        TEST(no_tensors),
        TEST(damaged_prefix),
        TEST(damaged_header),
        TEST(odd_but_valid),
        TEST(every_byte_damaged),
        TEST(wrong_sources_are_refused),
        TEST(header_of_more_than_100_mb),
        TEST(without_memory),
        TEST(many_tensors_are_found),
        TEST(golden_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
