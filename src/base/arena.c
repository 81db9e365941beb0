#include "base/memory.h"

#include <inttypes.h>
#include <string.h>

typedef struct {
    int64_t offset;
    void **where; /* NULL: planned for the report only */
} arena_entry;

typedef struct {
    char *name;
    int64_t bytes;
} arena_category;

struct psk_arena {
    arena_entry *entries;
    int64_t entry_count, entry_capacity;
    arena_category *categories;
    int64_t category_count, category_capacity;
    int64_t bytes;
    void *block; /* NULL until commit */
};

psk_status psk_arena_create(psk_arena **out) {
    void *arena;
    *out = NULL;
    PSK_TRY(psk_alloc_zero(sizeof(psk_arena), "an arena", &arena));
    *out = arena;
    return PSK_OK;
}

void psk_arena_free(psk_arena *arena) {
    if (!arena)
        return;
    for (int64_t i = 0; i < arena->category_count; i++)
        psk_free(arena->categories[i].name);
    psk_free(arena->categories);
    psk_free(arena->entries);
    psk_free(arena->block);
    psk_free(arena);
}

/* Makes room for one more element behind `count` of `size` bytes each. */
static psk_status grow(void **array, int64_t count, int64_t *capacity, size_t size) {
    if (count < *capacity)
        return PSK_OK;
    const int64_t larger = *capacity ? 2 * *capacity : 16;
    void *moved;
    PSK_TRY(psk_alloc((size_t)larger * size, "the plan of an arena", &moved));
    if (count)
        memcpy(moved, *array, (size_t)count * size);
    psk_free(*array);
    *array = moved;
    *capacity = larger;
    return PSK_OK;
}

static arena_category *find_category(const psk_arena *arena, const char *name) {
    for (int64_t i = 0; i < arena->category_count; i++)
        if (strcmp(arena->categories[i].name, name) == 0)
            return &arena->categories[i];
    return NULL;
}

static psk_status obtain_category(psk_arena *arena, const char *name, arena_category **out) {
    *out = find_category(arena, name);
    if (*out)
        return PSK_OK;
    void *categories = arena->categories;
    PSK_TRY(grow(&categories, arena->category_count, &arena->category_capacity, sizeof(arena_category)));
    arena->categories = categories;
    arena_category *category = &arena->categories[arena->category_count];
    PSK_TRY(psk_strdup(name, &category->name));
    category->bytes = 0;
    arena->category_count++;
    *out = category;
    return PSK_OK;
}

/* *where may in truth be a float * or another pointer to an object: written as bytes, which may alias anything. */
static void set_pointer(void **where, void *place) {
    if (where)
        memcpy(where, &place, sizeof place);
}

psk_status psk_arena_reserve(psk_arena *arena, const char *category, const char *name, int64_t bytes, void **where) {
    set_pointer(where, NULL);
    if (arena->block)
        return psk_fail(PSK_ERROR_INTERNAL, "arena: %s (%s) planned after the arena was taken", name, category);
    int64_t padded, total;
    if (bytes < 0 || __builtin_add_overflow(bytes, PSK_ALIGNMENT - 1, &padded) ||
        __builtin_add_overflow(arena->bytes, padded, &total) || (uint64_t)total > PTRDIFF_MAX)
        return psk_fail(PSK_ERROR_ARGUMENT, "arena: %" PRId64 " bytes for %s (%s), on top of %" PRId64 ", is no size",
                        bytes, name, category, arena->bytes);
    padded -= padded % PSK_ALIGNMENT;
    void *entries = arena->entries;
    PSK_TRY(grow(&entries, arena->entry_count, &arena->entry_capacity, sizeof(arena_entry)));
    arena->entries = entries;
    arena_category *owner;
    PSK_TRY(obtain_category(arena, category, &owner));
    arena->entries[arena->entry_count++] = (arena_entry){.offset = arena->bytes, .where = where};
    owner->bytes += padded;
    arena->bytes += padded;
    return PSK_OK;
}

psk_status psk_arena_floats(psk_arena *arena, const char *category, const char *name, int64_t count, float **where) {
    set_pointer((void **)where, NULL);
    int64_t bytes;
    const psk_status status = psk_size_mul(count, sizeof(float), &bytes);
    if (status != PSK_OK)
        return psk_fail_within(status, "arena: %s (%s)", name, category);
    return psk_arena_reserve(arena, category, name, bytes, (void **)where);
}

static void fill_block(void *block, int64_t bytes, psk_fill fill) {
    static const uint32_t quiet_nan = 0x7fc00000u;
    if (fill == PSK_FILL_ZERO)
        memset(block, 0, (size_t)bytes);
    if (fill == PSK_FILL_NAN)
        for (int64_t i = 0; i < bytes; i += (int64_t)sizeof quiet_nan)
            memcpy((char *)block + i, &quiet_nan, sizeof quiet_nan);
}

psk_status psk_arena_commit(psk_arena *arena, psk_fill fill) {
    if (arena->block)
        return psk_fail(PSK_ERROR_INTERNAL, "arena: taken twice");
    PSK_TRY(psk_alloc((size_t)arena->bytes, "an arena", &arena->block));
    fill_block(arena->block, arena->bytes, fill);
    for (int64_t i = 0; i < arena->entry_count; i++)
        set_pointer(arena->entries[i].where, (char *)arena->block + arena->entries[i].offset);
    return PSK_OK;
}

int64_t psk_arena_bytes(const psk_arena *arena) {
    return arena->bytes;
}

int64_t psk_arena_category_bytes(const psk_arena *arena, const char *category) {
    const arena_category *found = find_category(arena, category);
    return found ? found->bytes : 0;
}

const char *psk_arena_category(const psk_arena *arena, int64_t index) {
    return index >= 0 && index < arena->category_count ? arena->categories[index].name : NULL;
}
