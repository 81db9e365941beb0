/* Memory: checked sizes, the one allocator of the library, and the arena in which a run is planned before its first
 * step. */
#ifndef PSK_MEMORY_H
#define PSK_MEMORY_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Every block that the library hands out starts on such a boundary: one cache line, one AVX-512 register. */
#define PSK_ALIGNMENT 64

/* *product = a * b, or PSK_ERROR_ARGUMENT if that does not fit size_t / is negative. */
psk_status psk_size_mul(int64_t a, int64_t b, int64_t *product);

/* A block of `bytes` bytes, aligned to PSK_ALIGNMENT, contents undefined; *out = NULL on error (PSK_ERROR_MEMORY, the
 * message names `what` and the size). bytes == 0 gives a valid block. Released by psk_free, which accepts NULL. */
psk_status psk_alloc(size_t bytes, const char *what, void **out);
psk_status psk_alloc_zero(size_t bytes, const char *what, void **out);
psk_status psk_strdup(const char *text, char **out);
void psk_free(void *block);

/* For tests: the n-th allocation from now on fails (counting from 1), 0 switches this off. Counts jansson's too. */
void psk_alloc_fail_after(int64_t n);

/* Counts one allocation of another library; true: it has to fail. For allocation functions handed to such libraries. */
bool psk_alloc_fails(void);

/* ------------------------------------------------------------------------------------------------------------- arena
 *
 * Planned first, taken once:
 *     psk_arena *arena;  psk_arena_create(&arena);
 *     psk_arena_reserve(arena, "activations", "blocks.0.q", bytes, (void **)&q);   any number of these
 *     psk_arena_commit(arena, PSK_FILL_NONE);           one allocation; q and all the others now point into it
 * Without commit it is a memory report: that is how `info` and `train --dry-run` know what a run will take. */
typedef struct psk_arena psk_arena;

typedef enum { PSK_FILL_NONE, PSK_FILL_ZERO, PSK_FILL_NAN } psk_fill;

psk_status psk_arena_create(psk_arena **out);
void psk_arena_free(psk_arena *arena); /* accepts NULL */

/* Plans `bytes` bytes under a category ("parameters", "gradients", "optimizer", "activations", "workspace") and a name.
 * `where`: set to the block by commit, NULL until then; must outlive the commit; may be NULL in a mere report. Strings
 * are literals or copied. */
psk_status psk_arena_reserve(psk_arena *arena, const char *category, const char *name, int64_t bytes, void **where);

/* The same for count floats. */
psk_status psk_arena_floats(psk_arena *arena, const char *category, const char *name, int64_t count, float **where);

/* Takes the whole plan as one block, filled as asked (NaN: every float is a quiet NaN, for tests). Once only. */
psk_status psk_arena_commit(psk_arena *arena, psk_fill fill);

/* Planned bytes: of everything, or of one category; alignment padding counted. */
int64_t psk_arena_bytes(const psk_arena *arena);
int64_t psk_arena_category_bytes(const psk_arena *arena, const char *category);

/* The categories in order of first use; returns NULL past the last. */
const char *psk_arena_category(const psk_arena *arena, int64_t index);

#endif
