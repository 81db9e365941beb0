/* Status and messages, checked sizes and the allocator, the arena, bfloat16; and the helpers of the tests themselves.
 */
#include "support.h"

#include "base/bf16.h"
#include "base/memory.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void version_and_names(void **state) {
    (void)state;
    assert_string_equal(psk_version(), PSK_VERSION_STRING);
    assert_string_equal(psk_status_name(PSK_OK), "PSK_OK");
    assert_string_equal(psk_status_name(PSK_ERROR_INTERNAL), "PSK_ERROR_INTERNAL");
    assert_string_equal(psk_status_name((psk_status)99), "unknown psk_status");
    assert_int_equal(PSK_ERROR_ARGUMENT, 1); /* pinned, with all between */
    assert_int_equal(PSK_ERROR_INTERNAL, 8);
}

static void message_prefix_and_limit(void **state) {
    (void)state;
    assert_int_equal(psk_fail(PSK_ERROR_FORMAT, "field %d", 7), PSK_ERROR_FORMAT);
    assert_int_equal(psk_fail_within(PSK_ERROR_FORMAT, "%s", "file"), PSK_ERROR_FORMAT);
    assert_string_equal(psk_error_message(), "file: field 7");
    psk_fail(PSK_ERROR_FILE, "again %s", psk_error_message());
    assert_string_equal(psk_error_message(), "again file: field 7");

    char text[3001] = {0};
    memset(text, 'x', sizeof text - 1);
    psk_fail(PSK_ERROR_FILE, "%s", text);
    assert_int_equal(strlen(psk_error_message()), 1023);
    psk_fail_within(PSK_ERROR_FILE, "a%s", text);
    assert_int_equal(strlen(psk_error_message()), 1023);
    assert_true(psk_error_message()[0] == 'a');
}

static void *fail_elsewhere(void *found) {
    *(size_t *)found = strlen(psk_error_message());
    psk_fail(PSK_ERROR_MEMORY, "of the other thread");
    return NULL;
}

static void message_of_each_thread(void **state) {
    (void)state;
    psk_fail(PSK_ERROR_FILE, "of this thread");
    pthread_t thread;
    size_t length = 99;
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, &length), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(length, 0);
    assert_string_equal(psk_error_message(), "of this thread");
}

static void sizes_are_checked(void **state) {
    (void)state;
    int64_t product = -1;
    PSK_TEST_OK(psk_size_mul(3, 5, &product));
    assert_int_equal(product, 15);
    PSK_TEST_OK(psk_size_mul(INT64_MAX, 1, &product));
    assert_true(product == INT64_MAX);
    PSK_TEST_OK(psk_size_mul(0, INT64_MAX, &product));
    assert_int_equal(product, 0);
    PSK_TEST_FAILS(psk_size_mul((int64_t)1 << 32, (int64_t)1 << 31, &product), PSK_ERROR_ARGUMENT, "4294967296");
    PSK_TEST_FAILS(psk_size_mul(-1, 5, &product), PSK_ERROR_ARGUMENT, "-1 x 5");
    PSK_TEST_FAILS(psk_size_mul(5, -1, &product), PSK_ERROR_ARGUMENT, "5 x -1");
    PSK_TEST_FAILS(psk_size_mul(-2, -3, &product), PSK_ERROR_ARGUMENT, "-2 x -3");
}

static void blocks_are_aligned(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 63, 64, 65, 4097};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        void *block;
        PSK_TEST_OK(psk_alloc_zero(sizes[i], "a block", &block));
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % PSK_ALIGNMENT, 0);
        for (size_t j = 0; j < sizes[i]; j++)
            assert_int_equal(((unsigned char *)block)[j], 0);
        psk_free(block);
    }
    psk_free(NULL);
    char *copy;
    PSK_TEST_OK(psk_strdup("", &copy));
    assert_string_equal(copy, "");
    psk_free(copy);
}

static void memory_that_is_not_there(void **state) {
    (void)state;
    void *block = &block;
    PSK_TEST_FAILS(psk_alloc(SIZE_MAX, "the moon", &block), PSK_ERROR_MEMORY, "the moon", "18446744073709551615");
    assert_null(block);
    psk_alloc_fail_after(2);
    PSK_TEST_OK(psk_alloc(8, "one", &block));
    psk_free(block);
    PSK_TEST_FAILS(psk_alloc(8, "two", &block), PSK_ERROR_MEMORY, "8 bytes", "two");
    assert_null(block);
    PSK_TEST_OK(psk_alloc(8, "three", &block)); /* one failure, not all from then on */
    psk_free(block);
    psk_alloc_fail_after(1);
    psk_alloc_fail_after(0);
    PSK_TEST_OK(psk_alloc(8, "four", &block));
    psk_free(block);
}

static void arena_plan_and_commit(void **state) {
    (void)state;
    psk_arena *arena;
    float *weights = (float *)state, *gradients = weights;
    void *scratch = weights;
    char category[16] = "gradients";
    PSK_TEST_OK(psk_arena_create(&arena));
    PSK_TEST_OK(psk_arena_floats(arena, "parameters", "w", 17, &weights));
    PSK_TEST_OK(psk_arena_floats(arena, category, "dw", 16, &gradients));
    memset(category, '?', 8); /* the arena keeps its own copy */
    PSK_TEST_OK(psk_arena_reserve(arena, "parameters", "scratch", 1, &scratch));
    PSK_TEST_OK(psk_arena_reserve(arena, "workspace", "reported only", 100, NULL));
    assert_null(weights);
    assert_null(scratch);
    assert_int_equal(psk_arena_bytes(arena), 128 + 64 + 64 + 128);
    assert_int_equal(psk_arena_category_bytes(arena, "parameters"), 192);
    assert_int_equal(psk_arena_category_bytes(arena, "nothing"), 0);
    assert_string_equal(psk_arena_category(arena, 0), "parameters");
    assert_string_equal(psk_arena_category(arena, 1), "gradients");
    assert_string_equal(psk_arena_category(arena, 2), "workspace");
    assert_null(psk_arena_category(arena, 3));

    PSK_TEST_OK(psk_arena_commit(arena, PSK_FILL_NAN));
    assert_int_equal((uintptr_t)weights % PSK_ALIGNMENT, 0);
    assert_ptr_equal(gradients, weights + 32);
    assert_ptr_equal(scratch, (char *)weights + 192);
    for (int i = 0; i < 48; i++)
        assert_true(isnan(weights[i]));
    PSK_TEST_FAILS(psk_arena_commit(arena, PSK_FILL_NONE), PSK_ERROR_INTERNAL, "twice");
    PSK_TEST_FAILS(psk_arena_floats(arena, "late", "x", 1, &weights), PSK_ERROR_INTERNAL, "x (late)");
    psk_arena_free(arena);
    psk_arena_free(NULL);
}

static void arena_refuses_sizes(void **state) {
    (void)state;
    psk_arena *arena;
    float *x;
    PSK_TEST_OK(psk_arena_create(&arena));
    PSK_TEST_FAILS(psk_arena_floats(arena, "activations", "q", INT64_MAX / 2, &x), PSK_ERROR_ARGUMENT,
                   "q (activations)");
    PSK_TEST_FAILS(psk_arena_reserve(arena, "activations", "q", -1, NULL), PSK_ERROR_ARGUMENT, "-1 bytes");
    PSK_TEST_OK(psk_arena_reserve(arena, "activations", "q", INT64_MAX / 2, NULL));
    PSK_TEST_FAILS(psk_arena_reserve(arena, "activations", "k", INT64_MAX / 2 + 1, NULL), PSK_ERROR_ARGUMENT, "k (");
    PSK_TEST_FAILS(psk_arena_commit(arena, PSK_FILL_NONE), PSK_ERROR_MEMORY, "arena");
    psk_arena_free(arena);
}

static psk_status use_arena(void *unused) {
    (void)unused;
    psk_arena *arena;
    void *places[40];
    PSK_TRY(psk_arena_create(&arena));
    psk_status status = PSK_OK;
    for (int i = 0; status == PSK_OK && i < 40; i++) {
        const char name[2] = {(char)('A' + i), 0};
        status = psk_arena_reserve(arena, name, name, i, &places[i]);
    }
    if (status == PSK_OK)
        status = psk_arena_commit(arena, PSK_FILL_ZERO);
    psk_arena_free(arena);
    return status;
}

static void arena_without_memory(void **state) {
    (void)state;
    assert_true(psk_test_allocation_failures(use_arena, NULL) > 40);
}

static void bf16_rounds_to_nearest_even(void **state) {
    (void)state;
    static const struct {
        float from, to;
    } cases[] = {{1, 1},
                 {0x1.01p0f, 0x1p0f},        /* half way: to even */
                 {0x1.03p0f, 0x1.04p0f},     /* half way: to even, upwards */
                 {0x1.010002p0f, 0x1.02p0f}, /* just above half way */
                 {-0x1.03p0f, -0x1.04p0f},
                 {0x1.fffffep127f, INFINITY},
                 {0x1p-133f, 0x1p-133f}, /* the smallest subnormal */
                 {-INFINITY, -INFINITY}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_true(psk_bf16_to_float(psk_bf16_from_float(cases[i].from)) == cases[i].to);
    for (uint32_t x = 0; x < 65536; x++) { /* every value there is survives; NaN stays NaN */
        const float value = psk_bf16_to_float((psk_bf16)x);
        const psk_bf16 back = psk_bf16_from_float(value);
        assert_true(isnan(value) ? isnan(psk_bf16_to_float(back)) : back == x);
    }
    const uint32_t nan_bits = 0x7f800001u; /* only its last bit says that this is no infinity */
    float nan;
    memcpy(&nan, &nan_bits, sizeof nan);
    assert_true(isnan(psk_bf16_to_float(psk_bf16_from_float(nan))));
}

static void comparing_notices_nan(void **state) {
    (void)state;
    const float x[3] = {3, 4, 0}, near[3] = {3, 4, 0.05f}, nan[3] = {3, NAN, 0}, zero[3] = {0, 0, 0};
    const double reference[3] = {3, 4, 0};
    assert_true(psk_test_relative_rms(x, x, 3) == 0);
    PSK_TEST_AT_MOST(fabs(psk_test_relative_rms(near, x, 3) - 0.01), 1e-8);
    PSK_TEST_AT_MOST(fabs(psk_test_relative_rms_double(near, reference, 3) - 0.01), 1e-8);
    assert_true(isinf(psk_test_relative_rms(nan, x, 3)));
    assert_true(isinf(psk_test_relative_rms(x, nan, 3)));
    assert_true(isinf(psk_test_relative_rms(x, zero, 3)));
    assert_true(psk_test_relative_rms(zero, zero, 3) == 0);
    assert_true(psk_test_relative_rms(x, x, 0) == 0);
}

static void buffers_are_poisoned(void **state) {
    (void)state;
    float *buffer = psk_test_buffer(5);
    assert_int_equal((uintptr_t)buffer % PSK_ALIGNMENT, 0);
    for (int i = 0; i < 5; i++)
        assert_true(isnan(buffer[i]));
    psk_test_free(buffer);
    float *a = psk_test_random(7, 1, "a"), *again = psk_test_random(7, 1, "a"), *b = psk_test_random(7, 1, "b");
    assert_memory_equal(a, again, 7 * sizeof(float));
    assert_memory_not_equal(a, b, 7 * sizeof(float));
    psk_test_free(a);
    psk_test_free(again);
    psk_test_free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_and_names),      cmocka_unit_test(message_prefix_and_limit),
        cmocka_unit_test(message_of_each_thread), cmocka_unit_test(sizes_are_checked),
        cmocka_unit_test(blocks_are_aligned),     cmocka_unit_test(memory_that_is_not_there),
        cmocka_unit_test(arena_plan_and_commit),  cmocka_unit_test(arena_refuses_sizes),
        cmocka_unit_test(arena_without_memory),   cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(comparing_notices_nan),  cmocka_unit_test(buffers_are_poisoned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
