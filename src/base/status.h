/* Errors: every function that can fail returns psk_status and leaves a message for this thread.
 *
 * The library never prints, exits or aborts. Three kinds of check (docs/architecture.md):
 *   - what a user or a file says is checked always and answered with a status (psk_fail);
 *   - our own contracts are checked with PSK_ASSERT, on in debug builds and in tests;
 *   - kernels only assert.
 */
#ifndef PSK_STATUS_H
#define PSK_STATUS_H

#include "polysketch.h"

#include <assert.h>

/* Sets this thread's message (printf form; at most 1,023 bytes are kept) and returns `status`.
 * The message names the thing, the value, the limit and what to do. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
psk_status
psk_fail(psk_status status, const char *format, ...);

/* Puts "prefix: " before this thread's message, so that a caller can name the file or the step. Returns `status`. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
psk_status
psk_fail_within(psk_status status, const char *format, ...);

/* Returns from the calling function with the status of `call` unless it is PSK_OK. */
#define PSK_TRY(call)                                                                                                  \
    do {                                                                                                               \
        const psk_status psk_try_status = (call);                                                                      \
        if (psk_try_status != PSK_OK)                                                                                  \
            return psk_try_status;                                                                                     \
    } while (0)

/* The same, in a function that has something to release: jumps to `label` with the status in `status`. */
#define PSK_TRY_GOTO(status, call, label)                                                                              \
    do {                                                                                                               \
        (status) = (call);                                                                                             \
        if ((status) != PSK_OK)                                                                                        \
            goto label;                                                                                                \
    } while (0)

#define PSK_ASSERT(condition) assert(condition)

#endif
