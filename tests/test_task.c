/* Synthetic tasks: what an example looks like, and that a model learns them. */
#include "support.h"

#include "data/tasks.h"
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEED 20231204

static psk_task task_of(psk_task_kind kind, int64_t copies) {
    psk_task task = psk_task_default(kind);
    task.copies = copies;
    task.seed = SEED;
    return task;
}

typedef struct example {
    int32_t *tokens, *targets;
} example;

static example make(const psk_task *task, int64_t N, int64_t first, int64_t count) {
    const example e = {malloc((size_t)(N * count) * sizeof(int32_t)), malloc((size_t)(N * count) * sizeof(int32_t))};
    assert_true(e.tokens && e.targets);
    memset(e.tokens, 0x7f, (size_t)(N * count) * sizeof(int32_t));
    memset(e.targets, 0x7f, (size_t)(N * count) * sizeof(int32_t));
    PSK_TEST_OK(psk_task_examples(task, N, first, count, e.tokens, e.targets));
    return e;
}

static void release(example e) {
    free(e.tokens);
    free(e.targets);
}

/* ---------------------------------------------------------------------------------------------------------- examples
 */

static void check_copying(int64_t N, int64_t K, int64_t first, int64_t *place_sum) {
    const psk_task task = task_of(PSK_TASK_SELECTIVE_COPYING, K);
    const example e = make(&task, N, first, 1);
    int64_t found = 0;
    for (int64_t n = 0; n < N - K; n++) {
        assert_int_equal(e.targets[n], -1);
        assert_in_range(e.tokens[n], 0, 14);
        if (e.tokens[n] == 0)
            continue;
        assert_true(found < K);
        assert_int_equal(e.targets[N - K + found++], e.tokens[n]);
        *place_sum += n;
    }
    assert_int_equal(found, K);
    assert_int_equal(e.tokens[N - K], 15);
    for (int64_t i = 1; i < K; i++)
        assert_int_equal(e.tokens[N - K + i], e.targets[N - K + i - 1]);
    release(e);
}

static void test_copying(void **state) {
    (void)state;
    int64_t sum = 0;
    check_copying(2, 1, 0, &sum);
    check_copying(32, 16, 0, &sum); /* no noise at all */
    check_copying(33, 16, 1, &sum);
    check_copying(64, 16, 5, &sum);
    check_copying(257, 7, INT32_MAX - 1, &sum);
    sum = 0;
    for (int64_t i = 0; i < 200; i++)
        check_copying(110, 10, i, &sum);
    /* 2,000 places, uniform in 0 ... 99: mean 49.5, standard deviation of the mean 0.65 */
    PSK_TEST_AT_MOST(fabs((double)sum / 2000 - 49.5), 4 * 0.65);
}

static void test_induction(void **state) {
    (void)state;
    const psk_task task = task_of(PSK_TASK_INDUCTION_HEADS, 16);
    static const int64_t lengths[] = {3, 4, 64, 257};
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++)
        for (int64_t i = 0; i < 50; i++) {
            const int64_t N = lengths[l];
            const example e = make(&task, N, i, 1);
            int64_t markers = 0, place = -1;
            for (int64_t n = 0; n < N - 1; n++) {
                assert_in_range(e.tokens[n], 0, 15);
                assert_int_equal(e.targets[n], -1);
                if (e.tokens[n] == 15) {
                    markers++;
                    place = n;
                }
            }
            assert_int_equal(markers, 1);
            assert_in_range(place, 0, N - 3);
            assert_int_equal(e.tokens[N - 1], 15);
            assert_int_equal(e.targets[N - 1], e.tokens[place + 1]);
            release(e);
        }
}

/* An example does not depend on those made with it; train and test, two seeds and two indices differ. */
static void test_streams(void **state) {
    (void)state;
    for (int kind = 0; psk_task_name((psk_task_kind)kind); kind++) {
        const int64_t N = 48, bytes = N * (int64_t)sizeof(int32_t);
        psk_task task = task_of((psk_task_kind)kind, 16), other = task;
        other.seed++;
        const example many = make(&task, N, 3, 4), one = make(&task, N, 5, 1), elsewhere = make(&other, N, 5, 1);
        assert_memory_equal(many.tokens + 2 * N, one.tokens, (size_t)bytes);
        assert_memory_equal(many.targets + 2 * N, one.targets, (size_t)bytes);
        assert_memory_not_equal(many.tokens, one.tokens, (size_t)bytes);
        assert_memory_not_equal(elsewhere.tokens, one.tokens, (size_t)bytes);
        psk_task_fill(&task, PSK_TASK_TRAIN, N, 5, 1, elsewhere.tokens, elsewhere.targets);
        assert_memory_not_equal(elsewhere.tokens, one.tokens, (size_t)bytes);
        release(many);
        release(one);
        release(elsewhere);
    }
}

static void test_refused(void **state) {
    (void)state;
    int32_t tokens[64], targets[64];
    psk_task task = task_of(PSK_TASK_SELECTIVE_COPYING, 16);
    PSK_TEST_FAILS(psk_task_examples(&task, 31, 0, 1, tokens, targets), PSK_ERROR_ARGUMENT, "selective_copying", "32",
                   "31");
    PSK_TEST_FAILS(psk_task_examples(&task, 64, -1, 1, tokens, targets), PSK_ERROR_ARGUMENT, "examples -1");
    PSK_TEST_FAILS(psk_task_examples(&task, 64, INT32_MAX, 1, tokens, targets), PSK_ERROR_ARGUMENT, "2147483647");
    task.copies = 0;
    PSK_TEST_FAILS(psk_task_examples(&task, 64, 0, 1, tokens, targets), PSK_ERROR_ARGUMENT, "copies is 0");
    task = task_of(PSK_TASK_INDUCTION_HEADS, 16);
    PSK_TEST_FAILS(psk_task_examples(&task, 2, 0, 1, tokens, targets), PSK_ERROR_ARGUMENT, "induction_heads", "not 2");
    task.vocab_size = 2;
    PSK_TEST_FAILS(psk_task_examples(&task, 64, 0, 1, tokens, targets), PSK_ERROR_ARGUMENT, "vocab_size", "is 2");
    task.kind = (psk_task_kind)7;
    PSK_TEST_FAILS(psk_task_examples(&task, 64, 0, 1, tokens, targets), PSK_ERROR_ARGUMENT, "task 7");
    assert_null(psk_task_name((psk_task_kind)-1));
}

/* ---------------------------------------------------------------------------------------------------------- learning
 */

typedef struct fixture {
    psk_device *device;
    psk_model *model;
    psk_train_options options;
} fixture;

static fixture begin(const char *device, psk_mechanism mechanism) {
    fixture f = {.options = psk_train_options_default()};
    psk_model_config config = {.vocab_size = 16,
                               .n_positions = 16,
                               .n_embd = 32,
                               .n_layer = 2,
                               .n_head = 2,
                               .attention = psk_attention_config_default()};
    config.attention.mechanism = mechanism;
    config.attention.block_size = 8;
    config.attention.sketch_size = 8;
    PSK_TEST_OK(psk_device_create(device, 2, &f.device));
    PSK_TEST_OK(psk_model_create(f.device, &config, 3, &f.model));
    f.options.steps = 600;
    f.options.batch_size = 32;
    f.options.context = 8;
    f.options.learning_rate = 5e-3;
    f.options.min_learning_rate = 5e-4;
    f.options.warmup_steps = 20;
    f.options.weight_decay = 0;
    f.options.eval_every = 50;
    f.options.eval_batches = 8;
    return f;
}

static void end(fixture *f) {
    psk_model_free(f->model);
    psk_device_free(f->device);
}

typedef struct watcher {
    int64_t calls, stop_at;
    psk_task_progress last;
} watcher;

static int watch(void *user, const psk_task_progress *progress) {
    watcher *const w = user;
    w->last = *progress;
    return ++w->calls == w->stop_at;
}

/* Three tokens to copy from five places: learned in seconds, by softmax and by learned_linear with a window. */
static void test_learns(void **state) {
    (void)state;
    static const psk_mechanism mechanisms[] = {PSK_SOFTMAX, PSK_POLYSKETCH};
    for (size_t m = 0; m < sizeof mechanisms / sizeof mechanisms[0]; m++) {
        fixture f = begin("cpu", mechanisms[m]);
        watcher w = {0};
        const psk_task task = task_of(PSK_TASK_SELECTIVE_COPYING, 3);
        psk_task_result before, after, again;
        PSK_TEST_OK(psk_task_test(f.model, &task, 8, 200, NULL, NULL, &before));
        assert_true(before.accuracy < 0.3);
        PSK_TEST_OK(psk_task_train(f.model, &task, &f.options, 0.9, watch, &w));
        print_message("%s: accuracy %.3f after step %d\n", psk_mechanism_name(mechanisms[m]), w.last.accuracy,
                      (int)w.last.step);
        assert_true(w.last.accuracy >= 0.9 && w.last.step < 600 && w.calls == w.last.step);
        PSK_TEST_OK(psk_task_test(f.model, &task, 8, 256, NULL, NULL, &after));
        assert_true(after.accuracy_all == w.last.accuracy); /* the same 8 x 32 examples */
        assert_int_equal(after.answers, 3 * 256);
        assert_true(after.accuracy >= after.accuracy_all);
        PSK_TEST_AT_MOST(fabs(after.stderr_all - sqrt(after.accuracy_all * (1 - after.accuracy_all) / 255)), 1e-15);
        PSK_TEST_OK(psk_task_test(f.model, &task, 8, 256, NULL, NULL, &again));
        assert_memory_equal(&after, &again, sizeof after);
        end(&f);
    }
}

/* The sum over answers of -log softmax, from the model's logits of B training examples of N tokens. */
static double loss_of(psk_model *model, const psk_task *task, int64_t B, int64_t N) {
    enum { V = 16, MOST = 64 };
    int32_t tokens[MOST], targets[MOST];
    float logits[MOST * V];
    double sum = 0;
    assert_true(B * N <= MOST);
    psk_task_fill(task, PSK_TASK_TRAIN, N, 0, B, tokens, targets);
    PSK_TEST_OK(psk_model_logits(model, B, N, tokens, logits));
    for (int64_t n = 0; n < B * N; n++) {
        double total = 0;
        for (int64_t v = 0; v < V; v++)
            total += exp((double)logits[n * V + v]);
        sum += targets[n] < 0 ? 0 : log(total) - (double)logits[n * V + targets[n]];
    }
    return sum;
}

/* The first step's loss is the mean over answers. */
static void test_loss(void **state) {
    (void)state;
    fixture f = begin("reference", PSK_SOFTMAX);
    watcher w = {.stop_at = 1};
    const psk_task task = task_of(PSK_TASK_SELECTIVE_COPYING, 2);
    const int64_t B = 3, N = 9;
    const double sum = loss_of(f.model, &task, B, N);
    f.options.batch_size = 1;
    f.options.accumulate = B;
    f.options.context = N;
    PSK_TEST_FAILS(psk_task_train(f.model, &task, &f.options, 2, watch, &w), PSK_ERROR_INTERRUPTED, "step 1 of 600");
    PSK_TEST_AT_MOST(fabs(w.last.loss - sum / (double)(B * 2)), 1e-6);
    assert_true(isnan(w.last.accuracy) && w.last.grad_norm > 0);
    end(&f);
}

/* The loss of the first step with half of the activations dropped, from the same weights and examples. */
static double loss_with_dropout(uint64_t seed) {
    fixture f = begin("cpu", PSK_SOFTMAX);
    watcher w = {.stop_at = 1};
    const psk_task task = task_of(PSK_TASK_SELECTIVE_COPYING, 3);
    f.options.dropout = 0.5;
    f.options.seed = seed;
    PSK_TEST_FAILS(psk_task_train(f.model, &task, &f.options, 2, watch, &w), PSK_ERROR_INTERRUPTED, "step 1 of 600");
    end(&f);
    return w.last.loss;
}

static void test_dropout_seed(void **state) {
    (void)state;
    assert_true(loss_with_dropout(1) == loss_with_dropout(1));
    assert_true(loss_with_dropout(1) != loss_with_dropout(2));
}

/* Lengths are N and its halves, none below the shortest, all of them at some step. */
static void test_lengths(void **state) {
    (void)state;
    psk_task task = task_of(PSK_TASK_INDUCTION_HEADS, 16);
    bool seen[3] = {false};
    task.shortest = 10;
    assert_int_equal(psk_task_halvings(&task, 48), 2);
    for (int64_t step = 0; step < 50; step++) {
        const int64_t n = psk_task_step_length(&task, 48, step);
        assert_true(n == 48 || n == 24 || n == 12);
        assert_int_equal(n, psk_task_step_length(&task, 48, step));
        seen[n == 48 ? 0 : n == 24 ? 1 : 2] = true;
    }
    assert_true(seen[0] && seen[1] && seen[2]);
    assert_int_equal(psk_task_halvings(&task, 12), 0);
    assert_int_equal(psk_task_halvings(&task, 25), 0); /* odd */
    task.shortest = 0;
    assert_int_equal(psk_task_halvings(&task, 48), 0);
    task = task_of(PSK_TASK_SELECTIVE_COPYING, 9);
    task.shortest = 1;
    assert_int_equal(psk_task_halvings(&task, 40), 1); /* 10 has no room for 9 tokens and their copies */
    task.shortest = -1;
    PSK_TEST_FAILS(psk_task_check(&task, 40), PSK_ERROR_ARGUMENT, "shortest is -1");
}

/* Short examples stand side by side in a row: they do not see each other, and each begins at position 0. */
static void test_loss_of_short_examples(void **state) {
    (void)state;
    static const char *const devices[] = {"reference", "cpu"};
    for (size_t d = 0; d < 2; d++)
        for (int form = 0; form < 2; form++) {
            fixture f = begin(devices[d], form == 0 ? PSK_SOFTMAX : PSK_POLYSKETCH);
            watcher w = {.stop_at = 1};
            psk_task task = task_of(PSK_TASK_INDUCTION_HEADS, 16);
            psk_model *model;
            psk_model_config config = f.model->config;
            config.position_scale = 1;
            config.attention.block_size = 2;
            PSK_TEST_OK(psk_model_create(f.device, &config, 3, &model));
            task.shortest = 8;
            while (psk_task_step_length(&task, 32, 0) != 8)
                task.seed++;
            const double sum = loss_of(model, &task, 8, 8);
            f.options.batch_size = 2;
            f.options.context = 32;
            PSK_TEST_FAILS(psk_task_train(model, &task, &f.options, 2, watch, &w), PSK_ERROR_INTERRUPTED, "step 1 of");
            PSK_TEST_AT_MOST(fabs(w.last.loss - sum / 8), 1e-5);
            psk_model_free(model);
            end(&f);
        }
}

/* 23 sequences of 1,000 tokens are two batches of 16, the second one not full: the answers are those of the logits. */
static void test_partial_batch(void **state) {
    (void)state;
    enum { LENGTH = 1000, EXAMPLES = 23, V = 16 };
    fixture f = begin("cpu", PSK_SOFTMAX);
    psk_task task = task_of(PSK_TASK_INDUCTION_HEADS, 16);
    psk_task_result result;
    int64_t right = 0;
    task.vocab_size = 3; /* so that guesses are often right */
    float *const logits = psk_test_buffer(LENGTH * V);
    for (int64_t i = 0; i < EXAMPLES; i++) {
        const example e = make(&task, LENGTH, i, 1);
        const float *const last = logits + (LENGTH - 1) * V;
        int32_t best = 0;
        PSK_TEST_OK(psk_model_logits(f.model, 1, LENGTH, e.tokens, logits));
        for (int32_t v = 1; v < V; v++)
            best = last[v] > last[best] ? v : best;
        right += best == e.targets[LENGTH - 1];
        release(e);
    }
    PSK_TEST_OK(psk_task_test(f.model, &task, LENGTH, EXAMPLES, NULL, NULL, &result));
    assert_int_equal(llround(result.accuracy * (double)EXAMPLES), right);
    print_message("%d of %d right\n", (int)right, EXAMPLES);
    psk_test_free(logits);
    end(&f);
}

static int stop_at_once(void *user, int64_t done, int64_t total) {
    (void)user;
    assert_true(done > 0 && done <= total);
    return 1;
}

static void test_training_refused(void **state) {
    (void)state;
    fixture f = begin("cpu", PSK_SOFTMAX);
    psk_task_result result;
    psk_task task = task_of(PSK_TASK_INDUCTION_HEADS, 16);
    PSK_TEST_FAILS(psk_task_test(f.model, &task, 8, 0, NULL, NULL, &result), PSK_ERROR_ARGUMENT, "examples is 0");
    PSK_TEST_FAILS(psk_task_test(f.model, &task, 20000, 2, stop_at_once, NULL, &result), PSK_ERROR_INTERRUPTED,
                   "1 of 2");
    task.vocab_size = 17;
    PSK_TEST_FAILS(psk_task_test(f.model, &task, 8, 1, NULL, NULL, &result), PSK_ERROR_ARGUMENT, "17", "16");
    PSK_TEST_FAILS(psk_task_train(f.model, &task, &f.options, 1, NULL, NULL), PSK_ERROR_ARGUMENT, "17", "16");
    task.vocab_size = 16;
    f.options.context = 2;
    PSK_TEST_FAILS(psk_task_train(f.model, &task, &f.options, 1, NULL, NULL), PSK_ERROR_ARGUMENT, "not 2");
    f.options.context = 8;
    f.options.learning_rate = -1;
    PSK_TEST_FAILS(psk_task_train(f.model, &task, &f.options, 1, NULL, NULL), PSK_ERROR_ARGUMENT, "learning_rate");
    f.options.learning_rate = 5e-3;
    f.options.steps = INT64_C(1) << 40;
    PSK_TEST_FAILS(psk_task_train(f.model, &task, &f.options, 1, NULL, NULL), PSK_ERROR_ARGUMENT, "2^31");
    f.options.steps = 1;
    f.options.eval_batches = INT64_C(1) << 30;
    PSK_TEST_FAILS(psk_task_train(f.model, &task, &f.options, 1, NULL, NULL), PSK_ERROR_ARGUMENT, "eval_batches",
                   "2^30");
    task.shortest = 1; /* 2^26 examples in a sequence, in 2^38 sequences */
    f.options.context = INT64_C(3) << 26;
    f.options.batch_size = f.options.accumulate = 1 << 19;
    PSK_TEST_FAILS(psk_task_train(f.model, &task, &f.options, 1, NULL, NULL), PSK_ERROR_ARGUMENT, "accumulate 524288",
                   "2^26 examples", "2^31");
    f.options.batch_size = f.options.accumulate = 1000000;
    PSK_TEST_FAILS(psk_task_train(f.model, &task, &f.options, 1, NULL, NULL), PSK_ERROR_ARGUMENT, "2^31");
    end(&f);
}

static void test_not_finite(void **state) {
    (void)state;
    fixture f = begin("cpu", PSK_SOFTMAX);
    const psk_task task = task_of(PSK_TASK_INDUCTION_HEADS, 16);
    f.model->weights[psk_params_find(&f.model->params, "blocks.1.mlp.up.weight")->offset] = NAN;
    PSK_TEST_FAILS(psk_task_train(f.model, &task, &f.options, 1, NULL, NULL), PSK_ERROR_NUMERIC, "step 1");
    end(&f);
}

static psk_status train_once(void *argument) {
    fixture *const f = argument;
    const psk_task task = task_of(PSK_TASK_INDUCTION_HEADS, 16);
    return psk_task_train(f->model, &task, &f->options, 2, NULL, NULL);
}

static void test_out_of_memory(void **state) {
    (void)state;
    fixture f = begin("reference", PSK_SOFTMAX);
    f.options.steps = 1;
    f.options.batch_size = 2;
    assert_true(psk_test_allocation_failures(train_once, &f) >= 6);
    end(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copying),
        cmocka_unit_test(test_induction),
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_learns),
        cmocka_unit_test(test_loss),
        cmocka_unit_test(test_dropout_seed),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_training_refused),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_loss_of_short_examples),
        cmocka_unit_test(test_partial_batch),
        cmocka_unit_test(test_out_of_memory),
    };
    print_message("seed %d\n", SEED);
    return cmocka_run_group_tests_name("task", tests, NULL, NULL);
}
