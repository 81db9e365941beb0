/* What all sessions of a model share: the workspace in which a call runs, and how a session's memory is laid out. Made
 * with the first session of the model, released with its last. */
#ifndef PSK_DECODER_H
#define PSK_DECODER_H

#include "model/model.h"

/* Sessions that one pass of a step takes. */
#define PSK_STEP_SESSIONS 64

/* Tokens of a prompt worked on at once: enough rows for dense layers at full rate, 30 MB of activations for GPT-2
 * small. */
#define PSK_SESSION_CHUNK 512

/* Without a local part the keys wait for Z in blocks of at most so many. */
#define PSK_PENDING_ROWS 256

/* The first capacity of a cache that grows; it doubles. */
#define PSK_FIRST_ROWS 64

/* The kinds of rows that a session keeps: k'' (softmax: k, polynomial: k'), v, and the sketches or features b. */
enum { PSK_CACHE_K, PSK_CACHE_V, PSK_CACHE_B, PSK_CACHES };

/* A session's memory, in floats.
 *   state   L x Hkv x m x (d+1)
 *   rows    L x Hkv x capacity x width, of each kind; width 0: the mechanism has no such rows
 * ring > 0: that many rows, used as a ring; when it is full its oldest `fold` rows go into the state, or are forgotten
 * where there is none. ring == 0: every row is kept and the capacity grows (psk_layout_capacity). */
typedef struct psk_session_layout {
    int64_t groups;       /* L Hkv */
    int64_t state_floats; /* of all groups */
    int64_t width[PSK_CACHES];
    int64_t ring, fold;
} psk_session_layout;

psk_session_layout psk_session_layout_of(const psk_model_config *config);

/* Rows that a session has room for when it holds so many tokens: a function of that number alone. */
int64_t psk_layout_capacity(const psk_session_layout *layout, int64_t tokens);

/* Bytes that a session of this capacity takes, with the copies that it has on a device in bfloat16 from its first step
 * on; -1 if they do not fit 64 bits. */
int64_t psk_decoder_bytes(const psk_model *model, int64_t capacity);

/* Bytes of state and rows alone; -1 if they do not fit 64 bits. */
int64_t psk_layout_bytes(const psk_session_layout *layout, int64_t capacity);

typedef struct psk_decoder {
    psk_model *model;
    psk_sizes s;
    psk_session_layout layout;
    int64_t sessions; /* that are alive */

    psk_arena *arena; /* of what follows */
    psk_attention *attention;
    psk_activations act;
    psk_block_workspace work;
    float *x;                /* chunk x D */
    float *keys[PSK_CACHES]; /* Hkv x (ring + chunk) x width: the rows that were kept, then those of the chunk */
    float *folded;           /* Hkv x m x (d+1): what a chunk or a block adds to the state of a layer */
    void *positions;         /* chunk int32 */
    void *step_sessions;     /* PSK_STEP_SESSIONS psk_step_session */

    /* The model's device with another matmul: row_products, for rows that do not depend on those beside them, from
     * panels where there are. */
    psk_device stepper;
    psk_ops stepper_ops;
    psk_bf16 *panels; /* of all large matrices of the model, one block; NULL until bfloat16 is first asked for */
    struct psk_panel_place {
        const float *w;
        const psk_bf16 *panels;
    } * places; /* where those of a matrix are */
    int64_t place_count;

    char hash[PSK_MODEL_HASH_CAPACITY]; /* "": not asked for yet */
} psk_decoder;

/* The decoder of the model, made if there is none; one psk_decoder_leave for each. */
psk_status psk_decoder_join(psk_model *model, psk_decoder **out);
void psk_decoder_leave(psk_decoder *decoder); /* accepts NULL */

/* Before a step: `stepper` computes in the precision that the model's device has now (stepper.c). */
psk_status psk_stepper_prepare(psk_decoder *decoder);
void psk_stepper_release(psk_decoder *decoder);
int64_t psk_stepper_numbers(const psk_decoder *decoder); /* of all panels */

#endif
