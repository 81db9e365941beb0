/* Decoding sessions (the functions are in polysketch.h): what a sequence leaves behind for its next token.
 *
 * Per layer and key/value head: the state Z of the block algorithm, and the rows (k'', v, b) of the keys that are not
 * in it yet (at most 2 b - 1; all of them for softmax and polynomial, unless local_only). A prompt is read in chunks by
 * attention's core, Nq new queries on Nk >= Nq keys (session_chunk.c). A token is a step: it is written into the ring
 * of rows, reads Z once, and a full block goes into Z (session_step.c). Both leave the same state. */
#ifndef PSK_SESSION_H
#define PSK_SESSION_H

#include "infer/decoder.h"

/* Copies in bfloat16 of what a step reads, for a device in that precision: half the bytes a token. What they are copies
 * of stays the truth, for prompts, files and the blocks that go into the state. */
typedef struct psk_session_copies {
    psk_bf16 *state, *cache[PSK_CACHES]; /* as psk_step_session has them; NULL where a step does not read them */
    int64_t capacity;                    /* that they were made for; -1: there are none */
    bool fresh;                          /* they agree with the session */
} psk_session_copies;

struct psk_session {
    psk_decoder *decoder;
    float *state;             /* L x Hkv x m x (d+1); NULL without one */
    float *cache[PSK_CACHES]; /* L x Hkv x capacity x width; NULL where the width is 0 */
    int64_t capacity;         /* psk_layout_capacity(length), or more within a call */
    int64_t first, rows;      /* of the ring: the slot of the oldest row, and how many are kept */
    int64_t length;           /* tokens so far */
    bool torn;                /* a call failed on its way through the layers: some are further than others */
    psk_session_copies copies;
};

/* The rows of one kind and layer, Hkv x capacity x width. */
static inline float *psk_session_cache(const psk_session *session, int kind, int64_t layer) {
    const psk_decoder *decoder = session->decoder;
    return session->cache[kind] + layer * decoder->s.Hkv * session->capacity * decoder->layout.width[kind];
}

/* The state of one layer, Hkv x m x (d+1); NULL without one. */
static inline float *psk_session_state(const psk_session *session, int64_t layer) {
    const psk_decoder *decoder = session->decoder;
    return session->state != NULL ? session->state + layer * (decoder->layout.state_floats / decoder->s.L) : NULL;
}

/* ARGUMENT for a session that is torn. */
psk_status psk_session_check_whole(const psk_session *session);

/* Room for `tokens` tokens; on error nothing has changed. */
psk_status psk_session_reserve(psk_session *session, int64_t tokens);

/* Adds to the state of a layer those of keys->Nk keys that are no tail. They are summed on their own first: added one
 * by one to a state of a million keys, small products would be lost (docs/numerics.md). */
psk_status psk_session_fold(const psk_session *session, int64_t layer, const psk_attention_views *keys);

/* Before a step: copies that are needed are there and agree, others are given back (session_copies.c). */
psk_status psk_session_prepare_copies(psk_session *session);
psk_status psk_session_copy_state(const psk_session *session, int64_t layer); /* after a fold */
void psk_session_release_copies(psk_session *session);
int64_t psk_session_copies_bytes(const psk_session_layout *layout, int64_t capacity); /* -1: does not fit 64 bits */

/* The first `rows` kept rows of one kind and layer, oldest first.   out: Hkv x rows x width, `stride` floats from head
 * to head */
psk_status psk_session_rows(const psk_session *session, int kind, int64_t layer, int64_t rows, float *out,
                            int64_t stride);

/* n <= PSK_SESSION_CHUNK checked tokens through all layers; decoder->x then holds the last layer's output, n x D. */
psk_status psk_session_chunk(psk_session *session, const int32_t *tokens, int64_t n);

/* One token each into `count` <= PSK_STEP_SESSIONS checked sessions; decoder->x then holds the last layer's output,
 * count x D. */
psk_status psk_session_step_slice(psk_session *const *sessions, int64_t count, const int32_t *tokens);

/* logits = head(LN_f(x)) on the model's device or its stepper.   x: rows x D, logits: rows x V; rows <=
 * PSK_SESSION_CHUNK */
psk_status psk_decoder_logits(psk_decoder *decoder, psk_device *device, int64_t rows, const float *x, float *logits);

#endif
