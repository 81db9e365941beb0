/* The reference sketches: their gradients against finite differences, and one by hand. */
#include "reference_sketch.h"

static void expect_sketch_gradient(const sketch_problem *p, const char *where, const char *what, double *x,
                                   const double *gradient, int64_t n) {
    expect_gradient(where, what, sketch_loss, p, x, gradient, n);
}

static void random_sketch_backward_is_the_gradient(void **unused) {
    (void)unused;
    static const int64_t sizes[][4] = {
        /* rows, h, r, p */ {3, 4, 4, 2}, {3, 5, 3, 4}, {1, 1, 1, 4}, {2, 3, 5, 8}, {2, 4, 3, 16}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const int64_t h = sizes[i][1], r = sizes[i][2], degree = sizes[i][3];
        const double *g[14];
        char where[64];
        sketch_problem p;
        make_sketch_problem(&p, RANDOM, sizes[i][0], h, r);
        for (int64_t j = 0; j < degree - 2; j++) {
            snprintf(where, sizeof where, "g.%" PRId64, j);
            g[j] = take_random(&p.pool, (h > r ? h : r) * r, where);
        }
        p.random = (psk_ref_random_sketch){.h = h, .r = r, .p = degree, .g = g};
        sketch_backward(&p);
        snprintf(where, sizeof where, "random sketch of degree %" PRId64, degree);
        expect_sketch_gradient(&p, where, "x", p.x, p.dx, p.rows * h);
        release(&p.pool);
    }
}

static void make_learned_tensor(sketch_problem *p, psk_ref_level *weights, psk_ref_level *gradients, int64_t tensor,
                                int64_t count, const char *name, const void *context) {
    (void)context;
    *level_place(weights, tensor) = take_random(&p->pool, count, name);
    *level_place(gradients, tensor) = take_zero(&p->pool, count);
}

static void expect_learned_tensor(sketch_problem *p, psk_ref_level *weights, psk_ref_level *gradients, int64_t tensor,
                                  int64_t count, const char *name, const void *context) {
    (void)context;
    expect_sketch_gradient(p, "learned sketch", name, *level_place(weights, tensor), *level_place(gradients, tensor),
                           count);
}

static void learned_sketch_backward_is_the_gradient(void **unused) {
    (void)unused;
    static const int64_t sizes[][4] = {/* rows, h, r, hidden */ {3, 5, 3, 7}, {1, 3, 5, 4}, {2, 4, 4, 9}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        sketch_problem p;
        make_sketch_problem(&p, LEARNED, sizes[i][0], sizes[i][1], sizes[i][2]);
        p.learned = (psk_ref_learned_sketch){.h = p.h, .r = p.r, .hidden = sizes[i][3]};
        for_learned_tensors(&p, make_learned_tensor, NULL);
        sketch_backward(&p);
        expect_sketch_gradient(&p, "learned sketch", "x", p.x, p.dx, p.rows * p.h);
        for_learned_tensors(&p, expect_learned_tensor, NULL);
        release(&p.pool);
    }
}

static void linear_sketch_backward_is_the_gradient(void **unused) {
    (void)unused;
    static const int64_t sizes[][3] = {/* rows, h, r */ {3, 5, 3}, {1, 1, 1}, {2, 3, 7}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        sketch_problem p;
        make_sketch_problem(&p, LINEAR, sizes[i][0], sizes[i][1], sizes[i][2]);
        p.linear = (psk_ref_linear_sketch){
            p.h, p.r, {take_random(&p.pool, p.r * p.h, "Wa"), take_random(&p.pool, p.r * p.h, "Wb")}};
        p.dlinear = (psk_ref_linear_sketch){p.h, p.r, {take_zero(&p.pool, p.r * p.h), take_zero(&p.pool, p.r * p.h)}};
        sketch_backward(&p);
        expect_sketch_gradient(&p, "linear sketch", "x", p.x, p.dx, p.rows * p.h);
        expect_sketch_gradient(&p, "linear sketch", "Wa", p.linear.weight[0], p.dlinear.weight[0], p.r * p.h);
        expect_sketch_gradient(&p, "linear sketch", "Wb", p.linear.weight[1], p.dlinear.weight[1], p.r * p.h);
        release(&p.pool);
    }
}

/* By hand: x = (1, 2) meets (3, 4) and (5, 6): 11 * 17 / sqrt(1). With r = 4 equal rows: half of it. */
static void linear_sketch_by_hand(void **unused) {
    (void)unused;
    const double x[2] = {1, 2};
    double a[8] = {3, 4, 3, 4, 3, 4, 3, 4}, b[8] = {5, 6, 5, 6, 5, 6, 5, 6}, out[4];
    psk_ref_linear_sketch_forward(&(psk_ref_linear_sketch){2, 1, {a, b}}, 1, x, out);
    assert_true(out[0] == 187);
    psk_ref_linear_sketch_forward(&(psk_ref_linear_sketch){2, 4, {a, b}}, 1, x, out);
    assert_true(out[0] == 93.5 && out[3] == 93.5);
}

static void performer_backward_is_the_gradient(void **unused) {
    (void)unused;
    static const int64_t sizes[][3] = {/* rows, h, m */ {3, 5, 3}, {1, 1, 1}, {2, 4, 7}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        sketch_problem p;
        make_sketch_problem(&p, PERFORMER, sizes[i][0], sizes[i][1], sizes[i][2]);
        p.performer = (psk_ref_performer){p.h, p.r, take_random(&p.pool, p.r * p.h, "projection")};
        sketch_backward(&p);
        expect_sketch_gradient(&p, "performer features", "x", p.x, p.dx, p.rows * p.h);
        release(&p.pool);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_sketch_backward_is_the_gradient),
        cmocka_unit_test(learned_sketch_backward_is_the_gradient),
        cmocka_unit_test(linear_sketch_backward_is_the_gradient),
        cmocka_unit_test(linear_sketch_by_hand),
        cmocka_unit_test(performer_backward_is_the_gradient),
    };
    return cmocka_run_group_tests_name("reference sketches", tests, NULL, NULL);
}
