/* The prefix cache: snapshots of sessions, found again by the tokens that led to them. Belongs to the engine's thread.
 *
 * A prompt is read in cuts that depend on its length alone: at every multiple of `coarse` tokens, then, in what is
 * left, at every multiple of `fine`, then to its last token but one (the last is a step, which gives the logits). The
 * cache is a tree whose edges are these cuts, compared token by token, so that a session from it has gone through the
 * very calls that the prompt would make: a reply has the same bits whatever the cache held. */
#ifndef SERVE_CACHE_H
#define SERVE_CACHE_H

#include "command.h"

#include <stdbool.h>

typedef struct serve_cache serve_cache;
typedef struct serve_node serve_node; /* a prefix; the root is no tokens */

/* Bytes of snapshots, 0: keeps none. block_size: the model's, snapshots lie at multiples of it; 0 where it has
 * none. NULL without memory. */
serve_cache *serve_cache_create(int64_t budget, int64_t block_size);
void serve_cache_free(serve_cache *cache); /* every node must have been released */

/* Where to cut next: position < the result <= end. */
int64_t serve_cache_cut(const serve_cache *cache, int64_t position, int64_t end);

/* The longest prefix of tokens[0 ... count) with a snapshot, or the root; *session is the cache's, valid until the next
 * call, NULL for the root. The node is held. */
serve_node *serve_cache_find(serve_cache *cache, const int32_t *tokens, int64_t count, const psk_session **session);

/* From a node over one cut of `count` tokens to the next; lets go of `node` and holds the result (NULL: node is NULL,
 * or no memory). */
serve_node *serve_cache_advance(serve_cache *cache, serve_node *node, const int32_t *tokens, int64_t count);
void serve_cache_release(serve_cache *cache, serve_node *node); /* accepts NULL */

/* Keeps a copy of the session at this node if one is wanted there for a prompt whose last cut is at `end`; makes room
 * by dropping what was used least recently. */
void serve_cache_keep(serve_cache *cache, serve_node *node, const psk_session *session, int64_t end);

int64_t serve_cache_bytes(const serve_cache *cache);
int64_t serve_cache_count(const serve_cache *cache); /* of snapshots */

#endif
