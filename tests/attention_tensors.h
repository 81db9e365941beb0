/* The tensors of an attention call, once: INPUTS(X) and OUTPUTS(X) with X(name, floats), and the call. `c` is a pointer
 * to the test's case, which has `config` and `shape`; before including, define STATE(c): the floats of a state, 0
 * without. */
#ifndef PSK_TESTS_ATTENTION_TENSORS_H
#define PSK_TESTS_ATTENTION_TENSORS_H

#include "support.h"

#include "attention/attention.h"

/* Each tensor with its number of floats in case c, 0 where it has none. */
#define QUERIES(c) ((c)->shape.B * (c)->shape.H * (c)->shape.Nq)
#define KEYS(c)    ((c)->shape.B * (c)->shape.Hkv * (c)->shape.Nk)
#define QK(c, n)   (psk_attention_uses_qk(&(c)->config) ? (n) : 0)
#define INPUTS(X)                                                                                                      \
    X(q, QK(c, QUERIES(c) * c->shape.h))                                                                               \
    X(k, QK(c, KEYS(c) * c->shape.h))                                                                                  \
    X(v, KEYS(c) * c->shape.d)                                                                                         \
    X(a, QUERIES(c) * c->shape.r)                                                                                      \
    X(b, KEYS(c) * c->shape.r)                                                                                         \
    X(state0, STATE(c))                                                                                                \
    X(dout, QUERIES(c) * c->shape.d)                                                                                   \
    X(dstate1, STATE(c))
#define OUTPUTS(X)                                                                                                     \
    X(out, QUERIES(c) * c->shape.d)                                                                                    \
    X(normaliser, QUERIES(c))                                                                                          \
    X(state1, STATE(c))                                                                                                \
    X(dq, QK(c, QUERIES(c) * c->shape.h))                                                                              \
    X(dk, QK(c, KEYS(c) * c->shape.h))                                                                                 \
    X(dv, KEYS(c) * c->shape.d)                                                                                        \
    X(da, QUERIES(c) * c->shape.r)                                                                                     \
    X(db, KEYS(c) * c->shape.r)                                                                                        \
    X(dstate0, STATE(c))

static inline void free_tensors(psk_attention_tensors *t) {
#define X(name, count) psk_test_free((float *)t->name);
    INPUTS(X)
    OUTPUTS(X)
#undef X
}

/* Forward and backward in a workspace full of NaN. */
static inline psk_status run_planned(psk_device *device, const psk_attention_config *config,
                                     const psk_attention_shape *shape, const psk_attention_tensors *t) {
    psk_arena *arena;
    psk_attention *attention = NULL;
    psk_status status;
    PSK_TRY(psk_arena_create(&arena));
    PSK_TRY_GOTO(status, psk_attention_plan(device, config, shape, arena, &attention), done);
    PSK_TRY_GOTO(status, psk_arena_commit(arena, PSK_FILL_NAN), done);
    PSK_TRY_GOTO(status, psk_attention_forward(attention, t), done);
    status = psk_attention_backward(attention, t);
done:
    psk_attention_free(attention);
    psk_arena_free(arena);
    return status;
}

#endif
