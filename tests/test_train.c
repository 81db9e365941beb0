/* Training: the loop, its schedule and ends. */
#include "data/batches.h"
#include "train/schedule.h"
#include "train/step.h"
#include "train_fixture.h"

#include <signal.h>
#include <unistd.h>

/* ----------------------------------------------------------------------------------------------------------- schedule
 */

static void assert_near(double value, double expected) {
    PSK_TEST_AT_MOST(fabs(value - expected), 1e-12);
}

static void schedule(void **unused) {
    (void)unused;
    psk_train_options o = psk_train_options_default();
    o.steps = 110;
    o.warmup_steps = 10;
    o.learning_rate = 1;
    o.min_learning_rate = 0.2;
    for (int64_t step = 1; step <= 10; step++)
        assert_near(psk_schedule_rate(&o, step, 0), (double)step / 10);
    assert_near(psk_schedule_rate(&o, 35, 0), 0.2 + 0.8 * (1 + sqrt(0.5)) / 2);
    assert_near(psk_schedule_rate(&o, 60, 0), 0.6);
    assert_near(psk_schedule_rate(&o, 110, 0), 0.2);
    assert_near(psk_schedule_rate(&o, 200, 0), 0.2);
    o.schedule = PSK_SCHEDULE_LINEAR;
    assert_near(psk_schedule_rate(&o, 35, 0), 0.8);
    assert_near(psk_schedule_rate(&o, 110, 0), 0.2);
    o.schedule = PSK_SCHEDULE_CONSTANT;
    assert_near(psk_schedule_rate(&o, 110, 0), 1);
    o.schedule = PSK_SCHEDULE_LINEAR;
    o.seconds = 40; /* whichever is further on, the clock or the steps */
    assert_near(psk_schedule_rate(&o, 35, 20), 0.6);
    assert_near(psk_schedule_rate(&o, 85, 20), 0.4);
    assert_near(psk_schedule_rate(&o, 35, 50), 0.2);
    assert_near(psk_schedule_rate(&o, 5, 20), 0.5);
    o.seconds = 0;
    o.warmup_steps = 0;
    assert_near(psk_schedule_rate(&o, 55, 0), 0.6);
    o.warmup_steps = 110; /* nothing after the warm-up */
    assert_near(psk_schedule_rate(&o, 110, 0), 1);
    assert_near(psk_schedule_rate(&o, 111, 0), 0.2);
}

/* ------------------------------------------------------------------------------------------------------------ options
 */

/* Runs psk_train, which must refuse; nothing may have been made. */
#define REFUSED(options, status, ...)                                                                                  \
    do {                                                                                                               \
        PSK_TEST_FAILS(psk_train(f.model, &(options), NULL, NULL), status, __VA_ARGS__);                               \
        assert_false(psk_is_folder(f.output));                                                                         \
    } while (0)

static void refuses_options(void **unused) {
    (void)unused;
    psk_train_options o;
#define WITH(field, value, ...)                                                                                        \
    o = small_options(&f);                                                                                             \
    o.field = value;                                                                                                   \
    REFUSED(o, PSK_ERROR_ARGUMENT, __VA_ARGS__)
    WITH(steps, 0, "steps is 0");
    WITH(seconds, NAN, "seconds is nan");
    WITH(batch_size, -1, "batch_size is -1");
    WITH(context, 0, "context is 0");
    WITH(context, INT64_MAX, "context");
    WITH(accumulate, 0, "accumulate is 0");
    WITH(learning_rate, NAN, "learning_rate is nan");
    WITH(learning_rate, 1e-4, "min_learning_rate is 0.001", "0.0001");
    WITH(beta1, 1, "beta1 is 1");
    WITH(beta2, -0.5, "beta2 is -0.5");
    WITH(epsilon, 0, "epsilon is 0");
    WITH(dropout, 1, "dropout is 1");
    WITH(schedule, (psk_schedule)7, "schedule is 7");
    WITH(precision, (psk_precision)7, "precision is 7");
    WITH(seed, UINT64_MAX, "seed is 18446744073709551615");
    WITH(data, NULL, "data");
    WITH(output, "", "output");
    PSK_TEST_FAILS(psk_train(NULL, &o, NULL, NULL), PSK_ERROR_ARGUMENT, "NULL");
}

static void refuses_data(void **unused) {
    (void)unused;
    psk_train_options o = small_options(&f);
    o.data = path_in(f.folder, "nowhere");
    REFUSED(o, PSK_ERROR_FILE, "nowhere", "polysketch prepare");
    o = small_options(&f);
    o.context = 5000;
    REFUSED(o, PSK_ERROR_ARGUMENT, "tokens", "5001", f.data);
    o = small_options(&f);
    f.model->config.vocab_size = 200;
    REFUSED(o, PSK_ERROR_ARGUMENT, "257 tokens", "vocab_size is 200");
    f.model->config.vocab_size = 257;
    PSK_TEST_OK(psk_remove_tree(path_in(f.data, "valid-00000.psk")));
    REFUSED(o, PSK_ERROR_ARGUMENT, "nothing to evaluate on", "eval_every 0");
    o.eval_every = 0;
    PSK_TEST_OK(psk_train(f.model, &o, NULL, NULL));
}

static void refuses_run_folders(void **unused) {
    (void)unused;
    psk_train_options o = small_options(&f);
    o.steps = 2;
    o.resume = 1;
    REFUSED(o, PSK_ERROR_FILE, "no checkpoint to resume from", f.output);
    o.resume = 0;
    PSK_TEST_OK(psk_train(f.model, &o, NULL, NULL));
    PSK_TEST_FAILS(psk_train(f.model, &o, NULL, NULL), PSK_ERROR_ARGUMENT, "holds a run already", f.output);
    o.resume = 1;
    PSK_TEST_OK(psk_train(f.model, &o, NULL, NULL)); /* complete: nothing to do */
    o.align_documents = 1;
    PSK_TEST_FAILS(psk_train(f.model, &o, NULL, NULL), PSK_ERROR_ARGUMENT, "align_documents 0", "say 1");
    o.seed = 2;
    PSK_TEST_FAILS(psk_train(f.model, &o, NULL, NULL), PSK_ERROR_ARGUMENT, "seed 1", "say 2");
}

static void options_come_back(void **unused) {
    (void)unused;
    char data[600];
    psk_train_options o = small_options(&f), read;
    o.steps = 1;
    o.schedule = PSK_SCHEDULE_LINEAR;
    o.reset_at_documents = 1;
    o.align_documents = 1;
    o.dropout = 0.1;
    PSK_TEST_OK(psk_train(f.model, &o, NULL, NULL));
    PSK_TEST_OK(psk_train_options_read(f.output, &read, data, sizeof data));
    assert_string_equal(read.data, f.data);
    assert_string_equal(read.output, f.output);
    read.data = o.data;
    read.output = o.output;
    assert_memory_equal(&read, &o, sizeof o);
    PSK_TEST_FAILS(psk_train_options_read(f.output, &read, data, 5), PSK_ERROR_ARGUMENT, "5 are given");
    PSK_TEST_FAILS(psk_train_options_read(f.folder, &read, data, 5), PSK_ERROR_FILE, "options.json");
    remove_option("options.json", "precision"); /* as where they could not be chosen yet */
    remove_option("options.json", "align_documents");
    PSK_TEST_OK(psk_train_options_read(f.output, &read, data, sizeof data));
    assert_int_equal(read.precision, PSK_PRECISION_F32);
    assert_int_equal(read.align_documents, 0);
    PSK_TEST_OK(psk_write_file(path_in(f.output, "options.json"), "{\"data\": \"x\"}", 13));
    PSK_TEST_FAILS(psk_train_options_read(f.output, &read, data, sizeof data), PSK_ERROR_FORMAT, "options.json",
                   "schedule is missing");
}

/* --------------------------------------------------------------------------------------------------------------- loop
 */

static void learns(void **unused) {
    (void)unused;
    psk_train_options o = small_options(&f);
    watcher w = {.stop_at = 0};
    o.steps = 60;
    o.eval_every = 20;
    o.save_every = 0;
    PSK_TEST_OK(psk_train(f.model, &o, watch, &w));
    PSK_TEST_AT_MOST(w.last.loss, 2.6); /* from ln 257 = 5.55; letters alone give 2.7 */
    PSK_TEST_AT_MOST(w.last.best_valid_loss, 2.6);
    assert_int_equal(w.last.step, 60);
    assert_int_equal(w.last.tokens, 60 * 2 * 16);
    assert_int_equal(w.evaluations, 3);
    assert_int_equal(w.calls, 60 + 3 + 1); /* steps, evaluations, the checkpoint at the end */
    assert_true(w.last.memory_bytes > 1000000);
    assert_true(w.last.tokens_per_second > 0 && w.last.seconds > 0 && w.last.seconds_left == 0);
    assert_string_equal(names_in(path_in(f.output, "checkpoints")), "step-00000060 ");
}

/* The loss after so many steps of a model wide enough for products of bfloat16. */
static double loss_in(psk_precision precision, uint64_t seed) {
    psk_model_config config = small_config();
    psk_train_options o = small_options(&f);
    watcher w = {.stop_at = 0};
    psk_model *model;
    config.n_embd = 64;
    config.n_head = 1;
    config.n_positions = 64;
    o.context = 64;
    o.steps = 60;
    o.learning_rate = 1e-3;
    o.precision = precision;
    char name[32];
    snprintf(name, sizeof name, "%s-%d", psk_precision_name(precision), (int)seed);
    o.output = path_in(f.folder, name);
    PSK_TEST_OK(psk_model_create(f.device, &config, seed, &model));
    PSK_TEST_OK(psk_train(model, &o, watch, &w));
    assert_int_equal(psk_device_precision(f.device), precision);
    psk_model_free(model);
    return w.last.loss;
}

/* Over several seeds: one run ends up to 1 % elsewhere where a rounding changes. */
#define SEEDS 6
static double mean_loss_in(psk_precision precision) {
    double sum = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++)
        sum += loss_in(precision, 11 + seed);
    return sum / SEEDS;
}

static void learns_in_bfloat16(void **unused) {
    (void)unused;
    if (!f.device->has_bf16)
        skip();
    const double rounded = mean_loss_in(PSK_PRECISION_BF16), plain = mean_loss_in(PSK_PRECISION_F32);
    printf("  float32 %.3f, bfloat16 %.3f\n", plain, rounded);
    assert_true(rounded != plain);
    PSK_TEST_AT_MOST(plain, 2.6); /* as above */
    /* of what was learned, where a step more brings 1 % */
    PSK_TEST_AT_MOST(fabs(rounded - plain) / (log(257) - plain), 0.012);
}

static void refuses_a_precision_that_the_device_lacks(void **unused) {
    (void)unused;
    fixture reference;
    fixture_begin(&reference, "reference");
    small_data(&reference, 1, 1000, 0.1);
    psk_train_options o = small_options(&reference);
    o.precision = PSK_PRECISION_BF16;
    PSK_TEST_FAILS(psk_train(reference.model, &o, NULL, NULL), PSK_ERROR_UNSUPPORTED, "no instructions for bfloat16");
    fixture_end(&reference);
}

/* Spoils the weights after step 14, so that what follows is worse for long. */
static int watch_and_spoil(void *user, const psk_train_progress *progress) {
    const watcher *w = user;
    for (int64_t i = 0; progress->step == 14 && i < w->model->params.floats; i++)
        w->model->weights[i] *= 4;
    return watch(user, progress);
}

/* It gets better and then worse: the best is neither the first nor the last, nor saved otherwise. */
static void best_is_kept(void **unused) {
    (void)unused;
    psk_train_options o = small_options(&f);
    watcher w = {.model = f.model};
    char target[256], expected[64];
    o.steps = 30;
    o.eval_every = 3;
    o.save_every = 10;
    o.keep_last = 1;
    PSK_TEST_OK(psk_train(f.model, &o, watch_and_spoil, &w));
    assert_in_range(w.least_step, 6, 12);
    assert_true(w.last.best_valid_loss == w.least);
    snprintf(expected, sizeof expected, "checkpoints/step-%08d", (int)w.least_step);
    const ssize_t size = readlink(path_in(f.output, "best"), target, sizeof target - 1);
    assert_true(size > 0);
    target[size] = 0;
    assert_string_equal(target, expected);
    snprintf(expected, sizeof expected, "step-%08d step-00000030 ", (int)w.least_step);
    assert_string_equal(names_in(path_in(f.output, "checkpoints")), expected);
    assert_true(psk_is_file(path_in(f.output, "tokenizer.json")) &&
                psk_is_file(path_in(f.output, "best/tokenizer.json")));
}

static void evaluation_is_that_of_psk_evaluate(void **unused) {
    (void)unused;
    psk_train_options o = small_options(&f);
    psk_eval_options e = psk_eval_options_default();
    psk_eval_result result;
    watcher w = {.stop_at = 0};
    o.steps = 5;
    o.eval_batches = 1000;
    o.dropout = 0.5; /* not in evaluations */
    PSK_TEST_OK(psk_train(f.model, &o, watch, &w));
    e.data = f.data;
    e.context = 16;
    PSK_TEST_OK(psk_evaluate(f.model, &e, &result));
    PSK_TEST_AT_MOST(fabs(result.loss - w.last.valid_loss) / result.loss, 1e-6);
}

static void follows_the_clock(void **unused) {
    (void)unused;
    psk_train_options o = small_options(&f);
    watcher w = {.stop_at = 0};
    o.steps = INT64_C(1000000000);
    o.seconds = 0.3;
    o.eval_every = 0;
    o.save_every = 0;
    PSK_TEST_OK(psk_train(f.model, &o, watch, &w));
    assert_true(w.last.step >= 1);
    assert_true(w.last.seconds >= 0.3);
    assert_int_equal(w.last.seconds_left, 0);
    assert_true(strstr(w.notes, "checkpoint of step") != NULL);
    const int64_t step = w.last.step;
    o.resume = 1; /* its time is over */
    PSK_TEST_OK(psk_train(f.model, &o, watch, &w));
    assert_int_equal(w.last.step, step);
}

/* A stop before the first step of a session loses nothing. */
static void stops_when_asked(void **unused) {
    (void)unused;
    psk_train_options o = small_options(&f);
    watcher w = {.stop_at = 3};
    PSK_TEST_FAILS(psk_train(f.model, &o, watch, &w), PSK_ERROR_INTERRUPTED, "step 3 of 8", f.output, "resumed");
    assert_string_equal(names_in(path_in(f.output, "checkpoints")), "step-00000003 ");
    o.resume = 1;
    PSK_TEST_FAILS(psk_train(f.model, &o, watch, &w), PSK_ERROR_INTERRUPTED, "step 3 of 8");
    assert_string_equal(names_in(path_in(f.output, "checkpoints")), "step-00000003 ");
    w.stop_at = 0;
    PSK_TEST_OK(psk_train(f.model, &o, watch, &w));
    assert_int_equal(w.last.step, 8);
}

static void nan_weight(void **unused) {
    (void)unused;
    psk_train_options o = small_options(&f);
    watcher w = {.damage_at = 6, .model = f.model};
    PSK_TEST_FAILS(psk_train(f.model, &o, watch, &w), PSK_ERROR_NUMERIC, "step 7", "loss is",
                   "weight blocks.1.mlp.up.weight", "the last good checkpoint is", "step-00000004");
    assert_string_equal(names_in(path_in(f.output, "checkpoints")), "step-00000004 ");
    psk_model *model;
    PSK_TEST_OK(psk_model_load(f.device, f.output, &model));
    for (int64_t i = 0; i < model->params.floats; i++)
        assert_true(isfinite(model->weights[i]));
    psk_model_free(model);
    o.resume = 1;
    w.damage_at = 0;
    PSK_TEST_OK(psk_train(f.model, &o, watch, &w));
}

/* The loss may be finite while a gradient is not. */
static void infinite_gradient(void **unused) {
    (void)unused;
    char bad[128];
    psk_arena *arena;
    psk_step step;
    const psk_pass_options pass = {.B = 1, .N = 16, .training = true};
    PSK_TEST_OK(psk_arena_create(&arena));
    PSK_TEST_OK(psk_step_plan(f.model, &pass, arena, &step));
    PSK_TEST_OK(psk_arena_commit(arena, PSK_FILL_NAN));
    PSK_TEST_OK(psk_step_begin(&step));
    PSK_TEST_OK(psk_step_find_bad(&step, bad, sizeof bad));
    assert_string_equal(bad, "no tensor");
    step.grads[psk_params_find(&f.model->params, "blocks.0.attn.out.weight")->offset + 7] = INFINITY;
    PSK_TEST_OK(psk_step_find_bad(&step, bad, sizeof bad));
    assert_string_equal(bad, "gradient of blocks.0.attn.out.weight");
    psk_step_release(&step);
    psk_arena_free(arena);
}

/* The disk is full from step 5 on. */
static int fill_disk(void *user, const psk_train_progress *progress) {
    (void)user;
    psk_test_limit_files(progress->step >= 5 ? 20000 : RLIM_INFINITY);
    return 0;
}

static void full_disk(void **unused) {
    (void)unused;
    psk_train_options o = small_options(&f);
    signal(SIGXFSZ, SIG_IGN);
    const psk_status status = psk_train(f.model, &o, fill_disk, NULL);
    fill_disk(NULL, &(psk_train_progress){.step = 0});
    PSK_TEST_FAILS(status, PSK_ERROR_FILE, "step 8 was not written");
    assert_string_equal(names_in(path_in(f.output, "checkpoints")), "step-00000004 ");
    o.resume = 1;
    PSK_TEST_OK(psk_train(f.model, &o, NULL, NULL));
    assert_string_equal(names_in(path_in(f.output, "checkpoints")), "step-00000004 step-00000008 ");
}

/* ---------------------------------------------------------------------------------------------------------- gradients
 */

/* Gradients of `micros` batches of B x 16 from the start of the data. */
static void gradients_of(int64_t B, int64_t micros, float *grads, double *loss) {
    psk_arena *arena;
    psk_step step;
    psk_dataset dataset;
    psk_order order;
    psk_batch_buffer buffer;
    psk_cursor cursor = {0};
    const psk_pass_options pass = {.B = B, .N = 16, .training = true};
    PSK_TEST_OK(psk_dataset_open(f.data, "train", &dataset));
    PSK_TEST_OK(psk_order_create(dataset.tokens, 16, 1, &order));
    PSK_TEST_OK(psk_arena_create(&arena));
    PSK_TEST_OK(psk_step_plan(f.model, &pass, arena, &step));
    PSK_TEST_OK(psk_batch_reserve(arena, B, 16, PSK_KEEP_GOING, &buffer));
    PSK_TEST_OK(psk_arena_commit(arena, PSK_FILL_NAN));
    PSK_TEST_OK(psk_step_begin(&step));
    *loss = 0;
    for (int64_t i = 0; i < micros; i++) {
        PSK_TEST_OK(psk_batch_fill(&buffer, &dataset, &order, &cursor));
        const psk_batch batch = {.tokens = buffer.tokens, .targets = buffer.targets};
        PSK_TEST_OK(psk_step_add(&step, &batch, 1 / (float)(B * micros * 16), loss));
    }
    memcpy(grads, step.grads, (size_t)f.model->params.floats * sizeof *grads);
    psk_step_release(&step);
    psk_arena_free(arena);
    psk_dataset_close(&dataset);
}

static void accumulation_adds_up(void **unused) {
    (void)unused;
    const int64_t floats = f.model->params.floats;
    float *together = psk_test_buffer(floats), *apart = psk_test_buffer(floats);
    double loss_together, loss_apart;
    gradients_of(2, 1, together, &loss_together);
    gradients_of(1, 2, apart, &loss_apart);
    PSK_TEST_AT_MOST(fabs(loss_together - loss_apart) / loss_together, 1e-6);
    PSK_TEST_AT_MOST(psk_test_relative_rms(apart, together, floats), 1e-6);
    psk_test_free(together);
    psk_test_free(apart);
}

/* The same through psk_train: loss and gradient norm of the first step. */
static void accumulated_steps_agree(void **unused) {
    (void)unused;
    double loss[2], norm[2];
    for (int i = 0; i < 2; i++) {
        psk_train_options o = small_options(&f);
        watcher w = {.stop_at = 0};
        o.steps = 1;
        o.batch_size = i == 0 ? 2 : 1;
        o.accumulate = i == 0 ? 1 : 2;
        psk_model *model = new_model(&f);
        PSK_TEST_OK(psk_train(model, &o, watch, &w));
        psk_model_free(model);
        PSK_TEST_OK(psk_remove_tree(f.output));
        loss[i] = w.last.loss;
        norm[i] = w.last.grad_norm;
    }
    PSK_TEST_AT_MOST(fabs(loss[0] - loss[1]) / loss[0], 1e-6);
    PSK_TEST_AT_MOST(fabs(norm[0] - norm[1]) / norm[0], 1e-6);
}

static void threads_do_not_matter(void **unused) {
    (void)unused;
    const psk_train_options o = small_options(&f);
    psk_model *models[2];
    psk_device *devices[2];
    for (int i = 0; i < 2; i++) {
        PSK_TEST_OK(psk_device_create("cpu", i + 1, &devices[i]));
        PSK_TEST_OK(psk_model_create(devices[i], &f.model->config, 11, &models[i]));
        PSK_TEST_OK(psk_train(models[i], &o, NULL, NULL));
        PSK_TEST_OK(psk_remove_tree(f.output));
    }
    assert_same_weights(models[0], models[1]);
    for (int i = 0; i < 2; i++) {
        psk_model_free(models[i]);
        psk_device_free(devices[i]);
    }
}

/* Documents packed into rows have the losses that each has alone. */
static void packed_documents_stand_alone(void **unused) {
    (void)unused;
    enum { B = 2, N = 100 };
    psk_arena *arena;
    psk_dataset dataset;
    psk_order order;
    psk_batch_buffer buffer;
    psk_cursor cursor = {0};
    psk_pass *pass;
    float losses[B * N];
    PSK_TEST_OK(psk_remove_tree(path_in(f.folder, "texts")));
    strcat(f.data, "-packed");
    small_data(&f, 20, 33, 0);
    PSK_TEST_OK(psk_dataset_open(f.data, "train", &dataset));
    PSK_TEST_OK(psk_order_create(dataset.tokens, N, 1, &order));
    PSK_TEST_OK(psk_arena_create(&arena));
    PSK_TEST_OK(psk_batch_reserve(arena, B, N, PSK_RESET_AT_DOCUMENTS, &buffer));
    PSK_TEST_OK(psk_arena_commit(arena, PSK_FILL_NAN));
    PSK_TEST_OK(psk_batch_fill(&buffer, &dataset, &order, &cursor));
    assert_in_range(buffer.documents, 6, 8);
    const psk_batch batch = {.tokens = buffer.tokens,
                             .targets = buffer.targets,
                             .positions = buffer.positions,
                             .cu_seqlens = buffer.cu_seqlens,
                             .documents = buffer.documents};
    PSK_TEST_OK(psk_pass_create(f.model, &(psk_pass_options){.B = B, .N = N}, &pass));
    PSK_TEST_OK(psk_pass_loss(pass, f.model, &batch, losses));
    psk_pass_free(pass);
    for (int64_t i = 0; i < buffer.documents; i++) {
        const int64_t first = buffer.cu_seqlens[i], length = buffer.cu_seqlens[i + 1] - first;
        const psk_batch alone = {.tokens = buffer.tokens + first, .targets = buffer.targets + first};
        float expected[N];
        PSK_TEST_OK(psk_pass_create(f.model, &(psk_pass_options){.B = 1, .N = length}, &pass));
        PSK_TEST_OK(psk_pass_loss(pass, f.model, &alone, expected));
        PSK_TEST_AT_MOST(psk_test_relative_rms(losses + first, expected, length), 1e-5);
        psk_pass_free(pass);
    }
    psk_arena_free(arena);
    psk_dataset_close(&dataset);
}

/* ------------------------------------------------------------------------------------------------------------- memory
 */

/* What a run takes is what psk_model_memory says, but for the padding of each block to PSK_ALIGNMENT. On a device
 * without fused attention: the report knows no device, and those plan their own workspace. */
static void memory_as_announced(void **unused) {
    (void)unused;
    psk_memory_report report;
    psk_device *device;
    psk_model *model;
    psk_arena *arena;
    psk_step step;
    psk_batch_buffer buffer;
    const psk_pass_options pass = {.B = 3, .N = 16, .training = true};
    PSK_TEST_OK(psk_device_create("reference", 1, &device));
    PSK_TEST_OK(psk_model_create(device, &f.model->config, 11, &model));
    PSK_TEST_OK(psk_arena_create(&arena));
    PSK_TEST_OK(psk_step_plan(model, &pass, arena, &step));
    PSK_TEST_OK(psk_batch_reserve(arena, 3, 16, PSK_KEEP_GOING, &buffer));
    PSK_TEST_OK(psk_model_memory(&model->config, 3, 16, 1, 0, &report));
    for (int64_t i = 0; i < report.count; i++) {
        const int64_t planned = psk_arena_category_bytes(arena, report.lines[i].category);
        if (strcmp(report.lines[i].category, "parameters") != 0)
            PSK_TEST_AT_MOST(fabs((double)(planned - report.lines[i].bytes)), 4 * PSK_ALIGNMENT);
    }
    psk_step_release(&step);
    psk_arena_free(arena);
    psk_model_free(model);
    psk_device_free(device);
}

static psk_status train_and_resume(void *argument) {
    psk_train_options o = *(const psk_train_options *)argument;
    psk_model *model;
    PSK_TRY(psk_remove_tree(f.output));
    PSK_TRY(psk_model_create(f.device, &f.model->config, 11, &model));
    psk_status status = psk_train(model, &o, NULL, NULL);
    o.resume = 1;
    o.steps++;
    if (status == PSK_OK)
        status = psk_train(model, &o, NULL, NULL);
    psk_model_free(model);
    return status;
}

/* The n-th allocation of a run and its resumption fails: every n up to 100, then every 61st, for there are thousands.
 */
static void out_of_memory(void **unused) {
    (void)unused;
    psk_train_options o = small_options(&f);
    psk_status status = PSK_ERROR_MEMORY;
    int64_t n = 0;
    o.steps = 1;
    o.eval_every = 1;
    o.save_every = 1;
    o.reset_at_documents = 1;
    o.align_documents = 1;
    while (status == PSK_ERROR_MEMORY) {
        n += n < 100 ? 1 : 61;
        psk_alloc_fail_after(n);
        status = train_and_resume(&o);
        psk_alloc_fail_after(0);
    }
    PSK_TEST_OK(status);
    print_message("    up to allocation %d\n", (int)n);
    assert_true(n > 1000);
}

static void step_bench(void **unused) {
    (void)unused;
    psk_step_bench *bench;
    psk_model *same = new_model(&f);
    double loss = NAN, again = NAN, forward = NAN;
    PSK_TEST_OK(psk_step_bench_create(f.model, 2, 17, 1, &bench));
    PSK_TEST_OK(psk_step_bench_run(bench, &loss));
    PSK_TEST_OK(psk_step_bench_run(bench, &again));
    PSK_TEST_OK(psk_step_bench_forward(bench, &forward));
    psk_step_bench_free(bench);
    PSK_TEST_AT_MOST(fabs(loss - log(257)), 0.2);
    PSK_TEST_AT_MOST(fabs(forward - loss), 1e-6 * loss);
    assert_true(loss == again);
    for (int64_t i = 0; i < same->params.floats; i++) /* not their bits: a 0 may have got the other sign */
        assert_true(f.model->weights[i] == same->weights[i]);
    psk_model_free(same);
    PSK_TEST_FAILS(psk_step_bench_create(f.model, 0, 17, 0, &bench), PSK_ERROR_ARGUMENT, "0 x 17");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedule),
        TEST(refuses_options),
        TEST(refuses_data),
        TEST(refuses_run_folders),
        TEST(options_come_back),
        TEST(learns),
        TEST(learns_in_bfloat16),
        cmocka_unit_test(refuses_a_precision_that_the_device_lacks),
        TEST(best_is_kept),
        TEST(evaluation_is_that_of_psk_evaluate),
        TEST(follows_the_clock),
        TEST(stops_when_asked),
        TEST(nan_weight),
        TEST(infinite_gradient),
        TEST(full_disk),
        TEST(accumulation_adds_up),
        TEST(accumulated_steps_agree),
        TEST(threads_do_not_matter),
        TEST(packed_documents_stand_alone),
        TEST(memory_as_announced),
        TEST(out_of_memory),
        TEST(step_bench),
    };
    prefer_memory_folder();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
