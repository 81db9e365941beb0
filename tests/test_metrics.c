/* What training writes down: lines of JSON and TensorBoard's event files. */
#include "data/little_endian.h"
#include "train/metrics.h"
#include "train/tensorboard.h"
#include "train_support.h"

#include <locale.h>

static fixture f;

static int set_up(void **unused) {
    (void)unused;
    fixture_begin(&f, "cpu");
    return 0;
}

static int tear_down(void **unused) {
    (void)unused;
    fixture_end(&f);
    return 0;
}

static void crc32c_vectors(void **unused) {
    (void)unused;
    unsigned char bytes[32] = {0};
    assert_int_equal(psk_crc32c(bytes, 0), 0);
    assert_int_equal(psk_crc32c((const unsigned char *)"123456789", 9), 0xe3069283);
    assert_int_equal(psk_crc32c(bytes, 32), 0x8a9136aa);
    memset(bytes, 0xff, 32);
    assert_int_equal(psk_crc32c(bytes, 32), 0x62a8ab43);
    for (int i = 0; i < 32; i++)
        bytes[i] = (unsigned char)i;
    assert_int_equal(psk_crc32c(bytes, 32), 0x46dd794e);
}

/* A decoder of its own: a CRC by long division of polynomials, protobuf by its published rules. */
static uint32_t slow_masked_crc(const unsigned char *data, size_t size) {
    uint32_t crc = 0xffffffff, reversed = 0;
    for (size_t i = 0; i < size * 8; i++) {
        const uint32_t bit = data[i / 8] >> (i % 8) & 1;
        const uint32_t top = crc >> 31;
        crc = crc << 1 ^ (top ^ bit ? 0x1edc6f41u : 0);
    }
    for (int i = 0; i < 32; i++)
        reversed |= (crc >> i & 1) << (31 - i);
    reversed = ~reversed;
    return ((reversed >> 15) | (reversed << 17)) + 0xa282ead8u;
}

static uint64_t read_varint(const unsigned char **at) {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
        const unsigned char byte = *(*at)++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return value;
    }
}

/* Appends an Event to text: "step 3: train/loss=1.5 ...", "version brain.Event:2", "start 5". */
static void print_event(const unsigned char *at, size_t size, char *text, size_t capacity) {
    const unsigned char *const end = at + size;
    size_t used = strlen(text);
    uint64_t step = 0;
    double wall_time = 0;
#define PRINT(...) used += (size_t)snprintf(text + used, capacity - used, __VA_ARGS__)
    while (at < end) {
        const uint64_t key = read_varint(&at);
        if (key == (1 << 3 | 1)) {
            const uint64_t bits = psk_load_le(at, 8);
            memcpy(&wall_time, &bits, 8);
            at += 8;
        } else if (key == (2 << 3 | 0)) {
            step = read_varint(&at);
        } else if (key == (3 << 3 | 2)) {
            const uint64_t length = read_varint(&at);
            PRINT("version %.*s", (int)length, (const char *)at);
            at += length;
        } else if (key == (7 << 3 | 2)) {
            assert_int_equal(read_varint(&at), 2);
            assert_int_equal(read_varint(&at), 1 << 3 | 0);
            assert_int_equal(read_varint(&at), 1); /* START */
            PRINT("start %d", (int)step);
        } else {
            assert_int_equal(key, 5 << 3 | 2);
            const unsigned char *summary_end = at;
            const uint64_t length = read_varint(&summary_end);
            at = summary_end;
            summary_end += length;
            PRINT("step %d:", (int)step);
            while (at < summary_end) {
                assert_int_equal(read_varint(&at), 1 << 3 | 2);
                read_varint(&at);
                assert_int_equal(read_varint(&at), 1 << 3 | 2);
                const uint64_t tag = read_varint(&at);
                const unsigned char *name = at;
                at += tag;
                assert_int_equal(read_varint(&at), 2 << 3 | 5);
                const uint32_t bits = (uint32_t)psk_load_le(at, 4);
                float value;
                memcpy(&value, &bits, 4);
                at += 4;
                PRINT(" %.*s=%g", (int)tag, (const char *)name, (double)value);
            }
        }
    }
    PRINT("\n");
#undef PRINT
    assert_ptr_equal(at, end);
    assert_true(wall_time > 1.6e9 && wall_time < 1e11);
}

static void print_events(const char *path, char *text, size_t capacity) {
    char *data;
    size_t size;
    PSK_TEST_OK(psk_read_file(path, 1 << 20, &data, &size));
    const unsigned char *at = (const unsigned char *)data, *const end = at + size;
    *text = 0;
    while (at < end) {
        assert_true(end - at >= 16);
        const uint64_t length = psk_load_le(at, 8);
        assert_int_equal(psk_load_le(at + 8, 4), slow_masked_crc(at, 8));
        assert_true((uint64_t)(end - at) >= 16 + length);
        assert_int_equal(psk_load_le(at + 12 + length, 4), slow_masked_crc(at + 12, length));
        print_event(at + 12, length, text, capacity);
        at += 16 + length;
    }
    psk_free(data);
}

static void event_files(void **unused) {
    (void)unused;
    char text[4096], first[1024], second[1024];
    psk_events *events;
    psk_train_progress p = {.step = 300,
                            .loss = 1.5,
                            .grad_norm = 0.25,
                            .learning_rate = 1e-3,
                            .seconds = 8,
                            .tokens_per_second = 1e6,
                            .valid_loss = NAN};
    PSK_TEST_OK(psk_make_folders(f.output));
    PSK_TEST_OK(psk_events_open(f.output, 1, &events));
    PSK_TEST_OK(psk_events_write(events, &p));
    p.step = 301;
    p.valid_loss = 2.5;
    PSK_TEST_OK(psk_events_write(events, &p));
    psk_events_close(events);
    snprintf(first, sizeof first, "%s", names_in(f.output));
    first[strlen(first) - 1] = 0;
    assert_memory_equal(first, "events.out.tfevents.", 20);
    print_events(path_in(f.output, first), text, sizeof text);
    assert_string_equal(text, "version brain.Event:2\n"
                              "start 1\n"
                              "step 300: train/loss=1.5 train/grad_norm=0.25 train/learning_rate=0.001 "
                              "train/tokens_per_second=1e+06 train/seconds=8\n"
                              "step 301: train/loss=1.5 train/grad_norm=0.25 train/learning_rate=0.001 "
                              "train/tokens_per_second=1e+06 valid/loss=2.5 train/seconds=8\n");
    PSK_TEST_OK(psk_events_open(f.output, 301, &events)); /* resumed, perhaps in the same second */
    psk_events_close(events);
    PSK_TEST_OK(psk_events_open(f.output, 301, &events));
    psk_events_close(events);
    char **names;
    int64_t count;
    PSK_TEST_OK(psk_list_folder(f.output, &names, &count));
    assert_int_equal(count, 3);
    assert_string_equal(names[0], first); /* readers take them in this order */
    snprintf(second, sizeof second, "%s", names[1]);
    psk_free_names(names, count);
    print_events(path_in(f.output, second), text, sizeof text);
    assert_string_equal(text, "version brain.Event:2\nstart 301\n");
}

static void metrics_lines(void **unused) {
    (void)unused;
    char path[1024], *text;
    size_t size;
    psk_metrics *metrics;
    psk_train_progress p = {.step = 1,
                            .tokens = 32,
                            .loss = 1.5,
                            .grad_norm = 0.25,
                            .learning_rate = 0.5,
                            .tokens_per_second = 1000,
                            .valid_loss = NAN,
                            .seconds = 2,
                            .memory_bytes = 4096},
                       none = {.step = 0}, second = {.step = 2, .valid_loss = 1};
    PSK_TEST_OK(psk_make_folders(f.output));
    snprintf(path, sizeof path, "%s/metrics.jsonl", f.output);
    PSK_TEST_OK(psk_metrics_open(path, &none, &metrics));
    for (p.step = 1; p.step <= 3; p.step++)
        PSK_TEST_OK(psk_metrics_write(metrics, &p));
    PSK_TEST_OK(psk_metrics_sync(metrics));
    psk_metrics_close(metrics);
    PSK_TEST_OK(psk_read_file(path, 4096, &text, &size));
    static const char line[] = "{\"step\": 1, \"tokens\": 32, \"loss\": 1.5, \"grad_norm\": 0.25, \"lr\": 0.5, "
                               "\"tokens_per_second\": 1000.0, \"valid_loss\": null, \"seconds\": 2.0, "
                               "\"memory_bytes\": 4096}\n";
    assert_int_equal(size, 3 * (sizeof line - 1));
    assert_memory_equal(text, line, sizeof line - 1);
    psk_free(text);
    PSK_TEST_OK(psk_metrics_open(path, &second, &metrics));
    psk_metrics_close(metrics);
    assert_true(second.loss == 1.5 && second.grad_norm == 0.25 && second.learning_rate == 0.5 && second.seconds == 2);
    assert_true(isnan(second.valid_loss)); /* null */
    PSK_TEST_OK(psk_read_file(path, 4096, &text, &size));
    assert_int_equal(size, 2 * (sizeof line - 1));
    psk_free(text);
    FILE *file = fopen(path, "a"); /* a line that a crash cut off */
    fputs("{\"step\": 2, \"lo", file);
    fclose(file);
    PSK_TEST_OK(psk_metrics_open(path, &second, &metrics));
    psk_metrics_close(metrics);
    PSK_TEST_OK(psk_read_file(path, 4096, &text, &size));
    assert_int_equal(size, 2 * (sizeof line - 1));
    psk_free(text);
    PSK_TEST_OK(psk_write_file(path, "{\"step\": 1}\nnot json\n", 21));
    PSK_TEST_FAILS(psk_metrics_open(path, &second, &metrics), PSK_ERROR_FORMAT, "metrics.jsonl, line 2: ");
    PSK_TEST_FAILS(psk_metrics_open(path_in(f.output, "no/such"), &none, &metrics), PSK_ERROR_FILE, "no/such");
}

static void metrics_on_a_full_disk(void **unused) {
    (void)unused;
    psk_metrics *metrics;
    PSK_TEST_OK(psk_metrics_open("/dev/full", &(psk_train_progress){0}, &metrics));
    PSK_TEST_FAILS(psk_metrics_write(metrics, &(psk_train_progress){.step = 1}), PSK_ERROR_FILE,
                   "/dev/full: cannot write: ", "free some space");
    psk_metrics_close(metrics);
}

/* A program may have set the locale of its user, where 1.5 is written 1,5. */
static void metrics_in_a_locale_with_commas(void **unused) {
    (void)unused;
    psk_metrics *metrics;
    psk_train_progress none = {.step = 0}, p = {.step = 1, .loss = 1.5};
    const char *const path = path_in(f.output, "metrics.jsonl");
    if (!setlocale(LC_NUMERIC, "de_DE.UTF-8"))
        skip();
    PSK_TEST_OK(psk_make_folders(f.output));
    PSK_TEST_OK(psk_metrics_open(path, &none, &metrics));
    PSK_TEST_OK(psk_metrics_write(metrics, &p));
    psk_metrics_close(metrics);
    const psk_status status = psk_metrics_open(path, &p, &metrics);
    setlocale(LC_NUMERIC, "C");
    PSK_TEST_OK(status);
    psk_metrics_close(metrics);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc32c_vectors),
        cmocka_unit_test_setup_teardown(event_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(metrics_lines, set_up, tear_down),
        cmocka_unit_test(metrics_on_a_full_disk),
        cmocka_unit_test_setup_teardown(metrics_in_a_locale_with_commas, set_up, tear_down),
    };
    prefer_memory_folder();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
