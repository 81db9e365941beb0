/* A sketch of any form at work in the reference's double, for the tests of gradients and of golden files. */
#ifndef PSK_TESTS_REFERENCE_SKETCH_H
#define PSK_TESTS_REFERENCE_SKETCH_H

#include "reference/ref_sketch.h"
#include "reference_support.h"

typedef enum { RANDOM, LEARNED, LINEAR, PERFORMER } sketch_form;

/* A sketch of any form with rows x -> out and all that has a gradient. */
typedef struct sketch_problem {
    sketch_form form;
    int64_t rows, h, r;
    psk_ref_random_sketch random;
    psk_ref_learned_sketch learned, dlearned;
    psk_ref_linear_sketch linear, dlinear;
    psk_ref_performer performer;
    double *x, *dx, *out, *dout;
    test_pool pool;
} sketch_problem;

static inline void sketch_forward(const sketch_problem *p, double *out) {
    switch (p->form) {
    case RANDOM:
        PSK_TEST_OK(psk_ref_random_sketch_forward(&p->random, p->rows, p->x, out));
        break;
    case LEARNED:
        PSK_TEST_OK(psk_ref_learned_sketch_forward(&p->learned, p->rows, p->x, out));
        break;
    case LINEAR:
        psk_ref_linear_sketch_forward(&p->linear, p->rows, p->x, out);
        break;
    case PERFORMER:
        psk_ref_performer_forward(&p->performer, p->rows, p->x, out);
        break;
    }
}

static inline void sketch_backward(const sketch_problem *p) {
    switch (p->form) {
    case RANDOM:
        PSK_TEST_OK(psk_ref_random_sketch_backward(&p->random, p->rows, p->x, p->dout, p->dx));
        break;
    case LEARNED:
        PSK_TEST_OK(psk_ref_learned_sketch_backward(&p->learned, p->rows, p->x, p->dout, p->dx, &p->dlearned));
        break;
    case LINEAR:
        psk_ref_linear_sketch_backward(&p->linear, p->rows, p->x, p->dout, p->dx, &p->dlinear);
        break;
    case PERFORMER:
        psk_ref_performer_backward(&p->performer, p->rows, p->x, p->dout, p->dx);
        break;
    }
}

static inline double sketch_loss(const void *context) {
    const sketch_problem *p = context;
    double loss = 0;
    sketch_forward(p, p->out);
    for (int64_t i = 0; i < p->rows * p->r; i++)
        loss += p->dout[i] * p->out[i];
    return loss;
}

static inline void make_sketch_problem(sketch_problem *p, sketch_form form, int64_t rows, int64_t h, int64_t r) {
    *p = (sketch_problem){.form = form, .rows = rows, .h = h, .r = r};
    p->x = take_random(&p->pool, rows * h, "x");
    p->dx = take(&p->pool, rows * h);
    p->out = take(&p->pool, rows * r);
    p->dout = take_random(&p->pool, rows * r, "dout");
}

/* The tensors of one level, in the order of psk_ref_level. */
#define LEVEL_TENSORS 4
static const char *const level_tensor[LEVEL_TENSORS] = {"norm.weight", "norm.bias", "up.weight", "down.weight"};

static inline int64_t level_count(const psk_ref_learned_sketch *sketch, int64_t level, int64_t tensor) {
    const int64_t in = level == 0 ? sketch->h : sketch->r;
    const int64_t count[LEVEL_TENSORS] = {in, in, sketch->hidden * in, sketch->r * sketch->hidden};
    return count[tensor];
}

static inline double **level_place(psk_ref_level *level, int64_t tensor) {
    double **const place[LEVEL_TENSORS] = {&level->norm_weight, &level->norm_bias, &level->up, &level->down};
    return place[tensor];
}

typedef void (*level_visitor)(sketch_problem *p, psk_ref_level *weights, psk_ref_level *gradients, int64_t tensor,
                              int64_t count, const char *name, const void *context);

static inline void for_learned_tensors(sketch_problem *p, level_visitor visit, const void *context) {
    for (int64_t net = 0; net < 2; net++)
        for (int64_t level = 0; level < PSK_REF_LEVELS; level++)
            for (int64_t tensor = 0; tensor < LEVEL_TENSORS; tensor++) {
                char name[64];
                snprintf(name, sizeof name, "sketch.%c.%d.%s", net == 0 ? 'a' : 'b', (int)level, level_tensor[tensor]);
                visit(p, &p->learned.net[net][level], &p->dlearned.net[net][level], tensor,
                      level_count(&p->learned, level, tensor), name, context);
            }
}

#endif
