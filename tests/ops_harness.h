/* Testing one operation of the device table: a runner makes the tensors of a case and calls the operation, once per
 * device; the harness fills, guards and compares. Every operation has exactly one psk_op_test, found by its name in
 * device/ops.def. */
#ifndef PSK_TESTS_OPS_HARNESS_H
#define PSK_TESTS_OPS_HARNESS_H

#include "support.h"

#include "device/device.h"

#include <stdbool.h>

#define OPS_MAX_SIZES   10
#define OPS_MAX_TENSORS 12

typedef enum {
    OPS_INPUT,  /* random, must not change */
    OPS_OUTPUT, /* NaN before: what is not written shows */
    OPS_INOUT   /* random before, written */
} ops_role;

/* Element (g, i, j) at g stride + i ld + j. What lies between rows and batches is NaN, and must stay as it is. */
typedef struct ops_layout {
    int64_t batch, rows, n, ld, stride;
} ops_layout;

typedef struct ops_tensor {
    const char *name;
    ops_role role;
    ops_layout layout;
    int64_t count;          /* floats from the first element to the last */
    float *block;           /* guard, count floats, guard */
    float *data;            /* the floats */
    float *before;          /* block before the call */
    unsigned char *covered; /* count: 1 where an element lies */
    double limit;           /* of the relative rms error against the reference device */
    double scale;           /* the error is relative to at least this rms */
    bool exact_zeros;       /* where the reference gives 0, the device must */
} ops_tensor;

/* One case on one device. */
typedef struct ops_run {
    psk_device *device;
    uint64_t seed;
    bool forbid_allocation; /* the operation has been called with this shape before */
    ops_tensor tensor[OPS_MAX_TENSORS];
    int64_t tensors;
    void *extra[OPS_MAX_TENSORS]; /* integers, released with the run */
    int64_t extras;
    double scalar, scalar_limit; /* a result in float64 and its limit; 0: there is none */
} ops_run;

/* A new tensor filled as its role says, N(0, 1) from (seed, name). A runner may change the numbers before the call. The
 * limit of its error is one rounding of each element, unless ops_rounding says otherwise. */
float *ops_new(ops_run *run, const char *name, ops_role role, ops_layout layout);
ops_layout ops_flat(int64_t n);                 /* n floats in a row */
ops_layout ops_packed(int64_t rows, int64_t n); /* rows x n without gaps */

/* n integers in [0, limit) from (seed, name). */
int32_t *ops_integers(ops_run *run, const char *name, int64_t n, int64_t limit);

/* The limit of a tensor's error: u (steps + sqrt(terms)), u = 2^-24, at most 1e-5.
 * An element of random signs summed one by one from `terms` numbers in float32 has an error of about 0.3 u sqrt(terms)
 * of its size: each partial sum of j numbers has the size sqrt(j) and is rounded by 0.4 u of that. `steps` counts the
 * other roundings of an element, each weighed by how much it is amplified. */
void ops_rounding(ops_run *run, const float *tensor, double steps, int64_t terms);

/* For a result that is a difference of numbers of size `scale`: their rounding cannot be avoided. */
void ops_scale(ops_run *run, const float *tensor, double scale);

void ops_exact_zeros(ops_run *run, const float *tensor);

/* Calls an operation on the device of the run; its status is returned from the runner. */
#define OPS_CALL(run, op, ...)                                                                                         \
    PSK_TRY(                                                                                                           \
        ops_after((run), ((run)->device->ops->op((run)->device, (ops_before(run), &(psk_##op##_args){__VA_ARGS__})))))
void ops_before(ops_run *run);
psk_status ops_after(ops_run *run, psk_status status);

void ops_run_release(ops_run *run);

/* The inverse of a forward operation, by finite differences on the reference device. A `check` makes its variables,
 * calls the forward operation, observes its results, and calls the backward operation into the variables' gradients. */
#define OPS_MAX_VARIABLES 6

typedef struct ops_variable {
    const char *name;
    float *x, *dx;
    int64_t n;
} ops_variable;

typedef struct ops_gradient {
    psk_device *device;
    uint64_t seed;
    int64_t moved_variable, moved_element; /* x[moved_element] += step */
    float step;
    ops_variable variable[OPS_MAX_VARIABLES];
    int64_t variables;
    void *extra[2 * OPS_MAX_TENSORS];
    int64_t extras;
    double loss;
} ops_gradient;

/* mean + N(0, std^2) numbers, the moved one moved; *dx: n zeros for the gradient, += . */
float *ops_variable_new(ops_gradient *gradient, const char *name, int64_t n, float mean, float std, float **dx);
float *ops_result(ops_gradient *gradient, int64_t n); /* n NaN */
int32_t *ops_gradient_integers(ops_gradient *gradient, const char *name, int64_t n, int64_t limit);

/* loss += <c, y> with fixed random c, which is returned: dL/dy. */
float *ops_observe(ops_gradient *gradient, const float *y, int64_t n);

typedef struct psk_op_test {
    const char *name;
    psk_status (*run)(ops_run *run, const int64_t *sizes, int64_t variant); /* variant: 0 ... variants - 1 */
    const int64_t (*cases)[OPS_MAX_SIZES];
    int64_t case_count, variants;
    psk_status (*gradient)(ops_gradient *gradient, const int64_t *sizes); /* every *_backward has one */
    const int64_t (*gradient_cases)[OPS_MAX_SIZES];
    int64_t gradient_case_count;
} psk_op_test;

#define OPS_COUNT(table) ((int64_t)(sizeof(table) / sizeof((table)[0])))

/* Defines the test of an operation from run_<op> and cases_<op>, and for OPS_TEST_GRADIENT gradient_<op> and
 * small_<op>. */
#define OPS_TEST(op, how_many)                                                                                         \
    const psk_op_test psk_op_test_##op = {.name = #op,                                                                 \
                                          .run = run_##op,                                                             \
                                          .cases = cases_##op,                                                         \
                                          .case_count = OPS_COUNT(cases_##op),                                         \
                                          .variants = (how_many)}
#define OPS_TEST_GRADIENT(op, how_many)                                                                                \
    const psk_op_test psk_op_test_##op = {.name = #op,                                                                 \
                                          .run = run_##op,                                                             \
                                          .cases = cases_##op,                                                         \
                                          .case_count = OPS_COUNT(cases_##op),                                         \
                                          .variants = (how_many),                                                      \
                                          .gradient = gradient_##op,                                                   \
                                          .gradient_cases = small_##op,                                                \
                                          .gradient_case_count = OPS_COUNT(small_##op)}

#define PSK_OP(op) extern const psk_op_test psk_op_test_##op;
#include "device/ops.def"
#undef PSK_OP

/* Runs every case and variant of the operation on the device; fails the test if it writes where it should not, leaves
 * an output unwritten, or (against a reference other than the device itself) is not within the limits. */
void ops_expect_contract(const psk_op_test *test, psk_device *device, psk_device *reference);

/* The same bits from all of the devices, and no allocation when a shape comes again. */
void ops_expect_same_bits(const psk_op_test *test, psk_device *const *devices, int64_t count);

void ops_expect_gradient(const psk_op_test *test, psk_device *device);

#endif
