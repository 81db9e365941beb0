#include "data/bpe.h"

#include "base/files.h"
#include "base/memory.h"
#include "data/bpe_alphabet.h"
#include "data/bpe_split.h"
#include "data/tokenizer_kinds.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* The tokens of a short piece that was met before. 64 bytes: one cache line. */
#define CACHED_BYTES  22
#define CACHED_TOKENS 10
typedef struct cached_piece {
    unsigned char size, count; /* size 0: free */
    char text[CACHED_BYTES];
    int32_t ids[CACHED_TOKENS];
} cached_piece;

/* A power of two. 2 MiB: about a core's second-level cache. */
#define CACHE_ENTRIES 32768

/* What one thread encodes with. */
typedef struct encoder {
    struct encoder *next; /* in the list of those that nobody uses */
    void *match;
    psk_merge_space space;
    cached_piece cache[CACHE_ENTRIES];
} encoder;

typedef struct bpe_tokenizer {
    psk_tokenizer base; /* text and starts are those of parts, which has none then */
    psk_bpe_parts parts;
    psk_merge_table *table;
    psk_splitter *splitter;
    pthread_mutex_t lock; /* of the list */
    encoder *idle;
} bpe_tokenizer;

void psk_bpe_parts_free(psk_bpe_parts *parts) {
    for (int64_t i = 0; i < parts->special_count; i++)
        psk_free(parts->specials[i].name);
    psk_free(parts->specials);
    psk_free(parts->merges);
    psk_free(parts->starts);
    psk_free(parts->text);
    *parts = (psk_bpe_parts){0};
}

/* ---------------------------------------------------------------------------------------------------------- encoders
 */

static void free_encoder(encoder *e) {
    psk_split_match_free(e->match);
    psk_free(e->space.block);
    psk_free(e);
}

static psk_status take_encoder(bpe_tokenizer *bpe, encoder **out) {
    encoder *e;
    pthread_mutex_lock(&bpe->lock);
    e = bpe->idle;
    if (e)
        bpe->idle = e->next;
    pthread_mutex_unlock(&bpe->lock);
    *out = e;
    if (e)
        return PSK_OK;
    PSK_TRY(psk_alloc_zero(sizeof *e, "an encoder of text", (void **)&e));
    const psk_status status = psk_split_match_create(bpe->splitter, &e->match);
    if (status == PSK_OK)
        *out = e;
    else
        psk_free(e);
    return status;
}

static void give_back_encoder(bpe_tokenizer *bpe, encoder *e) {
    pthread_mutex_lock(&bpe->lock);
    e->next = bpe->idle;
    bpe->idle = e;
    pthread_mutex_unlock(&bpe->lock);
}

/* ------------------------------------------------------------------------------------------------------------ encode
 */

/* Appends the tokens of a piece, by merging. */
static psk_status merge_piece(const bpe_tokenizer *bpe, encoder *e, const char *piece, size_t size,
                              psk_tokens *tokens) {
    int64_t count = (int64_t)size;
    PSK_TRY(psk_tokens_reserve(tokens, count));
    int32_t *const ids = tokens->ids + tokens->count;
    for (size_t i = 0; i < size; i++)
        ids[i] = bpe->parts.bytes[(unsigned char)piece[i]];
    PSK_TRY(psk_merge_ids(bpe->table, &e->space, ids, &count));
    tokens->count += count;
    return PSK_OK;
}

/* The same, by memory where the piece is short. */
static psk_status append_piece(const bpe_tokenizer *bpe, encoder *e, const char *piece, size_t size,
                               psk_tokens *tokens) {
    if (size > CACHED_BYTES)
        return merge_piece(bpe, e, piece, size, tokens);
    cached_piece *const cached = &e->cache[XXH3_64bits(piece, size) & (CACHE_ENTRIES - 1)];
    if (cached->size == size && memcmp(cached->text, piece, size) == 0) {
        PSK_TRY(psk_tokens_reserve(tokens, CACHED_TOKENS));
        memcpy(tokens->ids + tokens->count, cached->ids, sizeof cached->ids); /* of fixed size: quicker */
        tokens->count += cached->count;
        return PSK_OK;
    }
    const int64_t first = tokens->count;
    PSK_TRY(merge_piece(bpe, e, piece, size, tokens));
    const int64_t count = tokens->count - first;
    if (count <= CACHED_TOKENS) {
        cached->size = (unsigned char)size;
        cached->count = (unsigned char)count;
        memcpy(cached->text, piece, size);
        memcpy(cached->ids, tokens->ids + first, (size_t)count * sizeof cached->ids[0]);
    }
    return PSK_OK;
}

static psk_status append_pieces(const bpe_tokenizer *bpe, encoder *e, const char *text, size_t size,
                                psk_tokens *tokens) {
    psk_split split = {.splitter = bpe->splitter, .match = e->match, .text = text, .size = size};
    for (;;) {
        const char *piece;
        size_t piece_size;
        bool found;
        PSK_TRY(psk_split_next(&split, &piece, &piece_size, &found));
        if (!found)
            return PSK_OK;
        PSK_TRY(append_piece(bpe, e, piece, piece_size, tokens));
    }
}

static psk_status bpe_append(const psk_tokenizer *tokenizer, const char *text, size_t size, psk_tokens *tokens) {
    bpe_tokenizer *const bpe = (bpe_tokenizer *)(uintptr_t)tokenizer; /* the list of encoders is all that changes */
    encoder *e;
    PSK_TRY(take_encoder(bpe, &e));
    const psk_status status = append_pieces(bpe, e, text, size, tokens);
    give_back_encoder(bpe, e);
    return status;
}

/* -------------------------------------------------------------------------------------------------- create and free
 */

static psk_status bpe_save(const psk_tokenizer *tokenizer, const char *folder) {
    return psk_bpe_write(&((const bpe_tokenizer *)tokenizer)->parts, folder);
}

static void bpe_free(psk_tokenizer *tokenizer) {
    bpe_tokenizer *const bpe = (bpe_tokenizer *)tokenizer;
    for (encoder *e = bpe->idle, *next; e; e = next) {
        next = e->next;
        free_encoder(e);
    }
    pthread_mutex_destroy(&bpe->lock);
    psk_splitter_free(bpe->splitter);
    psk_merge_table_free(bpe->table);
    psk_bpe_parts_free(&bpe->parts);
    psk_free(bpe);
}

static const psk_tokenizer_kind bpe_kind = {bpe_append, bpe_save, bpe_free};

/* "bpe-" and a hash of all that decides what is encoded how. */
static void make_name(const psk_bpe_parts *parts, char name[PSK_TOKENIZER_NAME_SIZE]) {
    const int64_t V = parts->vocab_size;
    const uint64_t hashes[] = {
        XXH3_64bits(parts->starts, (size_t)(V + 1) * sizeof *parts->starts),
        XXH3_64bits(parts->text, (size_t)parts->starts[V]),
        XXH3_64bits(parts->merges, (size_t)parts->merge_count * sizeof *parts->merges),
        (uint64_t)parts->end_of_text,
    };
    snprintf(name, PSK_TOKENIZER_NAME_SIZE, "bpe-%016" PRIx64, (uint64_t)XXH3_64bits(hashes, sizeof hashes));
}

/* Takes the parts, whatever the outcome. */
static psk_status create(psk_bpe_parts *parts, psk_tokenizer **out) {
    psk_status status;
    bpe_tokenizer *bpe;
    int64_t repeated;
    *out = NULL;
    status = psk_alloc_zero(sizeof *bpe, "a tokenizer", (void **)&bpe);
    if (status != PSK_OK) {
        psk_bpe_parts_free(parts);
        return status;
    }
    bpe->base = (psk_tokenizer){.kind = &bpe_kind,
                                .vocab_size = parts->vocab_size,
                                .end_of_text = parts->end_of_text,
                                .text = parts->text,
                                .starts = parts->starts};
    bpe->parts = *parts;
    *parts = (psk_bpe_parts){0};
    pthread_mutex_init(&bpe->lock, NULL);
    make_name(&bpe->parts, bpe->base.name);
    PSK_TRY_GOTO(status, psk_splitter_create(&bpe->splitter), failed);
    PSK_TRY_GOTO(status, psk_merge_table_create(bpe->parts.merges, bpe->parts.merge_count, &bpe->table, &repeated),
                 failed);
    PSK_ASSERT(repeated < 0);
    *out = &bpe->base;
    return PSK_OK;
failed:
    psk_tokenizer_free(&bpe->base);
    return status;
}

psk_status psk_tokenizer_bpe_pair(const char *vocab_path, const char *merges_path, psk_tokenizer **out) {
    psk_bpe_parts parts;
    *out = NULL;
    PSK_TRY(psk_bpe_read_pair(vocab_path, merges_path, &parts));
    return create(&parts, out);
}

psk_status psk_tokenizer_bpe_json(const json_t *object, const char *path, psk_tokenizer **out) {
    psk_bpe_parts parts;
    *out = NULL;
    PSK_TRY(psk_bpe_read_json(object, path, &parts));
    return create(&parts, out);
}
