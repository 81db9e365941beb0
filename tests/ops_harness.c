#include "ops_harness.h"

#include "base/memory.h"
#include "base/rng.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define GUARD 64 /* floats: PSK_ALIGNMENT bytes and more */

static const double unit_roundoff = 0x1p-24, highest_limit = 1e-5;

/* A quiet NaN with a mark, so that a NaN that was computed differs from one that was there. */
static const uint32_t poison_bits = 0x7fc5a5a5u;

static float poison(void) {
    float value;
    memcpy(&value, &poison_bits, sizeof value);
    return value;
}

static void *take(int64_t bytes) {
    void *block;
    PSK_TEST_OK(psk_alloc((size_t)bytes, "a test's tensor", &block));
    return block;
}

ops_layout ops_flat(int64_t n) {
    return (ops_layout){1, 1, n, n, n};
}

ops_layout ops_packed(int64_t rows, int64_t n) {
    return (ops_layout){1, rows, n, n, rows * n};
}

static int64_t span(const ops_layout *layout) {
    if (layout->batch == 0 || layout->rows == 0 || layout->n == 0)
        return 0;
    return (layout->batch - 1) * layout->stride + (layout->rows - 1) * layout->ld + layout->n;
}

static void mark_covered(ops_tensor *tensor) {
    const ops_layout *layout = &tensor->layout;
    memset(tensor->covered, 0, (size_t)tensor->count);
    for (int64_t g = 0; g < layout->batch; g++)
        for (int64_t i = 0; i < layout->rows; i++)
            for (int64_t j = 0; j < layout->n; j++)
                tensor->covered[g * layout->stride + i * layout->ld + j] = 1;
}

float *ops_new(ops_run *run, const char *name, ops_role role, ops_layout layout) {
    assert_true(run->tensors < OPS_MAX_TENSORS);
    ops_tensor *tensor = &run->tensor[run->tensors++];
    const int64_t count = span(&layout), block_bytes = (count + 2 * GUARD) * (int64_t)sizeof(float);
    *tensor = (ops_tensor){.name = name, .role = role, .layout = layout, .count = count, .limit = 2 * unit_roundoff};
    tensor->block = take(block_bytes);
    tensor->before = take(block_bytes);
    tensor->covered = take(count);
    tensor->data = tensor->block + GUARD;
    mark_covered(tensor);
    for (int64_t i = 0; i < count + 2 * GUARD; i++)
        tensor->block[i] = poison();
    if (role != OPS_OUTPUT)
        psk_rng_fill_normal(tensor->data, count, 1, run->seed, psk_rng_stream(name));
    for (int64_t i = 0; i < count; i++)
        if (!tensor->covered[i])
            tensor->data[i] = poison();
    return tensor->data;
}

static int32_t *new_integers(uint64_t seed, const char *name, int64_t n, int64_t limit) {
    int32_t *integers = take(n * (int64_t)sizeof *integers);
    psk_rng rng = psk_rng_make(seed, psk_rng_stream(name));
    for (int64_t i = 0; i < n; i++)
        integers[i] = (int32_t)psk_rng_below(&rng, (uint64_t)limit);
    return integers;
}

int32_t *ops_integers(ops_run *run, const char *name, int64_t n, int64_t limit) {
    assert_true(run->extras < OPS_MAX_TENSORS);
    int32_t *integers = new_integers(run->seed, name, n, limit);
    run->extra[run->extras++] = integers;
    return integers;
}

static ops_tensor *find(ops_run *run, const float *data) {
    for (int64_t i = 0; i < run->tensors; i++)
        if (run->tensor[i].data == data)
            return &run->tensor[i];
    fail_msg("not a tensor of this run");
    return NULL;
}

void ops_rounding(ops_run *run, const float *tensor, double steps, int64_t terms) {
    find(run, tensor)->limit = fmin(highest_limit, unit_roundoff * (steps + sqrt((double)terms)));
}

void ops_scale(ops_run *run, const float *tensor, double scale) {
    find(run, tensor)->scale = scale;
}

void ops_exact_zeros(ops_run *run, const float *tensor) {
    find(run, tensor)->exact_zeros = true;
}

void ops_before(ops_run *run) {
    for (int64_t i = 0; i < run->tensors; i++)
        memcpy(run->tensor[i].before, run->tensor[i].block, (size_t)(run->tensor[i].count + 2 * GUARD) * sizeof(float));
    if (run->forbid_allocation)
        psk_alloc_fail_after(1);
}

psk_status ops_after(ops_run *run, psk_status status) {
    (void)run;
    psk_alloc_fail_after(0);
    return status;
}

void ops_run_release(ops_run *run) {
    for (int64_t i = 0; i < run->tensors; i++) {
        psk_free(run->tensor[i].block);
        psk_free(run->tensor[i].before);
        psk_free(run->tensor[i].covered);
    }
    for (int64_t i = 0; i < run->extras; i++)
        psk_free(run->extra[i]);
    run->tensors = run->extras = 0;
}

/* A case in words, for messages: "matmul {1, 3, 5} variant 2 on cpu (AVX2, 2 threads), seed 7". */
typedef struct case_name {
    char text[320];
} case_name;

static case_name name_case(const psk_op_test *test, const int64_t *sizes, int64_t variant, const psk_device *device,
                           uint64_t seed) {
    case_name name;
    int used = snprintf(name.text, sizeof name.text, "%s {", test->name);
    for (int64_t i = 0; i < OPS_MAX_SIZES; i++)
        used += snprintf(name.text + used, sizeof name.text - (size_t)used, "%s%" PRId64, i > 0 ? ", " : "", sizes[i]);
    snprintf(name.text + used, sizeof name.text - (size_t)used, "} variant %" PRId64 " on %s (%s), seed %" PRIu64,
             variant, device->name, device->description, seed);
    return name;
}

/* Every operation and case has numbers of its own, the same on every device. */
static uint64_t seed_of(const psk_op_test *test, int64_t index, int64_t variant) {
    return psk_rng_stream(test->name) % 1000003 * 1000 + (uint64_t)(index * test->variants + variant);
}

static void run_case(const psk_op_test *test, int64_t index, int64_t variant, psk_device *device, ops_run *run) {
    run->device = device;
    run->seed = seed_of(test, index, variant);
    const psk_status status = test->run(run, test->cases[index], variant);
    if (status != PSK_OK)
        fail_msg("%s: %s: %s", name_case(test, test->cases[index], variant, device, run->seed).text,
                 psk_status_name(status), psk_error_message());
}

static bool same_bits(float a, float b) {
    uint32_t x, y;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    return x == y;
}

/* Guards and gaps as before; inputs as before. */
static void expect_untouched(const ops_tensor *tensor, const char *where) {
    for (int64_t i = 0; i < tensor->count + 2 * GUARD; i++) {
        const int64_t at = i - GUARD;
        const bool element = at >= 0 && at < tensor->count && tensor->covered[at];
        if (element && tensor->role != OPS_INPUT)
            continue;
        if (!same_bits(tensor->block[i], tensor->before[i]))
            fail_msg("%s: %s[%" PRId64 "], which is %s, was written", where, tensor->name, at,
                     element ? "an input" : "outside of the tensor");
    }
}

/* An element may be infinite (a maximum over nothing) only if the reference's is the same infinity. */
static bool accepted(const ops_tensor *got, const ops_tensor *want, int64_t i) {
    const float x = got->data[i], y = want->data[i];
    if (isinf(y))
        return x == y;
    return isfinite(x) && isfinite(y) && !(want->exact_zeros && y == 0 && x != 0);
}

static void expect_close(const ops_tensor *got, const ops_tensor *want, const char *where) {
    double error = 0, reference = 0;
    int64_t n = 0;
    for (int64_t i = 0; i < want->count; i++) {
        if (!want->covered[i])
            continue;
        if (!accepted(got, want, i))
            fail_msg("%s: %s[%" PRId64 "] is %.9g instead of %.9g", where, want->name, i, (double)got->data[i],
                     (double)want->data[i]);
        if (isinf(want->data[i]))
            continue;
        const double difference = (double)got->data[i] - want->data[i];
        error += difference * difference;
        reference += (double)want->data[i] * want->data[i];
        n++;
    }
    if (n == 0 || error == 0)
        return;
    const double relative = sqrt(error / (double)n) / fmax(sqrt(reference / (double)n), want->scale);
    if (!(relative <= want->limit))
        fail_msg("%s: %s: relative rms error %.3g, limit %.3g", where, want->name, relative, want->limit);
}

static void expect_run(const ops_run *got, const ops_run *want, const char *where) {
    assert_int_equal(got->tensors, want->tensors);
    for (int64_t i = 0; i < want->tensors; i++) {
        expect_untouched(&got->tensor[i], where);
        if (want->tensor[i].role != OPS_INPUT)
            expect_close(&got->tensor[i], &want->tensor[i], where);
    }
    if (want->scalar_limit > 0 && !(fabs(got->scalar - want->scalar) <= want->scalar_limit * fabs(want->scalar)))
        fail_msg("%s: %.17g instead of %.17g", where, got->scalar, want->scalar);
}

void ops_expect_contract(const psk_op_test *test, psk_device *device, psk_device *reference) {
    for (int64_t index = 0; index < test->case_count; index++)
        for (int64_t variant = 0; variant < test->variants; variant++) {
            ops_run want = {.tensors = 0}, got = {.tensors = 0};
            run_case(test, index, variant, reference, &want);
            run_case(test, index, variant, device, &got);
            expect_run(&got, &want, name_case(test, test->cases[index], variant, device, got.seed).text);
            ops_run_release(&want);
            ops_run_release(&got);
        }
}

static void expect_identical(const ops_run *got, const ops_run *want, const char *where) {
    assert_int_equal(got->tensors, want->tensors);
    for (int64_t i = 0; i < want->tensors; i++)
        for (int64_t j = 0; j < want->tensor[i].count; j++)
            if (!same_bits(got->tensor[i].data[j], want->tensor[i].data[j]))
                fail_msg("%s: %s[%" PRId64 "] is %.9g, and %.9g with another number of threads", where,
                         want->tensor[i].name, j, (double)got->tensor[i].data[j], (double)want->tensor[i].data[j]);
    if (memcmp(&got->scalar, &want->scalar, sizeof got->scalar) != 0)
        fail_msg("%s: %.17g, and %.17g with another number of threads", where, got->scalar, want->scalar);
}

void ops_expect_same_bits(const psk_op_test *test, psk_device *const *devices, int64_t count) {
    for (int64_t index = 0; index < test->case_count; index++)
        for (int64_t variant = 0; variant < test->variants; variant++) {
            ops_run first = {.tensors = 0};
            run_case(test, index, variant, devices[0], &first);
            for (int64_t i = 0; i < count; i++) {
                ops_run again = {.tensors = 0}, repeated = {.forbid_allocation = true};
                const case_name where = name_case(test, test->cases[index], variant, devices[i], first.seed);
                run_case(test, index, variant, devices[i], &again);
                expect_identical(&again, &first, where.text);
                run_case(test, index, variant, devices[i], &repeated);
                expect_identical(&repeated, &first, where.text);
                ops_run_release(&again);
                ops_run_release(&repeated);
            }
            ops_run_release(&first);
        }
}

static void *keep(ops_gradient *gradient, void *block) {
    assert_true(gradient->extras < (int64_t)(sizeof gradient->extra / sizeof gradient->extra[0]));
    gradient->extra[gradient->extras++] = block;
    return block;
}

float *ops_variable_new(ops_gradient *gradient, const char *name, int64_t n, float mean, float std, float **dx) {
    assert_true(gradient->variables < OPS_MAX_VARIABLES);
    const int64_t index = gradient->variables++, bytes = n * (int64_t)sizeof(float);
    float *x = keep(gradient, take(bytes));
    *dx = keep(gradient, take(bytes));
    memset(*dx, 0, (size_t)bytes);
    psk_rng_fill_normal(x, n, std, gradient->seed, psk_rng_stream(name));
    for (int64_t i = 0; i < n; i++)
        x[i] += mean;
    if (gradient->moved_variable == index)
        x[gradient->moved_element] += gradient->step;
    gradient->variable[index] = (ops_variable){name, x, *dx, n};
    return x;
}

float *ops_result(ops_gradient *gradient, int64_t n) {
    float *y = keep(gradient, take(n * (int64_t)sizeof *y));
    for (int64_t i = 0; i < n; i++)
        y[i] = poison();
    return y;
}

int32_t *ops_gradient_integers(ops_gradient *gradient, const char *name, int64_t n, int64_t limit) {
    return keep(gradient, new_integers(gradient->seed, name, n, limit));
}

float *ops_observe(ops_gradient *gradient, const float *y, int64_t n) {
    float *c = ops_result(gradient, n);
    psk_rng_fill_normal(c, n, 1, gradient->seed, (uint64_t)gradient->extras);
    for (int64_t i = 0; i < n; i++)
        gradient->loss += (double)c[i] * y[i];
    return c;
}

static void gradient_release(ops_gradient *gradient) {
    for (int64_t i = 0; i < gradient->extras; i++)
        psk_free(gradient->extra[i]);
    gradient->extras = gradient->variables = 0;
}

static void evaluate(const psk_op_test *test, const int64_t *sizes, ops_gradient *gradient) {
    const psk_status status = test->gradient(gradient, sizes);
    if (status != PSK_OK)
        fail_msg("%s: %s", name_case(test, sizes, 0, gradient->device, gradient->seed).text, psk_error_message());
}

/* (8 (L(x+e) - L(x-e)) - (L(x+2e) - L(x-2e))) / (12 e) for one number. */
static double difference(const psk_op_test *test, const int64_t *sizes, const ops_gradient *base, int64_t variable,
                         int64_t element) {
    static const float step = 0x1p-5F;
    static const float at[4] = {1, -1, 2, -2};
    static const double factor[4] = {8, -8, -1, 1};
    double sum = 0;
    for (int64_t i = 0; i < 4; i++) {
        ops_gradient moved = {.device = base->device,
                              .seed = base->seed,
                              .moved_variable = variable,
                              .moved_element = element,
                              .step = at[i] * step};
        evaluate(test, sizes, &moved);
        sum += factor[i] * moved.loss;
        gradient_release(&moved);
    }
    return sum / (12 * (double)step);
}

/* The operations round to float32, u = 6e-8: an output of size y that moves adds about 0.4 u y sqrt(130) / (12 e) =
 * 7e-7 y to the difference with e = 1/32. The formula itself errs by e^4 f5 / 30 = 3e-8 f5, and f5 stays below 1e3 in
 * the cases. Together 4e-5 for gradients near 1; the limit is 2.5 times that. */
static const double gradient_limit = 1e-4;

void ops_expect_gradient(const psk_op_test *test, psk_device *device) {
    for (int64_t index = 0; index < test->gradient_case_count; index++) {
        const int64_t *sizes = test->gradient_cases[index];
        ops_gradient base = {.device = device, .seed = seed_of(test, index, 0), .moved_variable = -1};
        evaluate(test, sizes, &base);
        for (int64_t v = 0; v < base.variables; v++) {
            double error = 0, reference = 0;
            for (int64_t i = 0; i < base.variable[v].n; i++) {
                const double want = difference(test, sizes, &base, v, i), got = base.variable[v].dx[i];
                error += (got - want) * (got - want);
                reference += want * want;
            }
            const double relative = sqrt(error) / sqrt(reference);
            if (!(relative <= gradient_limit))
                fail_msg("%s: gradient of %s: relative rms error %.3g, limit %.3g",
                         name_case(test, sizes, 0, device, base.seed).text, base.variable[v].name, relative,
                         gradient_limit);
        }
        gradient_release(&base);
    }
}
