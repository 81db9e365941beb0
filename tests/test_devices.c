/* Devices by name. */
#include "support.h"

#include "base/memory.h"
#include "device/device.h"

#include <string.h>

static const char *const names[] = {"cpu", "reference", "auto"};
#define NAMES (sizeof names / sizeof names[0])

static void create_describes_itself(void **state) {
    (void)state;
    for (size_t i = 0; i < NAMES; i++) {
        psk_device *device;
        PSK_TEST_OK(psk_device_create(names[i], 2, &device));
        assert_string_equal(psk_device_name(device), strcmp(names[i], "auto") == 0 ? "cpu" : names[i]);
        assert_true(strlen(psk_device_description(device)) > 0);
        assert_in_range(psk_device_threads(device), 1, 2);
        psk_device_free(device);
    }
}

static void create_threads_zero_takes_what_there_is(void **state) {
    (void)state;
    psk_device *device;
    PSK_TEST_OK(psk_device_create("cpu", 0, &device));
    assert_true(psk_device_threads(device) >= 1);
    psk_device_free(device);
}

static void create_refuses(void **state) {
    (void)state;
    int something;
    psk_device *device = (psk_device *)&something;
    PSK_TEST_FAILS(psk_device_create("tpu", 1, &device), PSK_ERROR_ARGUMENT, "\"tpu\"", "auto", "cpu", "reference");
    assert_null(device);
    PSK_TEST_FAILS(psk_device_create("cpu", -1, &device), PSK_ERROR_ARGUMENT, "-1", "1024");
    PSK_TEST_FAILS(psk_device_create("cpu", 1025, &device), PSK_ERROR_ARGUMENT, "1025", "1024");
}

static psk_status create_and_free(void *name) {
    psk_device *device;
    PSK_TRY(psk_device_create(name, 1, &device));
    psk_device_free(device);
    return PSK_OK;
}

static void create_survives_failing_allocations(void **state) {
    (void)state;
    for (size_t i = 0; i < NAMES; i++) {
        char name[16];
        strcpy(name, names[i]);
        assert_true(psk_test_allocation_failures(create_and_free, name) >= 1);
    }
}

static void free_accepts_null(void **state) {
    (void)state;
    psk_device_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_describes_itself), cmocka_unit_test(create_threads_zero_takes_what_there_is),
        cmocka_unit_test(create_refuses),          cmocka_unit_test(create_survives_failing_allocations),
        cmocka_unit_test(free_accepts_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
