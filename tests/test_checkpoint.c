/* Checkpoints: whole or not at all, and refused with a reason when they do not fit. */
#include "train/checkpoint.h"

#include "train_support.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static fixture f;
static float *m, *v; /* moments of the small model */
static psk_train_state state;
static json_t *options;

static int set_up(void **unused) {
    (void)unused;
    fixture_begin(&f, "cpu");
    const int64_t floats = f.model->params.floats;
    m = psk_test_random(floats, 3, "m");
    v = psk_test_random(floats, 3, "v");
    state = (psk_train_state){.step = 500,
                              .tokens = 123456,
                              .cursor = {2, 17},
                              .best_loss = 1.5,
                              .seconds = 12.25,
                              .seed = 5,
                              .context = 16,
                              .data = 0xfedcba9876543210};
    psk_json_init();
    options = json_pack("{s:i}", "steps", 1000);
    PSK_TEST_OK(psk_run_folder_prepare(f.output));
    return 0;
}

static int tear_down(void **unused) {
    (void)unused;
    json_decref(options);
    psk_test_free(m);
    psk_test_free(v);
    fixture_end(&f);
    return 0;
}

static psk_checkpoint checkpoint(void) {
    return (psk_checkpoint){.output = f.output, .model = f.model, .m = m, .v = v, .state = &state};
}

typedef enum { NOT_BEST, BEST } best_or_not;

static psk_status write_step(int64_t step, int64_t keep_last, best_or_not rank) {
    const psk_checkpoint c = checkpoint();
    state.step = step;
    if (rank == BEST)
        state.best_step = step;
    return psk_checkpoint_write(&c, options, keep_last);
}

/* Reads the newest checkpoint into buffers of NaN; they stay the caller's. */
static psk_status read_newest(psk_model *model, float *m_read, float *v_read, psk_train_state *read) {
    char *path;
    json_t *found = NULL;
    *read = (psk_train_state){.seed = state.seed, .context = state.context, .data = state.data};
    const psk_checkpoint c = {.output = f.output, .model = model, .m = m_read, .v = v_read, .state = read};
    PSK_TEST_OK(psk_checkpoint_newest(f.output, &path));
    assert_non_null(path);
    const psk_status status = psk_checkpoint_read(path, &c, &found);
    if (status == PSK_OK)
        assert_true(json_equal(found, options));
    json_decref(found);
    psk_free(path);
    return status;
}

static bool newest_has_a_tokenizer(void) {
    char *path, *file;
    PSK_TEST_OK(psk_checkpoint_newest(f.output, &path));
    PSK_TEST_OK(psk_join_path(path, PSK_TOKENIZER_FILE, &file));
    const bool found = psk_is_file(file);
    psk_free(path);
    psk_free(file);
    return found;
}

/* A checkpoint is a model folder with the tokenizer of its data, if there is one. */
static void carries_the_tokenizer(void **unused) {
    (void)unused;
    psk_tokenizer *tokenizer;
    psk_checkpoint c = checkpoint();
    state.step = 500;
    PSK_TEST_OK(psk_checkpoint_write(&c, options, 2));
    assert_false(newest_has_a_tokenizer());
    PSK_TEST_OK(psk_tokenizer_load("bytes", &tokenizer));
    c.tokenizer = tokenizer;
    state.step = 501;
    PSK_TEST_OK(psk_checkpoint_write(&c, options, 2));
    assert_true(newest_has_a_tokenizer());
    psk_tokenizer_free(tokenizer);
}

/* The newest checkpoint is that of `step` and reads back bit for bit. */
static void assert_newest(int64_t step) {
    const int64_t floats = f.model->params.floats;
    float *m_read = psk_test_buffer(floats), *v_read = psk_test_buffer(floats);
    psk_train_state read;
    psk_model *other;
    PSK_TEST_OK(psk_model_create(f.device, &f.model->config, 99, &other));
    PSK_TEST_OK(read_newest(other, m_read, v_read, &read));
    assert_same_weights(f.model, other);
    for (int64_t i = 0; i < f.model->params.count; i++) {
        const psk_param *param = &f.model->params.list[i];
        if (!param->trained)
            continue;
        const size_t bytes = (size_t)param->count * sizeof(float);
        assert_memory_equal(m + param->offset, m_read + param->offset, bytes);
        assert_memory_equal(v + param->offset, v_read + param->offset, bytes);
    }
    assert_int_equal(read.step, step);
    psk_model_free(other);
    psk_test_free(m_read);
    psk_test_free(v_read);
}

/* The status of reading the newest checkpoint, whose message the caller looks at. */
static psk_status read_status(void) {
    const int64_t floats = f.model->params.floats;
    float *m_read = psk_test_buffer(floats), *v_read = psk_test_buffer(floats);
    psk_train_state read;
    const psk_status status = read_newest(f.model, m_read, v_read, &read);
    psk_test_free(m_read);
    psk_test_free(v_read);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------- whole
 */

static void round_trip(void **unused) {
    (void)unused;
    psk_train_state read;
    PSK_TEST_OK(write_step(500, 2, NOT_BEST));
    assert_newest(500);
    float *spare = psk_test_buffer(f.model->params.floats);
    PSK_TEST_OK(read_newest(f.model, spare, spare, &read));
    psk_test_free(spare);
    assert_int_equal(read.tokens, 123456);
    assert_int_equal(read.cursor.epoch, 2);
    assert_int_equal(read.cursor.index, 17);
    assert_true(read.best_loss == 1.5 && read.seconds == 12.25);
    state.best_loss = NAN;
    PSK_TEST_OK(write_step(501, 2, NOT_BEST));
    spare = psk_test_buffer(f.model->params.floats);
    PSK_TEST_OK(read_newest(f.model, spare, spare, &read));
    psk_test_free(spare);
    assert_true(isnan(read.best_loss));
}

static void layout(void **unused) {
    (void)unused;
    psk_model *loaded;
    PSK_TEST_OK(write_step(4, 2, BEST));
    PSK_TEST_OK(write_step(8, 2, NOT_BEST));
    assert_string_equal(names_in(path_in(f.output, "checkpoints")), "step-00000004 step-00000008 ");
    assert_string_equal(names_in(path_in(f.output, "last")),
                        "config.json model.safetensors optimizer.safetensors state.json ");
    assert_link(f.output, "last", "checkpoints/step-00000008");
    assert_link(f.output, "best", "checkpoints/step-00000004");
    PSK_TEST_OK(psk_model_config_write(path_in(f.output, "config.json"), &f.model->config));
    const char *const folders[] = {f.output, path_in(f.output, "last"), path_in(f.output, "best")};
    for (int i = 0; i < 3; i++) {
        PSK_TEST_OK(psk_model_load(f.device, folders[i], &loaded));
        assert_same_weights(f.model, loaded);
        psk_model_free(loaded);
    }
}

static void keeps_the_last_and_the_best(void **unused) {
    (void)unused;
    const char *folder = path_in(f.output, "checkpoints");
    char kept[1024];
    snprintf(kept, sizeof kept, "%s", folder);
    for (int64_t step = 1; step <= 6; step++)
        PSK_TEST_OK(write_step(step, 2, step == 2 ? BEST : NOT_BEST));
    assert_string_equal(names_in(kept), "step-00000002 step-00000005 step-00000006 ");
    PSK_TEST_OK(write_step(7, 2, BEST)); /* the old best may go */
    assert_string_equal(names_in(kept), "step-00000006 step-00000007 ");
    PSK_TEST_OK(write_step(8, 0, NOT_BEST)); /* none but the newest and the best */
    assert_string_equal(names_in(kept), "step-00000007 step-00000008 ");
    PSK_TEST_OK(write_step(99999999, 2, NOT_BEST)); /* nine digits are more than eight, not "1..." before "9..." */
    PSK_TEST_OK(write_step(100000000, 2, NOT_BEST));
    PSK_TEST_OK(write_step(100000001, 2, NOT_BEST));
    assert_string_equal(names_in(kept), "step-00000007 step-100000000 step-100000001 ");
    assert_newest(100000001);
}

/* A step that was written stays as it was written: a resumed run may save it again at once. */
static void same_step_again(void **unused) {
    (void)unused;
    struct stat before, after;
    PSK_TEST_OK(write_step(5, 2, NOT_BEST));
    assert_int_equal(stat(path_in(f.output, "last/state.json"), &before), 0);
    PSK_TEST_OK(write_step(5, 2, BEST));
    assert_int_equal(stat(path_in(f.output, "last/state.json"), &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_link(f.output, "best", "checkpoints/step-00000005");
}

/* A state from before it named the best step: the link does. */
static void best_of_an_old_run(void **unused) {
    (void)unused;
    psk_train_state read;
    float *const spare = psk_test_buffer(f.model->params.floats);
    PSK_TEST_OK(write_step(3, 2, NOT_BEST));
    PSK_TEST_OK(read_newest(f.model, spare, spare, &read));
    assert_int_equal(read.best_step, 0);
    PSK_TEST_OK(write_step(4, 2, BEST));
    state.best_step = 0;
    PSK_TEST_OK(write_step(8, 2, NOT_BEST));
    PSK_TEST_OK(read_newest(f.model, spare, spare, &read));
    assert_int_equal(read.best_step, 4);
    psk_test_free(spare);
}

static void newest_of_nothing(void **unused) {
    (void)unused;
    char *path;
    PSK_TEST_OK(psk_checkpoint_newest(f.output, &path));
    assert_null(path);
    PSK_TEST_OK(psk_checkpoint_newest(path_in(f.folder, "nowhere"), &path));
    assert_null(path);
}

/* -------------------------------------------------------------------------------------------------------- interrupted
 */

/* Kills a child process while it writes the checkpoint of a step: in the midst of the weights. */
static void die_writing(int64_t step) {
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        signal(SIGXFSZ, SIG_DFL);
        psk_test_limit_files(10000);
        write_step(step, 1, BEST);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ);
}

static void remains_of_a_crash(void **unused) {
    (void)unused;
    char folder[1024];
    snprintf(folder, sizeof folder, "%s/checkpoints", f.output);
    PSK_TEST_OK(write_step(4, 2, NOT_BEST));
    die_writing(8);
    assert_string_equal(names_in(folder), "incomplete-step-00000008 step-00000004 ");
    assert_newest(4);
    PSK_TEST_OK(psk_run_folder_prepare(f.output));
    assert_string_equal(names_in(folder), "step-00000004 ");
    assert_newest(4);
    die_writing(8);
    PSK_TEST_OK(write_step(8, 2, NOT_BEST)); /* also without tidying up first */
    assert_newest(8);
    assert_string_equal(names_in(path_in(f.output, "last")),
                        "config.json model.safetensors optimizer.safetensors state.json ");
}

static void full_disk(void **unused) {
    (void)unused;
    char weights[1024], folder[1024];
    struct stat facts;
    signal(SIGXFSZ, SIG_IGN);
    PSK_TEST_OK(write_step(4, 1, NOT_BEST));
    snprintf(weights, sizeof weights, "%s/last/model.safetensors", f.output);
    snprintf(folder, sizeof folder, "%s/checkpoints", f.output);
    assert_int_equal(stat(weights, &facts), 0);
    const rlim_t limits[] = {0, 100, (rlim_t)facts.st_size / 2, (rlim_t)facts.st_size - 1,
                             (rlim_t)facts.st_size + 1000 /* the weights fit, the moments do not */};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        psk_test_limit_files(limits[i]);
        const psk_status status = write_step(8, 1, BEST);
        psk_test_limit_files(RLIM_INFINITY);
        PSK_TEST_FAILS(status, PSK_ERROR_FILE, "checkpoint of step 8 was not written", "the ones before are whole");
        assert_string_equal(names_in(folder), "step-00000004 ");
        assert_link(f.output, "last", "checkpoints/step-00000004");
        assert_newest(4);
    }
    PSK_TEST_OK(write_step(8, 1, NOT_BEST));
    assert_newest(8);
}

/* ------------------------------------------------------------------------------------------------------------ refused
 */

static void without_optimizer(void **unused) {
    (void)unused;
    PSK_TEST_OK(write_step(4, 2, NOT_BEST));
    assert_int_equal(remove(path_in(f.output, "last/optimizer.safetensors")), 0);
    PSK_TEST_FAILS(read_status(), PSK_ERROR_FILE, "optimizer.safetensors", "weights only", "step-00000004");
}

static void damaged_files(void **unused) {
    (void)unused;
    const struct {
        const char *file, *text, *words;
        psk_status status;
    } cases[] = {
        {"state.json", "{", "not valid JSON", PSK_ERROR_FORMAT},
        {"state.json", "{\"version\": 2}", "version 2, expected 1", PSK_ERROR_FORMAT},
        {"state.json", "{\"version\": 1}", "\"step\" is missing", PSK_ERROR_FORMAT},
        {"state.json", "{\"version\": 1, \"step\": -4}", "step", PSK_ERROR_FORMAT},
        {"state.json",
         "{\"version\": 1, \"step\": 4, \"tokens\": 1, \"epoch\": 0, \"index\": 0, \"context\": 16, \"seed\": 5, "
         "\"data\": \"fedcba9876543210\", \"best_step\": 5}",
         "\"best_step\" is 5, expected an integer from 1 to 4", PSK_ERROR_FORMAT},
        {"model.safetensors", "short", "model.safetensors", PSK_ERROR_FORMAT},
        {"optimizer.safetensors", "", "optimizer.safetensors", PSK_ERROR_FORMAT},
        {"config.json", "{}", "config.json", PSK_ERROR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const int64_t step = (int64_t)i + 1;
        char path[1024];
        PSK_TEST_OK(write_step(step, 1, NOT_BEST));
        snprintf(path, sizeof path, "%s/last/%s", f.output, cases[i].file);
        PSK_TEST_OK(psk_write_file(path, cases[i].text, strlen(cases[i].text)));
        PSK_TEST_FAILS(read_status(), cases[i].status, cases[i].file, cases[i].words);
    }
}

/* Weights of another layer are not passed over: config.json would not be that of this model. */
static void foreign_weights(void **unused) {
    (void)unused;
    psk_model *deeper;
    psk_model_config config = f.model->config;
    config.n_layer++;
    PSK_TEST_OK(write_step(4, 2, NOT_BEST));
    PSK_TEST_OK(psk_model_create(f.device, &config, 1, &deeper));
    PSK_TEST_OK(psk_model_save(deeper, path_in(f.folder, "deeper")));
    psk_model_free(deeper);
    PSK_TEST_OK(psk_rename(path_in(f.folder, "deeper/model.safetensors"), path_in(f.output, "last/model.safetensors")));
    PSK_TEST_FAILS(read_status(), PSK_ERROR_FORMAT, "model.safetensors", "\"blocks.2.", "is unexpected");
}

static void other_run(void **unused) {
    (void)unused;
    PSK_TEST_OK(write_step(4, 2, NOT_BEST));
    const psk_train_state kept = state;
    state.seed = 6;
    PSK_TEST_FAILS(read_status(), PSK_ERROR_ARGUMENT, "seed 5", "say 6");
    state = kept;
    state.context = 32;
    PSK_TEST_FAILS(read_status(), PSK_ERROR_ARGUMENT, "context 16", "say 32");
    state = kept;
    state.data = 1;
    PSK_TEST_FAILS(read_status(), PSK_ERROR_ARGUMENT, "other data");
    state = kept;
    f.model->config.n_positions = 32;
    PSK_TEST_FAILS(read_status(), PSK_ERROR_ARGUMENT, "n_positions is 16 there and 32");
    f.model->config.n_positions = 16;
    assert_newest(4);
}

static psk_status write_and_read(void *unused) {
    (void)unused;
    char *path = NULL;
    json_t *found = NULL;
    psk_train_state read = state;
    psk_checkpoint c = checkpoint();
    PSK_TRY(psk_remove_tree(f.output));
    PSK_TRY(psk_run_folder_prepare(f.output));
    state.best_step = state.step;
    PSK_TRY(psk_checkpoint_write(&c, options, 1));
    PSK_TRY(psk_checkpoint_newest(f.output, &path));
    c.state = &read;
    const psk_status status = psk_checkpoint_read(path, &c, &found);
    json_decref(found);
    psk_free(path);
    return status;
}

static void out_of_memory(void **unused) {
    (void)unused;
    assert_true(psk_test_allocation_failures(write_and_read, NULL) > 50);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(round_trip),
        TEST(carries_the_tokenizer),
        TEST(layout),
        TEST(keeps_the_last_and_the_best),
        TEST(same_step_again),
        TEST(best_of_an_old_run),
        TEST(newest_of_nothing),
        TEST(remains_of_a_crash),
        TEST(full_disk),
        TEST(without_optimizer),
        TEST(damaged_files),
        TEST(foreign_weights),
        TEST(other_run),
        TEST(out_of_memory),
    };
    prefer_memory_folder();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
