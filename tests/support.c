#include "support.h"

#include "base/files.h"
#include "base/memory.h"
#include "base/rng.h"
#include "device/device.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GUARD_FLOATS 64 /* a multiple of PSK_ALIGNMENT in bytes, so that what follows is aligned too */

/* Read by the sanitizers: a request for more than there can be gives NULL, as without them, and does not end the test.
 */
PSK_API const char *__asan_default_options(void);
PSK_API const char *__tsan_default_options(void);
const char *__asan_default_options(void) {
    return "allocator_may_return_null=1";
}
const char *__tsan_default_options(void) {
    return __asan_default_options();
}

static const float guard_value = -7.25e11f;

void psk_test_ok(psk_status status, const char *call, const char *file, int line) {
    if (status == PSK_OK)
        return;
    print_error("%s\ngave %s: %s\n", call, psk_status_name(status), psk_error_message());
    _fail(file, line);
}

void psk_test_fails(psk_status status, psk_status expected, const char *const *parts, const char *call,
                    const char *file, int line) {
    if (status != expected) {
        print_error("%s\ngave %s instead of %s: %s\n", call, psk_status_name(status), psk_status_name(expected),
                    psk_error_message());
        _fail(file, line);
    }
    for (; *parts; parts++)
        if (!strstr(psk_error_message(), *parts)) {
            print_error("%s\ngave a message without \"%s\": %s\n", call, *parts, psk_error_message());
            _fail(file, line);
        }
}

void psk_test_at_most(double value, double limit, const char *what, const char *file, int line) {
    if (value <= limit)
        return;
    print_error("%s is %.9g, limit %.9g\n", what, value, limit);
    _fail(file, line);
}

static double ratio(double error, double reference) {
    if (!isfinite(error) || !isfinite(reference) || (reference == 0 && error > 0))
        return INFINITY;
    return reference > 0 ? sqrt(error / reference) : 0;
}

double psk_test_relative_rms(const float *got, const float *want, int64_t n) {
    double error = 0, reference = 0;
    for (int64_t i = 0; i < n; i++) {
        error += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        reference += (double)want[i] * want[i];
    }
    return ratio(error, reference);
}

double psk_test_relative_rms_double(const float *got, const double *want, int64_t n) {
    double error = 0, reference = 0;
    for (int64_t i = 0; i < n; i++) {
        error += (got[i] - want[i]) * (got[i] - want[i]);
        reference += want[i] * want[i];
    }
    return ratio(error, reference);
}

/* [n and guard][the n floats][guard] */
float *psk_test_buffer(int64_t n) {
    void *block;
    PSK_TEST_OK(psk_alloc((size_t)(n + 2 * GUARD_FLOATS) * sizeof(float), "a test buffer", &block));
    float *floats = block;
    for (int64_t i = 0; i < n + 2 * GUARD_FLOATS; i++)
        floats[i] = i < GUARD_FLOATS || i >= n + GUARD_FLOATS ? guard_value : NAN;
    memcpy(block, &n, sizeof n);
    return floats + GUARD_FLOATS;
}

float *psk_test_random(int64_t n, uint64_t seed, const char *name) {
    float *buffer = psk_test_buffer(n);
    psk_rng_fill_normal(buffer, n, 1, seed, psk_rng_stream(name));
    return buffer;
}

static void check_guard(const float *band, int64_t first, const char *side, int64_t n) {
    for (int64_t i = first; i < GUARD_FLOATS; i++)
        if (!(band[i] == guard_value))
            fail_msg("float %" PRId64 " of the guard band %s a buffer of %" PRId64 " was written", i, side, n);
}

void psk_test_check(const float *buffer) {
    const float *block = buffer - GUARD_FLOATS;
    int64_t n;
    memcpy(&n, block, sizeof n);
    check_guard(block, sizeof n / sizeof(float), "before", n);
    check_guard(buffer + n, 0, "behind", n);
}

void psk_test_free(float *buffer) {
    if (!buffer)
        return;
    psk_test_check(buffer);
    psk_free(buffer - GUARD_FLOATS);
}

char *psk_test_folder(void) {
    const char *parent = getenv("TMPDIR");
    char *folder;
    PSK_TEST_OK(psk_join_path(parent ? parent : "/tmp", "polysketch-test-XXXXXX", &folder));
    if (!mkdtemp(folder))
        fail_msg("mkdtemp(%s) failed", folder);
    return folder;
}

void psk_test_remove_folder(char *folder) {
    PSK_TEST_OK(psk_remove_tree(folder));
    psk_free(folder);
}

int psk_test_place_enter(void **state, const char *name) {
    static psk_test_place here;
    here.folder = psk_test_folder();
    PSK_TEST_OK(psk_join_path(here.folder, name, &here.path));
    *state = &here;
    return 0;
}

int psk_test_place_leave(void **state) {
    psk_test_place *here = *state;
    psk_free(here->path);
    psk_test_remove_folder(here->folder);
    return 0;
}

int64_t psk_test_allocation_failures(psk_status (*function)(void *), void *argument) {
    for (int64_t n = 1;; n++) {
        psk_alloc_fail_after(n);
        const psk_status status = function(argument);
        psk_alloc_fail_after(0);
        if (status == PSK_OK)
            return n - 1;
        if (status != PSK_ERROR_MEMORY)
            fail_msg("allocation %" PRId64 " failing gave %s: %s", n, psk_status_name(status), psk_error_message());
    }
}

void psk_test_limit_files(rlim_t bytes) {
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

bool psk_test_force_isa(const char *isa) {
    psk_device *device;
    setenv("PSK_CPU_ISA", isa, 1);
    if (psk_device_create("cpu", 1, &device) != PSK_OK) {
        unsetenv("PSK_CPU_ISA");
        return false;
    }
    psk_device_free(device);
    return true;
}
