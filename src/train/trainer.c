/* psk_train: the loop around the steps. Data, schedule, evaluation, metrics, checkpoints, and how it ends. */
#include "base/clock.h"
#include "base/files.h"
#include "data/batches.h"
#include "train/checkpoint.h"
#include "train/metrics.h"
#include "train/schedule.h"
#include "train/step.h"
#include "train/tensorboard.h"
#include "train/train_options.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#define RATE_STEPS 20   /* steps over which the speed is averaged */
#define NOTE_SIZE  1200 /* a path and some words */

typedef struct trainer {
    psk_model *model;
    const psk_train_options *options;
    psk_train_callback callback;
    void *user;

    psk_dataset train, valid;
    psk_long_documents long_documents; /* of train, if windows are aligned to them */
    psk_order order;
    psk_arena *arena;
    psk_step step;
    psk_batch_buffer batch; /* of training and of evaluation, in turn */
    int64_t *windows;       /* B: those of an evaluation's batch */
    json_t *options_json;
    psk_metrics *metrics;
    psk_events *events;

    int claim; /* of the run folder, -1: none */

    psk_train_state state;
    psk_train_progress progress;
    double started;               /* monotonic clock when `seconds` of the run was 0 */
    double durations[RATE_STEPS]; /* of the last steps, a ring */
    int64_t timed;                /* steps of this session */
    bool stop;                    /* the callback asked for it */
    char note[NOTE_SIZE];
} trainer;

static int64_t peak_memory(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (int64_t)usage.ru_maxrss * 1024 : 0; /* Linux counts in KiB */
}

static psk_checkpoint checkpoint_of(trainer *t) {
    return (psk_checkpoint){.output = t->options->output,
                            .model = t->model,
                            .m = t->step.m,
                            .v = t->step.v,
                            .state = &t->state,
                            .tokenizer = t->train.tokenizer};
}

/* ------------------------------------------------------------------------------------------------------------ set-up
 */

static bool evaluates(const trainer *t) {
    return t->options->eval_every > 0 && t->options->eval_batches > 0;
}

static psk_status open_data(trainer *t) {
    const psk_train_options *options = t->options;
    PSK_TRY(psk_dataset_open(options->data, "train", &t->train));
    if (t->train.count == 0)
        return psk_fail(PSK_ERROR_FORMAT, "%s has no training shards (train-00000.psk)", options->data);
    if (t->train.tokenizer->vocab_size > t->model->config.vocab_size)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "%s was tokenised by \"%s\" with %" PRId64 " tokens, the model's vocab_size is %" PRId64,
                        options->data, t->train.tokenizer->name, t->train.tokenizer->vocab_size,
                        t->model->config.vocab_size);
    psk_status status = psk_order_create(t->train.tokens, options->context, options->seed, &t->order);
    if (status != PSK_OK)
        return psk_fail_within(status, "%s", options->data);
    if (options->align_documents) {
        PSK_TRY(psk_long_documents_find(&t->train, options->context, &t->long_documents));
        psk_order_align(&t->order, &t->long_documents);
    }
    if (!evaluates(t))
        return PSK_OK;
    PSK_TRY(psk_dataset_open(options->data, "valid", &t->valid));
    if (psk_window_count(&t->valid, options->context) == 0)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "%s has nothing to evaluate on: prepare it with a valid fraction above 0, or evaluate never "
                        "(eval_every 0: --eval-every 0)",
                        options->data);
    return PSK_OK;
}

/* Everything that the steps need, in one block. */
static psk_status take_memory(trainer *t) {
    const psk_train_options *options = t->options;
    const psk_pass_options pass = psk_step_pass_options(options);
    const psk_documents_mode mode = options->reset_at_documents ? PSK_RESET_AT_DOCUMENTS : PSK_KEEP_GOING;
    PSK_TRY(psk_arena_create(&t->arena));
    PSK_TRY(psk_step_plan(t->model, &pass, t->arena, &t->step));
    PSK_TRY(psk_batch_reserve(t->arena, pass.B, pass.N, mode, &t->batch));
    PSK_TRY(psk_arena_reserve(t->arena, "data", "windows", pass.B * (int64_t)sizeof *t->windows, (void **)&t->windows));
    PSK_TRY(psk_arena_commit(t->arena, PSK_FILL_NONE));
    return psk_step_reset_moments(&t->step);
}

static psk_status resume(trainer *t, const char *path) {
    char changes[256];
    json_t *before;
    const psk_checkpoint checkpoint = checkpoint_of(t);
    PSK_TRY(psk_checkpoint_read(path, &checkpoint, &before));
    psk_train_options_changes(before, t->options_json, changes, sizeof changes);
    const int aligned = json_is_true(json_object_get(before, "align_documents"));
    json_decref(before);
    if (aligned != (t->options->align_documents != 0)) /* the cursor would mean something else */
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "%s: the run has align_documents %d, the options say %d: resume with the run's own", path,
                        aligned, t->options->align_documents);
    if (t->state.cursor.index >= t->order.windows)
        return psk_fail(PSK_ERROR_FORMAT, "%s/state.json: index is %" PRId64 ", an epoch has %" PRId64 " sequences",
                        path, t->state.cursor.index, t->order.windows);
    PSK_TRY(psk_checkpoint_link(&checkpoint));
    snprintf(t->note, sizeof t->note, "resumed from %s%s%s%s", path, *changes ? "; changed since: " : "", changes,
             *changes ? ", so the numbers will differ from an uninterrupted run's" : "");
    return PSK_OK;
}

/* From here on nobody else trains in the run folder; that of a new run is made. */
static psk_status claim_output(trainer *t) {
    const char *output = t->options->output;
    if (!t->options->resume)
        PSK_TRY(psk_make_folders(output));
    return psk_is_folder(output) ? psk_claim_folder(output, &t->claim) : PSK_OK;
}

/* A new run folder, or the newest checkpoint of an old one. */
static psk_status open_run(trainer *t) {
    psk_status status = PSK_OK;
    const char *output = t->options->output;
    char *newest;
    t->state = (psk_train_state){
        .best_loss = NAN, .seed = t->options->seed, .context = t->options->context, .data = t->train.fingerprint};
    PSK_TRY(claim_output(t));
    PSK_TRY(psk_checkpoint_newest(output, &newest));
    if (t->options->resume && !newest)
        status = psk_fail(PSK_ERROR_FILE, "%s has no checkpoint to resume from: start without resume", output);
    else if (t->options->resume)
        status = resume(t, newest);
    else if (newest)
        status = psk_fail(PSK_ERROR_ARGUMENT,
                          "%s holds a run already (%s): resume it, remove it or choose another folder", output, newest);
    psk_free(newest);
    return status == PSK_OK ? psk_run_folder_prepare(output) : status;
}

/* config.json, tokenizer files and options.json of the run, metrics and events. */
static psk_status open_records(trainer *t) {
    psk_status status;
    const char *output = t->options->output;
    char *config = NULL, *options = NULL, *metrics = NULL;
    PSK_TRY_GOTO(status, psk_join_path(output, "config.json", &config), done);
    PSK_TRY_GOTO(status, psk_join_path(output, PSK_OPTIONS_FILE, &options), done);
    PSK_TRY_GOTO(status, psk_join_path(output, "metrics.jsonl", &metrics), done);
    PSK_TRY_GOTO(status, psk_model_config_write(config, &t->model->config), done);
    if (t->train.tokenizer)
        PSK_TRY_GOTO(status, psk_tokenizer_save(t->train.tokenizer, output), done);
    PSK_TRY_GOTO(status, psk_json_save(options, t->options_json), done);
    PSK_TRY_GOTO(status, psk_metrics_open(metrics, &t->progress, &t->metrics), done);
    t->progress.tokens_per_second = NAN; /* of this session: none yet */
    status = psk_events_open(output, t->state.step + 1, &t->events);
done:
    psk_free(config);
    psk_free(options);
    psk_free(metrics);
    return status;
}

static psk_status set_up(trainer *t) {
    PSK_TRY(psk_train_options_check(t->options));
    PSK_TRY(psk_device_set_precision(t->model->device, t->options->precision));
    PSK_TRY(psk_train_options_to_json(t->options, &t->options_json));
    PSK_TRY(open_data(t));
    PSK_TRY(take_memory(t));
    PSK_TRY(open_run(t));
    t->progress = (psk_train_progress){.step = t->state.step,
                                       .steps = t->options->steps,
                                       .tokens = t->state.tokens,
                                       .loss = NAN,
                                       .grad_norm = NAN,
                                       .learning_rate = NAN,
                                       .tokens_per_second = NAN,
                                       .seconds = t->state.seconds,
                                       .seconds_left = NAN,
                                       .valid_loss = NAN,
                                       .best_valid_loss = t->state.best_loss};
    PSK_TRY(open_records(t));
    t->started = psk_clock_seconds() - t->state.seconds;
    return PSK_OK;
}

static void tear_down(trainer *t) {
    psk_events_close(t->events);
    psk_metrics_close(t->metrics);
    json_decref(t->options_json);
    psk_step_release(&t->step);
    psk_arena_free(t->arena);
    psk_long_documents_free(&t->long_documents);
    psk_dataset_close(&t->train);
    psk_dataset_close(&t->valid);
    psk_release_folder(t->claim);
}

/* --------------------------------------------------------------------------------------------------------- reporting
 */

static void report(trainer *t, const char *note) {
    t->progress.note = note;
    t->progress.memory_bytes = peak_memory();
    if (t->callback && t->callback(t->user, &t->progress))
        t->stop = true;
}

static void update_speed(trainer *t, double duration, int64_t step_tokens) {
    const psk_train_options *options = t->options;
    psk_train_progress *progress = &t->progress;
    double sum = 0;
    t->durations[t->timed++ % RATE_STEPS] = duration;
    const int64_t count = t->timed < RATE_STEPS ? t->timed : RATE_STEPS;
    for (int64_t i = 0; i < count; i++)
        sum += t->durations[i];
    progress->tokens_per_second = (double)(step_tokens * count) / sum;
    progress->seconds_left = (double)(options->steps - t->state.step) * sum / (double)count;
    if (options->seconds > 0)
        progress->seconds_left = fmax(0, fmin(progress->seconds_left, options->seconds - t->state.seconds));
}

/* NUMERIC, with what is wrong and what is left. */
static psk_status not_finite(trainer *t, int64_t step, const char *what, double value) {
    psk_status status;
    char bad[128], *newest;
    PSK_TRY(psk_step_find_bad(&t->step, bad, sizeof bad));
    PSK_TRY(psk_checkpoint_newest(t->options->output, &newest));
    status = psk_fail(PSK_ERROR_NUMERIC,
                      "step %" PRId64 ": the %s is %g; first tensor that is not finite: %s; %s%s. Try a lower learning "
                      "rate, a longer warm-up or a smaller grad_clip",
                      step, what, value, bad, newest ? "the last good checkpoint is " : "no checkpoint was written yet",
                      newest ? newest : "");
    psk_free(newest);
    return status;
}

/* -------------------------------------------------------------------------------------------------------------- step
 */

static psk_batch batch_of(const trainer *t) {
    return (psk_batch){.tokens = t->batch.tokens,
                       .targets = t->batch.targets,
                       .positions = t->batch.positions,
                       .cu_seqlens = t->batch.cu_seqlens,
                       .documents = t->batch.documents};
}

/* Gradients of the mean loss of all micro-batches of the step; *loss is that mean. */
static psk_status accumulate_gradients(trainer *t, psk_cursor *cursor, double *loss) {
    const psk_train_options *options = t->options;
    const int64_t targets = options->batch_size * options->context * options->accumulate; /* all of them count */
    double sum = 0;
    PSK_TRY(psk_step_begin(&t->step));
    for (int64_t micro = 0; micro < options->accumulate; micro++) {
        const uint64_t index = (uint64_t)t->state.step * (uint64_t)options->accumulate + (uint64_t)micro;
        PSK_TRY(psk_batch_fill(&t->batch, &t->train, &t->order, cursor));
        psk_batch batch = batch_of(t);
        batch.dropout_seed = psk_step_dropout_seed(options->seed, index);
        PSK_TRY(psk_step_add(&t->step, &batch, 1 / (float)targets, &sum));
    }
    *loss = sum / (double)targets;
    return PSK_OK;
}

static psk_status train_step(trainer *t) {
    const psk_train_options *options = t->options;
    const double began = psk_clock_seconds();
    const int64_t tokens = options->batch_size * options->context * options->accumulate;
    psk_cursor cursor = t->state.cursor;
    double loss, norm = NAN;
    PSK_TRY(accumulate_gradients(t, &cursor, &loss));
    if (!isfinite(loss))
        return not_finite(t, t->state.step + 1, "loss", loss);
    const double rate = psk_schedule_rate(options, t->state.step + 1, t->state.seconds);
    const psk_optimizer_settings settings = psk_optimizer_settings_of(options, rate);
    const psk_status status =
        psk_optimizer_step(t->model, t->step.grads, t->step.m, t->step.v, &settings, t->state.step + 1, &norm);
    if (status == PSK_ERROR_NUMERIC)
        return not_finite(t, t->state.step + 1, "norm of the gradients", norm);
    PSK_TRY(status);
    const double ended = psk_clock_seconds();
    t->state.step++;
    t->state.tokens += tokens;
    t->state.cursor = cursor;
    t->state.seconds = ended - t->started;
    t->progress.step = t->state.step;
    t->progress.tokens = t->state.tokens;
    t->progress.loss = loss;
    t->progress.grad_norm = norm;
    t->progress.learning_rate = rate;
    t->progress.seconds = t->state.seconds;
    t->progress.valid_loss = NAN;
    update_speed(t, ended - began, tokens);
    return PSK_OK;
}

/* -------------------------------------------------------------------------------------------------------- evaluation
 */

/* Mean loss, without dropout, of at most eval_batches batches of held-out windows, spread evenly over the split. */
static psk_status validation_loss(trainer *t, double *loss) {
    const int64_t B = t->options->batch_size;
    const int64_t all = psk_window_count(&t->valid, t->options->context);
    const int64_t wanted = t->options->eval_batches < (all + B - 1) / B ? t->options->eval_batches * B : all;
    int64_t counted = 0;
    double sum = 0;
    for (int64_t first = 0; first < wanted; first += B) {
        const int64_t rows = wanted - first < B ? wanted - first : B;
        for (int64_t i = 0; i < rows; i++) /* window = floor((first + i) all / wanted), in a way that cannot overflow */
            t->windows[i] = (first + i) * (all / wanted) + (first + i) * (all % wanted) / wanted;
        PSK_TRY(psk_batch_fill_windows(&t->batch, &t->valid, t->windows, rows));
        const psk_batch batch = batch_of(t);
        PSK_TRY(psk_pass_loss(t->step.pass, t->model, &batch, t->step.losses));
        for (int64_t i = 0; i < B * t->options->context; i++)
            sum += (double)t->step.losses[i];
        counted += t->batch.counted;
    }
    *loss = sum / (double)counted;
    return isfinite(*loss) ? PSK_OK : not_finite(t, t->state.step, "validation loss", *loss);
}

/* *best: no evaluation before was better. */
static psk_status evaluate(trainer *t, bool *best) {
    double loss = NAN;
    PSK_TRY(validation_loss(t, &loss));
    if (!(t->state.best_loss <= loss)) { /* NaN: the first one */
        t->state.best_loss = loss;
        *best = true;
    }
    t->progress.valid_loss = loss;
    t->progress.best_valid_loss = t->state.best_loss;
    t->state.seconds = psk_clock_seconds() - t->started;
    t->progress.seconds = t->state.seconds;
    report(t, NULL);
    return PSK_OK;
}

/* -------------------------------------------------------------------------------------------------------------- loop
 */

static psk_status save(trainer *t, bool best) {
    const psk_checkpoint checkpoint = checkpoint_of(t);
    if (best)
        t->state.best_step = t->state.step;
    PSK_TRY(psk_metrics_sync(t->metrics));
    PSK_TRY(psk_checkpoint_write(&checkpoint, t->options_json, t->options->keep_last));
    snprintf(t->note, sizeof t->note, "checkpoint of step %" PRId64 " written%s", t->state.step,
             best ? ", the best so far" : "");
    report(t, t->note);
    return PSK_OK;
}

static bool is_due(int64_t step, int64_t every) {
    return every > 0 && step % every == 0;
}

static bool is_over(const trainer *t) {
    return t->state.step >= t->options->steps ||
           (t->options->seconds > 0 && psk_clock_seconds() - t->started >= t->options->seconds);
}

/* A step and all that follows from it. *over: it was the last one. */
static psk_status one_round(trainer *t, bool *over) {
    const psk_train_options *options = t->options;
    bool best = false;
    PSK_TRY(train_step(t));
    *over = is_over(t);
    report(t, NULL);
    if (evaluates(t) && (*over || is_due(t->state.step, options->eval_every)))
        PSK_TRY(evaluate(t, &best));
    PSK_TRY(psk_metrics_write(t->metrics, &t->progress));
    PSK_TRY(psk_events_write(t->events, &t->progress));
    if (*over || t->stop || (best && options->save_every > 0) || is_due(t->state.step, options->save_every))
        PSK_TRY(save(t, best));
    return PSK_OK;
}

static psk_status run(trainer *t) {
    bool over = is_over(t);
    if (*t->note)
        report(t, t->note);
    while (!over && !t->stop)
        PSK_TRY(one_round(t, &over));
    if (over)
        return PSK_OK;
    return psk_fail(PSK_ERROR_INTERRUPTED,
                    "stopped after step %" PRId64 " of %" PRId64 ", everything is saved in %s and can be resumed",
                    t->state.step, t->options->steps, t->options->output);
}

psk_status psk_train(psk_model *model, const psk_train_options *options, psk_train_callback callback, void *user) {
    if (!model || !options)
        return psk_fail(PSK_ERROR_ARGUMENT, "psk_train: model and options must not be NULL");
    trainer t = {.model = model, .options = options, .callback = callback, .user = user, .claim = -1};
    psk_status status = set_up(&t);
    if (status == PSK_OK)
        status = run(&t);
    tear_down(&t);
    return status;
}
