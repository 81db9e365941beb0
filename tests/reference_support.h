/* What the tests of the reference mechanisms share: numbers of a test, errors, finite differences. All in double. */
#ifndef PSK_TESTS_REFERENCE_SUPPORT_H
#define PSK_TESTS_REFERENCE_SUPPORT_H

#include "support.h"

#include "base/memory.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define SEED      20240715
#define MAX_TAKEN 128

/* What one test has allocated, released together. */
typedef struct test_pool {
    double *taken[MAX_TAKEN];
    int64_t count;
} test_pool;

static inline double *take(test_pool *pool, int64_t n) {
    assert_true(pool->count < MAX_TAKEN);
    double *x;
    PSK_TEST_OK(psk_alloc((size_t)n * sizeof *x, "doubles of a test", (void **)&x));
    for (int64_t i = 0; i < n; i++)
        x[i] = NAN;
    pool->taken[pool->count++] = x;
    return x;
}

static inline double *take_random(test_pool *pool, int64_t n, const char *name) {
    double *x = take(pool, n);
    float *const normal = psk_test_random(n, SEED, name);
    for (int64_t i = 0; i < n; i++)
        x[i] = normal[i];
    psk_test_free(normal);
    return x;
}

static inline double *take_zero(test_pool *pool, int64_t n) {
    double *x = take(pool, n);
    memset(x, 0, (size_t)n * sizeof *x);
    return x;
}

static inline void release(test_pool *pool) {
    while (pool->count > 0)
        psk_free(pool->taken[--pool->count]);
}

static inline double rms(const double *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sqrt(sum / (double)n);
}

/* rms(got - want) / max(rms(want), floor), 0 if both are 0 everywhere, NaN if anything is. */
static inline double relative_error(const double *got, const double *want, int64_t n, double floor) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (got[i] - want[i]) * (got[i] - want[i]);
    const double reference = fmax(rms(want, n), floor);
    if (sum == 0 && reference == 0)
        return 0;
    return sqrt(sum / (double)n) / reference;
}

static inline void expect_close(const char *where, const char *what, double error, double limit) {
    if (!(error <= limit)) {
        print_error("%s: %s: relative rms error %.3g, limit %.3g (seed %d)\n", where, what, error, limit, SEED);
        fail();
    }
}

/* Central differences of order 4, (8 (f(x+e) - f(x-e)) - (f(x+2e) - f(x-2e))) / (12 e), for each x[i] with gradient[i].
 * Error of the formula e^4 f5 / 30, of rounding 2e-16 |f| / e: with e = 1e-3 both are about 1e-13 for numbers near 1.
 * A gradient that is 0 everywhere is held against rounding alone, 1e-4 of a loss near 1. */
typedef double (*functional)(const void *context);

static inline void expect_gradient(const char *where, const char *what, functional f, const void *context, double *x,
                                   const double *gradient, int64_t n) {
    static const double step = 1e-3, limit = 1e-6;
    test_pool pool = {.count = 0};
    double *difference = take(&pool, n);
    for (int64_t i = 0; i < n; i++) {
        const double x0 = x[i];
        static const double at[4] = {1, -1, 2, -2}, factor[4] = {8, -8, -1, 1};
        difference[i] = 0;
        for (int64_t j = 0; j < 4; j++) {
            x[i] = x0 + at[j] * step;
            difference[i] += factor[j] * f(context) / (12 * step);
        }
        x[i] = x0;
    }
    expect_close(where, what, relative_error(gradient, difference, n, 1e-4), limit);
    release(&pool);
}

#endif
