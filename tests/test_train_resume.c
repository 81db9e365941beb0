/* Training that goes on: stopped, killed or with other options, it ends as the run that was never interrupted. */
#include "train_fixture.h"

/* Lines of metrics.jsonl without what the clock decides. */
static void read_metrics(const char *output, char *text, size_t capacity) {
    char line[1024];
    FILE *file = fopen(path_in(output, "metrics.jsonl"), "r");
    assert_non_null(file);
    *text = 0;
    while (fgets(line, sizeof line, file)) {
        json_t *object;
        PSK_TEST_OK(psk_json_parse(line, strlen(line), "metrics", &object));
        assert_true(json_is_number(json_object_get(object, "tokens_per_second")));
        assert_true(json_is_number(json_object_get(object, "seconds")));
        assert_true(json_is_integer(json_object_get(object, "memory_bytes")));
        json_object_del(object, "tokens_per_second");
        json_object_del(object, "seconds");
        json_object_del(object, "memory_bytes");
        char *left = json_dumps(object, JSON_COMPACT);
        assert_true(strlen(text) + strlen(left) + 2 < capacity);
        strcat(strcat(text, left), "\n");
        free(left);
        json_decref(object);
    }
    fclose(file);
}

/* 8 steps in one go, and 8 steps stopped at `stop_at` and resumed, give the same weights and metrics, bit for bit. */
static void assert_resume_is_exact(const psk_train_options *options, int64_t stop_at) {
    static char whole[8192], parts[8192];
    char other[600];
    psk_model *model = new_model(&f), *fresh = new_model(&f);
    psk_train_options o = *options;
    watcher w = {.stop_at = stop_at};
    PSK_TEST_OK(psk_train(model, &o, NULL, NULL));
    read_metrics(o.output, whole, sizeof whole);
    snprintf(other, sizeof other, "%s/other", f.folder);
    o.output = other;
    PSK_TEST_FAILS(psk_train(fresh, &o, watch, &w), PSK_ERROR_INTERRUPTED, other);
    psk_model_free(fresh);
    fresh = new_model(&f);
    o.resume = 1;
    w.stop_at = 0;
    *w.notes = 0;
    PSK_TEST_OK(psk_train(fresh, &o, watch, &w));
    assert_true(strstr(w.notes, "resumed from") != NULL && strstr(w.notes, "changed") == NULL);
    assert_same_weights(model, fresh);
    read_metrics(other, parts, sizeof parts);
    assert_string_equal(whole, parts);
    psk_model_free(model);
    psk_model_free(fresh);
    PSK_TEST_OK(psk_remove_tree(o.output));
    PSK_TEST_OK(psk_remove_tree(options->output));
}

static void resume_is_exact(void **unused) {
    (void)unused;
    psk_train_options o = small_options(&f);
    assert_resume_is_exact(&o, 4);
    assert_resume_is_exact(&o, 1);
    o.accumulate = 3;
    o.dropout = 0.2;
    o.eval_every = 3;
    assert_resume_is_exact(&o, 5);
    o.reset_at_documents = 1;
    o.recompute = 1;
    assert_resume_is_exact(&o, 7);
    o.align_documents = 1;
    assert_resume_is_exact(&o, 3);
}

/* A run from before some options were there goes on as it was, and nothing is said to have changed. */
static void resumes_what_knows_fewer_options(void **unused) {
    (void)unused;
    psk_train_options o = small_options(&f);
    watcher w = {.stop_at = 4};
    PSK_TEST_FAILS(psk_train(f.model, &o, watch, &w), PSK_ERROR_INTERRUPTED, f.output);
    remove_option("last/state.json", "align_documents");
    remove_option("last/state.json", "precision");
    o.resume = 1;
    w.stop_at = 0;
    PSK_TEST_OK(psk_train(f.model, &o, watch, &w));
    assert_true(strstr(w.notes, "resumed from") != NULL && strstr(w.notes, "changed") == NULL);
}

/* Killed, not stopped: steps after the last checkpoint are done again, and their metrics are not there twice. */
static void resume_after_a_crash(void **unused) {
    (void)unused;
    static char whole[8192], parts[8192];
    char other[600];
    psk_model *model = new_model(&f);
    psk_train_options o = small_options(&f);
    watcher w = {.damage_at = 6, .model = f.model}; /* ends in step 7, without a checkpoint */
    PSK_TEST_OK(psk_train(model, &o, NULL, NULL));
    read_metrics(o.output, whole, sizeof whole);
    snprintf(other, sizeof other, "%s/other", f.folder);
    o.output = other;
    PSK_TEST_FAILS(psk_train(f.model, &o, watch, &w), PSK_ERROR_NUMERIC, "step 7");
    FILE *file = fopen(path_in(other, "metrics.jsonl"), "a");
    fputs("{\"step\": 7, \"lo", file);
    fclose(file);
    PSK_TEST_OK(psk_make_folders(path_in(other, "checkpoints/incomplete-step-00000007")));
    o.resume = 1;
    w.damage_at = 0;
    PSK_TEST_OK(psk_train(f.model, &o, watch, &w));
    assert_same_weights(model, f.model);
    read_metrics(other, parts, sizeof parts);
    assert_string_equal(whole, parts);
    assert_string_equal(names_in(path_in(other, "checkpoints")), "step-00000004 step-00000008 ");
    psk_model_free(model);
}

static void point_to_step_4(const char *link) {
    const char *const path = path_in(f.output, link);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("checkpoints/step-00000004", path), 0);
}

/* What is told about a run that is over is what it ended with. */
static void resume_of_a_run_that_is_over(void **unused) {
    (void)unused;
    psk_train_options o = small_options(&f);
    watcher first = {.stop_at = 0}, again = first;
    PSK_TEST_OK(psk_train(f.model, &o, watch, &first));
    o.resume = 1;
    PSK_TEST_OK(psk_train(f.model, &o, watch, &again));
    assert_int_equal(again.calls, 1);
    assert_int_equal(again.last.step, 8);
    assert_int_equal(again.last.tokens, first.last.tokens);
    assert_true(again.last.loss == first.last.loss && again.last.grad_norm == first.last.grad_norm);
    assert_true(again.last.valid_loss == first.last.valid_loss && again.last.seconds == first.last.seconds);
    assert_true(again.last.best_valid_loss == first.last.best_valid_loss && isfinite(again.last.best_valid_loss));
}

/* Killed when the checkpoint of step 8, the best, was whole and no link had moved. */
static void resume_moves_the_links(void **unused) {
    (void)unused;
    psk_model *loaded;
    psk_train_options o = small_options(&f);
    watcher w = {.stop_at = 0};
    PSK_TEST_OK(psk_train(f.model, &o, watch, &w));
    assert_int_equal(w.least_step, 8);
    point_to_step_4("last");
    point_to_step_4("best");
    o.resume = 1;
    PSK_TEST_OK(psk_train(f.model, &o, watch, &w)); /* nothing is left to do */
    assert_link(f.output, "last", "checkpoints/step-00000008");
    assert_link(f.output, "best", "checkpoints/step-00000008");
    PSK_TEST_OK(psk_model_load(f.device, f.output, &loaded));
    assert_same_weights(f.model, loaded);
    psk_model_free(loaded);
    point_to_step_4("best");
    o.steps = 16;
    o.eval_every = 0;
    PSK_TEST_OK(psk_train(f.model, &o, watch, &w));
    assert_link(f.output, "best", "checkpoints/step-00000008");
    assert_string_equal(names_in(path_in(f.output, "checkpoints")), "step-00000008 step-00000012 step-00000016 ");
}

static void resume_with_other_options(void **unused) {
    (void)unused;
    psk_train_options o = small_options(&f);
    watcher w = {.stop_at = 0};
    PSK_TEST_OK(psk_train(f.model, &o, NULL, NULL));
    o.resume = 1;
    o.steps = 10;
    o.learning_rate = 2e-3;
    PSK_TEST_OK(psk_train(f.model, &o, watch, &w));
    assert_int_equal(w.last.step, 10);
    assert_true(strstr(w.notes, "changed since: steps, learning_rate, so") != NULL);
    o.context = 8;
    PSK_TEST_FAILS(psk_train(f.model, &o, watch, &w), PSK_ERROR_ARGUMENT, "context 16", "say 8");
}
/* Another training of the same folder, while this one is at work. */
static int train_beside(void *user, const psk_train_progress *progress) {
    psk_train_options o = *(const psk_train_options *)user;
    psk_model *other = new_model(&f);
    for (o.resume = 0; o.resume < 2; o.resume++)
        PSK_TEST_FAILS(psk_train(other, &o, NULL, NULL), PSK_ERROR_FILE, f.output, "another process");
    psk_model_free(other);
    return progress->step == 2;
}

static void a_run_has_one_writer(void **unused) {
    (void)unused;
    psk_train_options o = small_options(&f);
    PSK_TEST_FAILS(psk_train(f.model, &o, train_beside, &o), PSK_ERROR_INTERRUPTED, "step 2");
    o.resume = 1;
    PSK_TEST_OK(psk_train(f.model, &o, NULL, NULL));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(resume_is_exact),        TEST(resumes_what_knows_fewer_options),
        TEST(resume_after_a_crash),   TEST(resume_of_a_run_that_is_over),
        TEST(resume_moves_the_links), TEST(resume_with_other_options),
        TEST(a_run_has_one_writer),
    };
    prefer_memory_folder();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
