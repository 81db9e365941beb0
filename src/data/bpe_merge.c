#include "data/bpe_merge.h"

#include "base/memory.h"

#include <string.h>

#define NO_RANK   INT32_MAX
#define NO_PAIR   UINT64_MAX
#define SHORT_ROW 24 /* tokens; up to here looking through all pairs each time is faster than a heap */

/* Open addressing, at most half full. */
typedef struct table_entry {
    uint64_t pair; /* left * 2^32 + right; NO_PAIR: free */
    int32_t rank, merged;
} table_entry;

struct psk_merge_table {
    uint64_t mask; /* entries - 1, a power of two less one */
    table_entry entries[];
};

static uint64_t make_pair(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* The pair's entry, or the free one where it would go. */
static const table_entry *find(const psk_merge_table *table, uint64_t pair) {
    const uint64_t golden = 0x9E3779B97F4A7C15u; /* 2^64 / golden ratio: Fibonacci hashing */
    uint64_t at = (pair * golden) >> 32;
    while (table->entries[at &= table->mask].pair != pair && table->entries[at].pair != NO_PAIR)
        at++;
    return &table->entries[at];
}

psk_status psk_merge_table_create(const psk_merge *merges, int64_t count, psk_merge_table **out, int64_t *repeated) {
    psk_merge_table *table;
    uint64_t entries = 4;
    *out = NULL;
    *repeated = -1;
    while (entries < 2 * (uint64_t)count)
        entries *= 2;
    PSK_TRY(psk_alloc(sizeof *table + entries * sizeof table->entries[0], "a table of merges", (void **)&table));
    table->mask = entries - 1;
    for (uint64_t i = 0; i < entries; i++)
        table->entries[i] = (table_entry){NO_PAIR, NO_RANK, -1};
    for (int64_t i = 0; i < count && *repeated < 0; i++) {
        const uint64_t pair = make_pair(merges[i].left, merges[i].right);
        table_entry *const entry = &table->entries[find(table, pair) - table->entries];
        if (entry->pair == pair)
            *repeated = i;
        *entry = (table_entry){pair, (int32_t)i, merges[i].merged};
    }
    *out = table;
    return PSK_OK;
}

void psk_merge_table_free(psk_merge_table *table) {
    psk_free(table);
}

/* ------------------------------------------------------------------------------------------------------------- short
 */

static void merge_short(const psk_merge_table *table, int32_t *ids, int64_t *count) {
    int32_t ranks[SHORT_ROW]; /* of the pairs (i, i + 1) */
    int64_t n = *count;
    for (int64_t i = 0; i + 1 < n; i++)
        ranks[i] = find(table, make_pair(ids[i], ids[i + 1]))->rank;
    while (n > 1) {
        int64_t best = 0;
        for (int64_t i = 1; i + 1 < n; i++)
            if (ranks[i] < ranks[best])
                best = i;
        if (ranks[best] == NO_RANK)
            break;
        ids[best] = find(table, make_pair(ids[best], ids[best + 1]))->merged;
        n--;
        for (int64_t i = best + 1; i < n; i++)
            ids[i] = ids[i + 1];
        for (int64_t i = best + 1; i + 1 < n; i++)
            ranks[i] = ranks[i + 1];
        if (best + 1 < n)
            ranks[best] = find(table, make_pair(ids[best], ids[best + 1]))->rank;
        if (best > 0)
            ranks[best - 1] = find(table, make_pair(ids[best - 1], ids[best]))->rank;
    }
    *count = n;
}

/* -------------------------------------------------------------------------------------------------------------- long
 */

/* A place in the row, chained to its neighbours; id -1: merged into the one before it. */
typedef struct place {
    int64_t before, after; /* -1: none */
    int32_t id;
} place;

/* A pair that was there when it was put in; it may have changed since. */
typedef struct heap_entry {
    int64_t left; /* place */
    int32_t rank;
    int32_t left_id, right_id;
} heap_entry;

typedef struct long_row {
    const psk_merge_table *table;
    place *places;
    heap_entry *heap; /* the smallest (rank, left) at 0 */
    int64_t heap_size;
} long_row;

static bool precedes(const heap_entry *a, const heap_entry *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->left < b->left;
}

static void heap_push(long_row *row, heap_entry entry) {
    int64_t at = row->heap_size++;
    while (at > 0 && precedes(&entry, &row->heap[(at - 1) / 2])) {
        row->heap[at] = row->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    row->heap[at] = entry;
}

static heap_entry heap_pop(long_row *row) {
    const heap_entry top = row->heap[0], last = row->heap[--row->heap_size];
    int64_t at = 0, child;
    while ((child = 2 * at + 1) < row->heap_size) {
        if (child + 1 < row->heap_size && precedes(&row->heap[child + 1], &row->heap[child]))
            child++;
        if (!precedes(&row->heap[child], &last))
            break;
        row->heap[at] = row->heap[child];
        at = child;
    }
    row->heap[at] = last;
    return top;
}

static void push_pair(long_row *row, int64_t left) {
    const int64_t right = left < 0 ? -1 : row->places[left].after;
    if (right < 0)
        return;
    const int32_t left_id = row->places[left].id, right_id = row->places[right].id;
    const int32_t rank = find(row->table, make_pair(left_id, right_id))->rank;
    if (rank != NO_RANK)
        heap_push(row, (heap_entry){left, rank, left_id, right_id});
}

static void merge_pair(long_row *row, const heap_entry *entry) {
    place *const left = &row->places[entry->left];
    if (left->id != entry->left_id || left->after < 0)
        return;
    place *const right = &row->places[left->after];
    if (right->id != entry->right_id)
        return;
    left->id = find(row->table, make_pair(left->id, right->id))->merged;
    left->after = right->after;
    right->id = -1;
    if (left->after >= 0)
        row->places[left->after].before = entry->left;
    push_pair(row, left->before);
    push_pair(row, entry->left);
}

/* Every merge takes one pair away and makes at most two: 3 n entries are enough. */
static psk_status reserve(psk_merge_space *space, int64_t n, long_row *row) {
    const int64_t bytes_a_place = sizeof(place) + 3 * sizeof(heap_entry);
    if (space->capacity < n) {
        int64_t bytes;
        psk_free(space->block);
        *space = (psk_merge_space){0};
        PSK_TRY(psk_size_mul(n, bytes_a_place, &bytes));
        PSK_TRY(psk_alloc((size_t)bytes, "the merging of a long piece of text", &space->block));
        space->capacity = n;
    }
    row->places = space->block;
    row->heap = (heap_entry *)(row->places + n);
    return PSK_OK;
}

static psk_status merge_long(const psk_merge_table *table, psk_merge_space *space, int32_t *ids, int64_t *count) {
    const int64_t n = *count;
    long_row row = {.table = table};
    PSK_TRY(reserve(space, n, &row));
    for (int64_t i = 0; i < n; i++)
        row.places[i] = (place){i - 1, i + 1 < n ? i + 1 : -1, ids[i]};
    for (int64_t i = 0; i < n; i++)
        push_pair(&row, i);
    while (row.heap_size > 0) {
        const heap_entry best = heap_pop(&row);
        merge_pair(&row, &best);
    }
    *count = 0;
    for (int64_t i = 0; i >= 0; i = row.places[i].after)
        ids[(*count)++] = row.places[i].id;
    return PSK_OK;
}

psk_status psk_merge_ids(const psk_merge_table *table, psk_merge_space *space, int32_t *ids, int64_t *count) {
    if (*count > SHORT_ROW)
        return merge_long(table, space, ids, count);
    merge_short(table, ids, count);
    return PSK_OK;
}
