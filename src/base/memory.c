#include "base/memory.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Allocations left until one fails; 0 and below: none will. */
static atomic_int_least64_t allocations_left;

psk_status psk_size_mul(int64_t a, int64_t b, int64_t *product) {
    int64_t result;
    if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &result) || (uint64_t)result > SIZE_MAX)
        return psk_fail(PSK_ERROR_ARGUMENT, "size %" PRId64 " x %" PRId64 " is negative or larger than memory can be",
                        a, b);
    *product = result;
    return PSK_OK;
}

void psk_alloc_fail_after(int64_t n) {
    atomic_store(&allocations_left, n);
}

bool psk_alloc_fails(void) {
    /* The common case, no test running, must not write to a line shared by all threads. */
    if (atomic_load_explicit(&allocations_left, memory_order_relaxed) <= 0)
        return false;
    return atomic_fetch_sub(&allocations_left, 1) == 1;
}

/* Blocks of at least a huge page ask the system for such pages, as far as their bounds allow. With small ones the
 * processor spends a good part of a step on finding out where its data lies, the more so in a virtual machine. */
#define HUGE_PAGE ((size_t)2 << 20)
#define PAGE      4096

static void ask_for_huge_pages(void *block, size_t bytes) {
#if defined(MADV_HUGEPAGE)
    const size_t beyond = (uintptr_t)block % PAGE; /* the rest of that page is malloc's: a wish does it no harm */
    if (bytes >= HUGE_PAGE)
        (void)madvise((char *)block - beyond, beyond + bytes, MADV_HUGEPAGE);
#else
    (void)block;
    (void)bytes;
#endif
}

static psk_status out_of_memory(size_t bytes, const char *what) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double amount = (double)bytes;
    size_t unit = 0;
    for (; amount >= 1024; unit++)
        amount /= 1024;
    return psk_fail(PSK_ERROR_MEMORY, "out of memory: %zu bytes (%.1f %s) for %s", bytes, amount, units[unit], what);
}

psk_status psk_alloc(size_t bytes, const char *what, void **out) {
    *out = NULL;
    /* The exact size, not rounded up, so that address sanitizers see the first byte past the end. */
    if (bytes > PTRDIFF_MAX || psk_alloc_fails() || posix_memalign(out, PSK_ALIGNMENT, bytes ? bytes : 1) != 0) {
        *out = NULL;
        return out_of_memory(bytes, what);
    }
    ask_for_huge_pages(*out, bytes);
    return PSK_OK;
}

psk_status psk_alloc_zero(size_t bytes, const char *what, void **out) {
    PSK_TRY(psk_alloc(bytes, what, out));
    memset(*out, 0, bytes);
    return PSK_OK;
}

psk_status psk_strdup(const char *text, char **out) {
    const size_t bytes = strlen(text) + 1;
    void *copy;
    *out = NULL;
    PSK_TRY(psk_alloc(bytes, "a string", &copy));
    memcpy(copy, text, bytes);
    *out = copy;
    return PSK_OK;
}

void psk_free(void *block) {
    free(block);
}

void psk_buffer_free(void *buffer) {
    psk_free(buffer);
}
