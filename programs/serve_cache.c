#include "serve_cache.h"

#include <stdlib.h>
#include <string.h>

#define COARSE_CUT       256 /* tokens, at least: long enough for good products, short enough not to hold up others */
#define FINE_CUT         32  /* tokens: what at most is read again after an edit near the end */
#define COARSE_SNAPSHOTS 32  /* of one prompt, about: so that a long one does not drive out all others */
#define BUCKETS          4096

struct serve_node {
    serve_node *parent, *chain; /* chain: next in its bucket */
    serve_node *newer, *older;  /* among the nodes with a session, by use */
    int32_t *tokens;            /* count of them, since the parent */
    int64_t count, position;    /* position: tokens from the start */
    uint64_t hash;              /* of parent and tokens */
    int64_t children, held;
    psk_session *session; /* NULL: none */
    int64_t bytes;        /* of the session */
};

struct serve_cache {
    serve_node root;
    serve_node *buckets[BUCKETS];
    serve_node *newest, *oldest;
    int64_t budget, bytes, count, coarse;
};

serve_cache *serve_cache_create(int64_t budget, int64_t block_size) {
    serve_cache *const cache = calloc(1, sizeof *cache);
    if (!cache)
        return NULL;
    cache->budget = budget;
    const int64_t block = block_size > 0 ? block_size : 1; /* 0: a form without blocks */
    cache->coarse = block * ((COARSE_CUT + block - 1) / block);
    cache->root.held = 1;
    return cache;
}

int64_t serve_cache_cut(const serve_cache *cache, int64_t position, int64_t end) {
    const int64_t coarse = position - position % cache->coarse + cache->coarse;
    const int64_t fine = position - position % FINE_CUT + FINE_CUT;
    return coarse <= end ? coarse : fine <= end ? fine : end;
}

/* ------------------------------------------------------------------------------------------------------------- tree
 */

/* FNV-1a over the tokens, beginning with the parent: only a way to the bucket, equality is that of the tokens. */
static uint64_t hash_of(const serve_node *parent, const int32_t *tokens, int64_t count) {
    uint64_t hash = parent->hash ^ 14695981039346656037u;
    for (int64_t i = 0; i < count; i++)
        hash = (hash ^ (uint32_t)tokens[i]) * 1099511628211u;
    return hash ^ hash >> 29;
}

static serve_node **find_child(serve_cache *cache, serve_node *parent, const int32_t *tokens, int64_t count,
                               uint64_t hash) {
    serve_node **place = &cache->buckets[hash % BUCKETS];
    while (*place && !((*place)->hash == hash && (*place)->parent == parent && (*place)->count == count &&
                       memcmp((*place)->tokens, tokens, (size_t)count * sizeof *tokens) == 0))
        place = &(*place)->chain;
    return place;
}

static serve_node *make_child(serve_node *parent, const int32_t *tokens, int64_t count, uint64_t hash) {
    serve_node *const node = calloc(1, sizeof *node);
    int32_t *const copy = malloc((size_t)count * sizeof *copy);
    if (!node || !copy) {
        free(node);
        free(copy);
        return NULL;
    }
    memcpy(copy, tokens, (size_t)count * sizeof *copy);
    *node = (serve_node){
        .parent = parent, .tokens = copy, .count = count, .position = parent->position + count, .hash = hash};
    parent->children++;
    return node;
}

/* Removes the node, and then its parents, as far as nothing needs them. */
static void prune(serve_cache *cache, serve_node *node) {
    while (node->held == 0 && node->children == 0 && !node->session) {
        serve_node *const parent = node->parent;
        serve_node **place = &cache->buckets[node->hash % BUCKETS];
        while (*place != node)
            place = &(*place)->chain;
        *place = node->chain;
        parent->children--;
        free(node->tokens);
        free(node);
        node = parent;
    }
}

void serve_cache_release(serve_cache *cache, serve_node *node) {
    if (!node)
        return;
    node->held--;
    prune(cache, node);
}

serve_node *serve_cache_advance(serve_cache *cache, serve_node *node, const int32_t *tokens, int64_t count) {
    if (!node)
        return NULL;
    const uint64_t hash = hash_of(node, tokens, count);
    serve_node **const place = find_child(cache, node, tokens, count, hash);
    if (!*place)
        *place = make_child(node, tokens, count, hash);
    serve_node *const child = *place;
    if (child)
        child->held++;
    serve_cache_release(cache, node);
    return child;
}

/* -------------------------------------------------------------------------------------------------------- snapshots
 */

static void unlink_used(serve_cache *cache, serve_node *node) {
    *(node->newer ? &node->newer->older : &cache->newest) = node->older;
    *(node->older ? &node->older->newer : &cache->oldest) = node->newer;
}

static void link_newest(serve_cache *cache, serve_node *node) {
    node->newer = NULL;
    node->older = cache->newest;
    *(cache->newest ? &cache->newest->newer : &cache->oldest) = node;
    cache->newest = node;
}

static void drop_session(serve_cache *cache, serve_node *node) {
    unlink_used(cache, node);
    psk_session_free(node->session);
    node->session = NULL;
    cache->bytes -= node->bytes;
    cache->count--;
    prune(cache, node);
}

void serve_cache_free(serve_cache *cache) {
    if (!cache)
        return;
    while (cache->oldest)
        drop_session(cache, cache->oldest);
    free(cache);
}

serve_node *serve_cache_find(serve_cache *cache, const int32_t *tokens, int64_t count, const psk_session **session) {
    serve_node *node = &cache->root, *best = node;
    for (int64_t p = 0; p < count; p = node->position) {
        const int64_t length = serve_cache_cut(cache, p, count) - p;
        node = *find_child(cache, node, tokens + p, length, hash_of(node, tokens + p, length));
        if (!node)
            break;
        if (node->session)
            best = node;
    }
    *session = best->session;
    if (best->session) {
        unlink_used(cache, best);
        link_newest(cache, best);
    }
    best->held++;
    return best;
}

/* Of the coarse cuts of a long prompt only every so many-th, and the last. */
static bool is_wanted(const serve_cache *cache, int64_t position, int64_t end) {
    if (position % cache->coarse != 0 || position + cache->coarse > end)
        return true;
    int64_t stride = cache->coarse;
    while (end / stride > COARSE_SNAPSHOTS)
        stride *= 2;
    return position % stride == 0;
}

void serve_cache_keep(serve_cache *cache, serve_node *node, const psk_session *session, int64_t end) {
    const int64_t bytes = psk_session_bytes(session);
    if (!node || node->session || bytes > cache->budget || !is_wanted(cache, node->position, end) ||
        psk_session_clone(session, &node->session) != PSK_OK)
        return;
    node->bytes = bytes;
    cache->bytes += bytes;
    cache->count++;
    link_newest(cache, node);
    while (cache->bytes > cache->budget)
        drop_session(cache, cache->oldest);
}

int64_t serve_cache_bytes(const serve_cache *cache) {
    return cache->bytes;
}

int64_t serve_cache_count(const serve_cache *cache) {
    return cache->count;
}
