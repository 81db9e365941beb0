/* What the tests share: comparing so that NaN fails, buffers that notice writes beside them, checks of psk_status. */
#ifndef PSK_TESTS_SUPPORT_H
#define PSK_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "base/status.h"

/* Fails the test unless `call` gives PSK_OK; prints the message. */
#define PSK_TEST_OK(call) psk_test_ok((call), #call, __FILE__, __LINE__)

/* Fails the test unless `call` gives `expected` and its message holds each of the strings that follow (at least one).
 */
#define PSK_TEST_FAILS(call, expected, ...)                                                                            \
    psk_test_fails((call), (expected), (const char *const[]){__VA_ARGS__, NULL}, #call, __FILE__, __LINE__)

/* Fails the test unless value <= limit, NaN included. */
#define PSK_TEST_AT_MOST(value, limit) psk_test_at_most((value), (limit), #value, __FILE__, __LINE__)

void psk_test_ok(psk_status status, const char *call, const char *file, int line);
void psk_test_fails(psk_status status, psk_status expected, const char *const *parts, const char *call,
                    const char *file, int line);
void psk_test_at_most(double value, double limit, const char *what, const char *file, int line);

/* rms(got - want) / rms(want); INFINITY if any number is not finite, or if want is all 0 and got is not. n == 0 gives
 * 0. */
double psk_test_relative_rms(const float *got, const float *want, int64_t n);
double psk_test_relative_rms_double(const float *got, const double *want, int64_t n);

/* n floats between two guard bands, aligned to PSK_ALIGNMENT: NaN, or N(0, 1) numbers that depend on seed and name
 * alone. */
float *psk_test_buffer(int64_t n);
float *psk_test_random(int64_t n, uint64_t seed, const char *name);

/* Fails the test if a guard band was written to. psk_test_free checks, then frees; it accepts NULL. */
void psk_test_check(const float *buffer);
void psk_test_free(float *buffer);

/* A new empty folder under $TMPDIR or /tmp; psk_test_remove_folder removes it with all it holds, and frees the string.
 */
char *psk_test_folder(void);
void psk_test_remove_folder(char *folder);

/* Fixture: a new folder and the path of a file `name` in it that is not there yet; *state points to it. */
typedef struct psk_test_place {
    char *folder, *path;
} psk_test_place;
int psk_test_place_enter(void **state, const char *name);
int psk_test_place_leave(void **state);

/* No file may grow beyond `bytes`, as on a full disk; RLIM_INFINITY: as far as it likes. A program whose SIGXFSZ has
 * the default action is killed instead. */
void psk_test_limit_files(rlim_t bytes);

/* Devices made from here on have this instruction set (PSK_CPU_ISA); false, and nothing has changed, where the
 * processor lacks it. */
bool psk_test_force_isa(const char *isa);

/* Runs `function` with the 1st, 2nd, ... allocation failing, until it succeeds; every failure must be PSK_ERROR_MEMORY.
 * Returns how many runs failed. What `function` took it must have released in both cases. */
int64_t psk_test_allocation_failures(psk_status (*function)(void *), void *argument);

#endif
