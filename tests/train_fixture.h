/* A fixture for each test of whole runs, and a callback that stops, damages and watches one. */
#ifndef PSK_TESTS_TRAIN_FIXTURE_H
#define PSK_TESTS_TRAIN_FIXTURE_H

#include "train_support.h"

static fixture f;

static inline int set_up(void **unused) {
    (void)unused;
    fixture_begin(&f, "cpu");
    small_data(&f, 3, 1000, 0.1);
    return 0;
}

static inline int tear_down(void **unused) {
    (void)unused;
    fixture_end(&f);
    return 0;
}

/* A model as fixture_begin makes it: a new process would start so. */
static inline psk_model *new_model(const fixture *with) {
    psk_model *model;
    PSK_TEST_OK(psk_model_create(with->device, &with->model->config, 11, &model));
    return model;
}

/* A callback that stops at a step, or damages a weight after one, and keeps what it saw. */
typedef struct watcher {
    int64_t stop_at, damage_at;
    psk_model *model;
    int64_t calls, evaluations;
    psk_train_progress last;
    double least; /* validation loss, and its step */
    int64_t least_step;
    char notes[4096];
} watcher;

static inline int watch(void *user, const psk_train_progress *progress) {
    watcher *w = user;
    w->calls++;
    w->evaluations += isfinite(progress->valid_loss) && !progress->note;
    w->last = *progress;
    if (isfinite(progress->valid_loss) && !(w->least_step && w->least <= progress->valid_loss)) {
        w->least = progress->valid_loss;
        w->least_step = progress->step;
    }
    if (progress->note)
        snprintf(w->notes + strlen(w->notes), sizeof w->notes - strlen(w->notes), "%s\n", progress->note);
    if (w->damage_at && progress->step == w->damage_at)
        w->model->weights[psk_params_find(&w->model->params, "blocks.1.mlp.up.weight")->offset + 3] = NAN;
    return w->stop_at && progress->step == w->stop_at;
}

/* From the options in a file of the run: the whole of it, or its member "options". */
static inline void remove_option(const char *file, const char *name) {
    json_error_t error;
    const char *path = path_in(f.output, file);
    json_t *object = json_load_file(path, 0, &error), *options = json_object_get(object, "options");
    assert_non_null(object);
    assert_int_equal(json_object_del(options ? options : object, name), 0);
    assert_int_equal(json_dump_file(object, path, 0), 0);
    json_decref(object);
}

#endif
