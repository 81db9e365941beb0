/* psk_task_train and psk_task_test: synthetic tasks. What they learn from is made on the way, so there are neither
 * shards nor checkpoints: the steps are those of training, the loop around them is this one. */
#include "base/clock.h"
#include "data/tasks.h"
#include "train/schedule.h"
#include "train/step.h"
#include "train/train_options.h"

#include <inttypes.h>
#include <math.h>

#define TEST_TOKENS   16384              /* of a batch in a test, or one example */
#define TEST_EXAMPLES (INT64_C(1) << 30) /* at most */

static psk_status check_vocabulary(const psk_model *model, const psk_task *task) {
    if (task->vocab_size > model->config.vocab_size)
        return psk_fail(PSK_ERROR_ARGUMENT, "the task has vocab_size %" PRId64 ", the model %" PRId64, task->vocab_size,
                        model->config.vocab_size);
    return PSK_OK;
}

/* -------------------------------------------------------------------------------------------------------------- test
 */

typedef struct tester {
    psk_model *model;
    const psk_task *task;
    int64_t B, N;
    psk_pass *pass;
    int32_t *tokens, *targets; /* B x N */
    float *logits;             /* B x N x V */
    int64_t right, all_right;  /* answers, examples */
} tester;

static psk_status tester_begin(tester *t, int64_t examples) {
    int64_t tokens, floats, bytes;
    t->B = TEST_TOKENS / t->N < 1 ? 1 : TEST_TOKENS / t->N;
    t->B = t->B < examples ? t->B : examples;
    PSK_TRY(psk_size_mul(t->B, t->N, &tokens));
    PSK_TRY(psk_size_mul(tokens, t->model->config.vocab_size, &floats));
    PSK_TRY(psk_size_mul(floats, (int64_t)sizeof(float), &bytes));
    PSK_TRY(psk_alloc((size_t)tokens * sizeof(int32_t), "tokens", (void **)&t->tokens));
    PSK_TRY(psk_alloc((size_t)tokens * sizeof(int32_t), "targets", (void **)&t->targets));
    PSK_TRY(psk_alloc((size_t)bytes, "logits", (void **)&t->logits));
    return psk_pass_create(t->model, &(psk_pass_options){.B = t->B, .N = t->N}, &t->pass);
}

static void tester_end(tester *t) {
    psk_pass_free(t->pass);
    psk_free(t->tokens);
    psk_free(t->targets);
    psk_free(t->logits);
}

/* The largest logit, NaN never. */
static int32_t answer(const float *logits, int64_t V) {
    int64_t best = -1;
    for (int64_t v = 0; v < V; v++)
        if (!isnan(logits[v]) && (best < 0 || logits[v] > logits[best]))
            best = v;
    return (int32_t)best;
}

static void count_row(tester *t, int64_t row) {
    const int64_t V = t->model->config.vocab_size;
    int64_t right = 0;
    for (int64_t n = row * t->N; n < (row + 1) * t->N; n++)
        right += t->targets[n] >= 0 && answer(t->logits + n * V, V) == t->targets[n];
    t->right += right;
    t->all_right += right == psk_task_answers(t->task);
}

static psk_status test_examples(tester *t, int64_t examples, psk_progress progress, void *user) {
    for (int64_t first = 0; first < examples; first += t->B) {
        const int64_t rows = examples - first < t->B ? examples - first : t->B;
        const psk_batch batch = {.tokens = t->tokens};
        psk_task_fill(t->task, PSK_TASK_TEST, t->N, first, t->B, t->tokens, t->targets);
        PSK_TRY(psk_pass_logits(t->pass, t->model, &batch, t->logits));
        for (int64_t row = 0; row < rows; row++)
            count_row(t, row);
        if (progress && progress(user, first + rows, examples))
            return psk_fail(PSK_ERROR_INTERRUPTED, "the test was stopped after %" PRId64 " of %" PRId64 " examples",
                            first + rows, examples);
    }
    return PSK_OK;
}

psk_status psk_task_test(psk_model *model, const psk_task *task, int64_t N, int64_t examples, psk_progress progress,
                         void *user, psk_task_result *result) {
    psk_status status;
    tester t = {.model = model, .task = task, .N = N};
    PSK_TRY(psk_task_check(task, N));
    PSK_TRY(check_vocabulary(model, task));
    if (examples < 1 || examples > TEST_EXAMPLES)
        return psk_fail(PSK_ERROR_ARGUMENT, "examples is %" PRId64 ", must be 1 ... 2^30", examples);
    PSK_TRY_GOTO(status, tester_begin(&t, examples), done);
    PSK_TRY_GOTO(status, test_examples(&t, examples, progress, user), done);
    const int64_t answers = examples * psk_task_answers(task);
    const double all = (double)t.all_right / (double)examples;
    *result = (psk_task_result){.examples = examples,
                                .answers = answers,
                                .accuracy = (double)t.right / (double)answers,
                                .accuracy_all = all,
                                .stderr_all = examples > 1 ? sqrt(all * (1 - all) / (double)(examples - 1)) : NAN};
done:
    tester_end(&t);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------- train
 */

typedef struct task_trainer {
    psk_model *model;
    const psk_task *task;
    const psk_train_options *options;
    psk_arena *arena;
    psk_step step;
    int32_t *tokens, *targets; /* B x N */
    int32_t *positions;        /* B x N, in the examples */
    int64_t *cu_seqlens;       /* of the shortest examples: longer ones are fewer */
    double began;
    psk_task_progress progress;
} task_trainer;

static bool tests(const psk_train_options *options) {
    return options->eval_batches > 0 && options->eval_every > 0;
}

static psk_status check_options(const psk_task *task, const psk_train_options *options) {
    psk_train_options checked = *options;
    checked.data = checked.output = psk_task_name(task->kind); /* neither is read nor written */
    PSK_TRY(psk_task_check(task, options->context));
    PSK_TRY(psk_train_options_check(&checked));
    const int64_t rows = options->batch_size * options->accumulate; /* at most 1e12 */
    const int64_t halvings = psk_task_halvings(task, options->context);
    if (rows > INT32_MAX >> halvings || options->steps > INT32_MAX / (rows << halvings))
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "steps %" PRId64 " of batch_size %" PRId64 " x accumulate %" PRId64 " sequences, each up to "
                        "2^%" PRId64 " examples: there are 2^31; take less of these, or a larger shortest",
                        options->steps, options->batch_size, options->accumulate, halvings);
    if (tests(options) && options->eval_batches > TEST_EXAMPLES / options->batch_size)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "eval_batches %" PRId64 " of batch_size %" PRId64 ": a test has at most 2^30 examples",
                        options->eval_batches, options->batch_size);
    return PSK_OK;
}

static psk_status take_memory(task_trainer *t) {
    const psk_train_options *const options = t->options;
    const psk_pass_options pass = psk_step_pass_options(options);
    const int64_t bytes = pass.B * pass.N * (int64_t)sizeof(int32_t); /* planned below: fits */
    PSK_TRY(psk_arena_create(&t->arena));
    PSK_TRY(psk_step_plan(t->model, &pass, t->arena, &t->step));
    PSK_TRY(psk_arena_reserve(t->arena, "data", "tokens", bytes, (void **)&t->tokens));
    PSK_TRY(psk_arena_reserve(t->arena, "data", "targets", bytes, (void **)&t->targets));
    const int64_t most = pass.B << psk_task_halvings(t->task, pass.N);
    PSK_TRY(psk_arena_reserve(t->arena, "data", "positions", bytes, (void **)&t->positions));
    PSK_TRY(psk_arena_reserve(t->arena, "data", "boundaries", (most + 1) * (int64_t)sizeof(int64_t),
                              (void **)&t->cu_seqlens));
    PSK_TRY(psk_arena_commit(t->arena, PSK_FILL_NONE));
    return psk_step_reset_moments(&t->step);
}

/* Gradients of the mean loss of the answers of step number `step`, counting from 0: of examples of one length, which
 * stand in the rows as documents. */
static psk_status accumulate_gradients(task_trainer *t, int64_t step) {
    const psk_train_options *const options = t->options;
    const int64_t n = psk_task_step_length(t->task, options->context, step);
    const int64_t examples = options->batch_size * (options->context / n);
    const int64_t most = options->batch_size << psk_task_halvings(t->task, options->context);
    const double answers = (double)(examples * options->accumulate * psk_task_answers(t->task));
    double sum = 0;
    for (int64_t i = 0; i <= examples; i++)
        t->cu_seqlens[i] = i * n;
    for (int64_t i = 0; i < examples * n; i++)
        t->positions[i] = (int32_t)(i % n);
    PSK_TRY(psk_step_begin(&t->step));
    for (int64_t micro = step * options->accumulate; micro < (step + 1) * options->accumulate; micro++) {
        const psk_batch batch = {.tokens = t->tokens,
                                 .targets = t->targets,
                                 .positions = t->positions,
                                 .cu_seqlens = n < options->context ? t->cu_seqlens : NULL,
                                 .documents = n < options->context ? examples : 0,
                                 .dropout_seed = psk_step_dropout_seed(options->seed, (uint64_t)micro)};
        psk_task_fill(t->task, PSK_TASK_TRAIN, n, micro * most, examples, t->tokens, t->targets);
        PSK_TRY(psk_step_add(&t->step, &batch, (float)(1 / answers), &sum));
    }
    t->progress.loss = sum / answers;
    return PSK_OK;
}

static psk_status task_step(task_trainer *t) {
    const psk_train_options *const options = t->options;
    const int64_t step = t->progress.step;
    PSK_TRY(accumulate_gradients(t, step));
    t->progress.learning_rate = psk_schedule_rate(options, step + 1, psk_clock_seconds() - t->began);
    const psk_optimizer_settings settings = psk_optimizer_settings_of(options, t->progress.learning_rate);
    const psk_status status =
        psk_optimizer_step(t->model, t->step.grads, t->step.m, t->step.v, &settings, step + 1, &t->progress.grad_norm);
    if (status == PSK_ERROR_NUMERIC) /* a loss that is not finite has such gradients */
        return psk_fail_within(status, "step %" PRId64, step + 1);
    PSK_TRY(status);
    t->progress.step++;
    t->progress.seconds = psk_clock_seconds() - t->began;
    return PSK_OK;
}

static psk_status test_now(task_trainer *t) {
    const psk_train_options *const options = t->options;
    psk_task_result result;
    PSK_TRY(psk_task_test(t->model, t->task, options->context, options->batch_size * options->eval_batches, NULL, NULL,
                          &result));
    t->progress.accuracy = result.accuracy_all;
    return PSK_OK;
}

static psk_status task_rounds(task_trainer *t, double enough, psk_task_callback callback, void *user) {
    const psk_train_options *const options = t->options;
    bool over = false;
    while (!over) {
        PSK_TRY(task_step(t));
        const int64_t step = t->progress.step;
        over = step >= options->steps || (options->seconds > 0 && t->progress.seconds >= options->seconds);
        if (tests(options) && (over || step % options->eval_every == 0))
            PSK_TRY(test_now(t));
        over = over || t->progress.accuracy >= enough; /* NaN: not yet */
        if (callback && callback(user, &t->progress))
            return psk_fail(PSK_ERROR_INTERRUPTED, "training was stopped after step %" PRId64 " of %" PRId64, step,
                            options->steps);
    }
    return PSK_OK;
}

psk_status psk_task_train(psk_model *model, const psk_task *task, const psk_train_options *options, double enough,
                          psk_task_callback callback, void *user) {
    psk_status status;
    task_trainer t = {
        .model = model,
        .task = task,
        .options = options,
        .progress = {.steps = options->steps, .accuracy = NAN},
    };
    PSK_TRY(check_options(task, options));
    PSK_TRY(check_vocabulary(model, task));
    PSK_TRY_GOTO(status, take_memory(&t), done);
    t.began = psk_clock_seconds();
    status = task_rounds(&t, enough, callback, user);
done:
    psk_step_release(&t.step);
    psk_arena_free(t.arena);
    return status;
}
