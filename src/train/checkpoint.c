#include "train/checkpoint.h"

#include "base/files.h"
#include "io/safetensors.h"
#include "model/config.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VERSION          1
#define CHECKPOINTS      "checkpoints"
#define PREFIX           "step-"
#define INCOMPLETE       "incomplete-"
#define NAME_SIZE        64                   /* "incomplete-step-00000500" */
#define SPARE_SPACE      ((uint64_t)16 << 20) /* bytes: headers, JSON, metrics of the next steps */
#define TENSOR_NAME_SIZE 72                   /* "m." and the name of a parameter */

static psk_status join3(const char *a, const char *b, const char *c, char **out) {
    char *ab;
    PSK_TRY(psk_join_path(a, b, &ab));
    const psk_status status = psk_join_path(ab, c, out);
    psk_free(ab);
    return status;
}

/* ------------------------------------------------------------------------------------------------------- run folder
 */

/* The step of a checkpoint's folder name, -1 if it is none. */
static int64_t step_of(const char *name) {
    char *end;
    if (strncmp(name, PREFIX, strlen(PREFIX)) != 0 || name[strlen(PREFIX)] < '0' || name[strlen(PREFIX)] > '9')
        return -1;
    errno = 0;
    const long long step = strtoll(name + strlen(PREFIX), &end, 10);
    return *end || errno ? -1 : step;
}

psk_status psk_run_folder_prepare(const char *output) {
    psk_status status;
    char *folder, **names = NULL;
    int64_t count = 0;
    PSK_TRY(psk_join_path(output, CHECKPOINTS, &folder));
    PSK_TRY_GOTO(status, psk_make_folders(folder), done);
    PSK_TRY_GOTO(status, psk_list_folder(folder, &names, &count), done);
    for (int64_t i = 0; i < count && status == PSK_OK; i++) {
        char *path;
        if (strncmp(names[i], INCOMPLETE, strlen(INCOMPLETE)) != 0)
            continue;
        PSK_TRY_GOTO(status, psk_join_path(folder, names[i], &path), done);
        status = psk_remove_tree(path);
        psk_free(path);
    }
done:
    psk_free_names(names, count);
    psk_free(folder);
    return status;
}

/* Steps of the checkpoints in the folder, ascending; released by psk_free. */
static int compare_steps(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static psk_status list_steps(const char *output, int64_t **steps, int64_t *count) {
    psk_status status = PSK_OK;
    char *folder, **names = NULL;
    int64_t entries = 0;
    *steps = NULL;
    *count = 0;
    PSK_TRY(psk_join_path(output, CHECKPOINTS, &folder));
    if (!psk_is_folder(folder))
        goto done;
    PSK_TRY_GOTO(status, psk_list_folder(folder, &names, &entries), done);
    PSK_TRY_GOTO(status, psk_alloc((size_t)entries * sizeof **steps, "list of checkpoints", (void **)steps), done);
    for (int64_t i = 0; i < entries; i++)
        if (step_of(names[i]) >= 0)
            (*steps)[(*count)++] = step_of(names[i]);
    if (*count)
        qsort(*steps, (size_t)*count, sizeof **steps, compare_steps);
done:
    psk_free_names(names, entries);
    psk_free(folder);
    return status;
}

static void step_name(int64_t step, char name[NAME_SIZE]) {
    snprintf(name, NAME_SIZE, PREFIX "%08" PRId64, step);
}

psk_status psk_checkpoint_newest(const char *output, char **path) {
    psk_status status = PSK_OK;
    int64_t *steps, count;
    char name[NAME_SIZE];
    *path = NULL;
    PSK_TRY(list_steps(output, &steps, &count));
    if (count) {
        step_name(steps[count - 1], name);
        status = join3(output, CHECKPOINTS, name, path);
    }
    psk_free(steps);
    return status;
}

/* OUTPUT/link -> target, replaced in one step. */
static psk_status point_link(const char *output, const char *link, const char *target) {
    psk_status status;
    char fresh_name[NAME_SIZE];
    char *path = NULL, *fresh = NULL;
    snprintf(fresh_name, sizeof fresh_name, ".%s.new", link);
    PSK_TRY_GOTO(status, psk_join_path(output, link, &path), done);
    PSK_TRY_GOTO(status, psk_join_path(output, fresh_name, &fresh), done);
    unlink(fresh); /* left by a crash */
    if (symlink(target, fresh) != 0)
        status = psk_file_error(fresh, "create the link");
    else
        status = psk_rename(fresh, path);
done:
    psk_free(path);
    psk_free(fresh);
    return status;
}

/* OUTPUT/link -> checkpoints/step-..., if that is there. */
static psk_status point_to_step(const char *output, const char *link, int64_t step) {
    char name[NAME_SIZE], target[NAME_SIZE + sizeof CHECKPOINTS], *folder;
    step_name(step, name);
    snprintf(target, sizeof target, CHECKPOINTS "/%s", name);
    PSK_TRY(psk_join_path(output, target, &folder));
    const psk_status status = psk_is_folder(folder) ? point_link(output, link, target) : PSK_OK;
    psk_free(folder);
    return status;
}

psk_status psk_checkpoint_link(const psk_checkpoint *checkpoint) {
    const psk_train_state *state = checkpoint->state;
    PSK_TRY(point_to_step(checkpoint->output, "last", state->step));
    PSK_TRY(point_link(checkpoint->output, "model.safetensors", "last/model.safetensors"));
    return state->best_step ? point_to_step(checkpoint->output, "best", state->best_step) : PSK_OK;
}

/* *step that OUTPUT/best points to, 0 if there is no such link. */
static psk_status linked_best_step(const char *output, int64_t *step) {
    char *path, target[NAME_SIZE + sizeof CHECKPOINTS];
    PSK_TRY(psk_join_path(output, "best", &path));
    const ssize_t size = readlink(path, target, sizeof target - 1);
    psk_free(path);
    target[size < 0 ? 0 : size] = 0;
    const int64_t found = size < (ssize_t)sizeof CHECKPOINTS ? 0 : step_of(target + sizeof CHECKPOINTS);
    *step = found > 0 ? found : 0; /* -1: not after "checkpoints/" */
    return PSK_OK;
}

static psk_status prune(const psk_checkpoint *checkpoint, int64_t keep_last) {
    psk_status status = PSK_OK;
    int64_t *steps, count;
    const int64_t keep = keep_last > 1 ? keep_last : 1;
    PSK_TRY(list_steps(checkpoint->output, &steps, &count));
    for (int64_t i = 0; i < count - keep && status == PSK_OK; i++) {
        char name[NAME_SIZE], *path;
        if (steps[i] == checkpoint->state->best_step)
            continue;
        step_name(steps[i], name);
        PSK_TRY_GOTO(status, join3(checkpoint->output, CHECKPOINTS, name, &path), done);
        status = psk_remove_tree(path);
        psk_free(path);
    }
done:
    psk_free(steps);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------ tensors
 */

/* optimizer.safetensors: m.NAME and v.NAME of every trained parameter, of its shape. */
static psk_status write_optimizer(const psk_checkpoint *checkpoint, const char *path) {
    psk_status status;
    const psk_params *params = &checkpoint->model->params;
    psk_tensor_source *tensors = NULL;
    char(*names)[TENSOR_NAME_SIZE] = NULL;
    int64_t count = 0;
    PSK_TRY_GOTO(status, psk_alloc((size_t)params->count * 2 * sizeof *tensors, "tensor list", (void **)&tensors),
                 done);
    PSK_TRY_GOTO(status, psk_alloc((size_t)params->count * 2 * sizeof *names, "tensor names", (void **)&names), done);
    for (int64_t i = 0; i < 2 * params->count; i++) {
        const psk_param *param = &params->list[i % params->count];
        const bool first = i < params->count;
        if (!param->trained)
            continue;
        snprintf(names[count], sizeof names[count], "%c.%s", first ? 'm' : 'v', param->name);
        tensors[count] = (psk_tensor_source){.name = names[count],
                                             .dtype = PSK_F32,
                                             .dims = param->dims,
                                             .shape = {param->shape[0], param->shape[1]},
                                             .data = (first ? checkpoint->m : checkpoint->v) + param->offset};
        count++;
    }
    status = psk_safetensors_write(path, tensors, count, NULL);
done:
    psk_free(tensors);
    psk_free(names);
    return status;
}

static psk_status read_optimizer(const psk_checkpoint *checkpoint, const char *path) {
    psk_status status = PSK_OK;
    const psk_params *params = &checkpoint->model->params;
    psk_safetensors *file;
    if (!psk_is_file(path))
        return psk_fail(PSK_ERROR_FILE,
                        "%s is missing: this checkpoint holds weights only, and training cannot continue from it; "
                        "remove its folder to resume from the one before, or start a new run from its weights",
                        path);
    PSK_TRY(psk_safetensors_open(path, &file));
    for (int64_t i = 0; i < 2 * params->count && status == PSK_OK; i++) {
        const psk_param *param = &params->list[i % params->count];
        const bool first = i < params->count;
        char name[TENSOR_NAME_SIZE];
        if (!param->trained)
            continue;
        snprintf(name, sizeof name, "%c.%s", first ? 'm' : 'v', param->name);
        status = psk_safetensors_read_floats(file, name, param->dims, param->shape,
                                             (first ? checkpoint->m : checkpoint->v) + param->offset);
    }
    psk_safetensors_close(file);
    return status;
}

/* -------------------------------------------------------------------------------------------------------------- state
 */

/* Whole numbers of state.json: key, field, least value. */
#define STATE_NUMBERS(X)                                                                                               \
    X(step, step, 0)                                                                                                   \
    X(tokens, tokens, 0)                                                                                               \
    X(epoch, cursor.epoch, 0)                                                                                          \
    X(index, cursor.index, 0)                                                                                          \
    X(context, context, 1)

static psk_status state_to_json(const psk_train_state *state, const json_t *options, json_t *object) {
    char data[24];
    snprintf(data, sizeof data, "%016" PRIx64, state->data);
    PSK_TRY(psk_json_set(object, "version", json_integer(VERSION)));
#define NUMBER(key, field, low) PSK_TRY(psk_json_set(object, #key, json_integer(state->field)));
    STATE_NUMBERS(NUMBER)
#undef NUMBER
    PSK_TRY(psk_json_set(object, "seed", json_integer((json_int_t)state->seed)));
    PSK_TRY(psk_json_set(object, "data", json_string(data)));
    PSK_TRY(psk_json_set(object, "seconds", json_real(state->seconds)));
    if (isfinite(state->best_loss))
        PSK_TRY(psk_json_set(object, "best_valid_loss", json_real(state->best_loss)));
    if (state->best_step)
        PSK_TRY(psk_json_set(object, "best_step", json_integer(state->best_step)));
    return psk_json_set(object, "options", json_incref((json_t *)(uintptr_t)options));
}

static psk_status write_state(const psk_checkpoint *checkpoint, const json_t *options, const char *path) {
    psk_json_init();
    json_t *object = json_object();
    if (!object)
        return psk_fail(PSK_ERROR_MEMORY, "out of memory for %s", path);
    psk_status status = state_to_json(checkpoint->state, options, object);
    if (status == PSK_OK)
        status = psk_json_save(path, object);
    json_decref(object);
    return status;
}

static psk_status required_int(const json_t *object, const char *where, const char *key, int64_t low, int64_t *value) {
    if (!json_object_get(object, key))
        return psk_fail(PSK_ERROR_FORMAT, "%s: \"%s\" is missing", where, key);
    return psk_json_int(object, where, key, low, INT64_MAX, value);
}

/* What decides the order of the data has to be as it was, or the cursor would mean something else. */
static psk_status state_must_agree(const psk_train_state *found, const psk_train_state *own, const char *path) {
    if (found->seed != own->seed)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "%s: the run has seed %" PRIu64 ", the options say %" PRIu64 ": resume with the run's own",
                        path, found->seed, own->seed);
    if (found->context != own->context)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "%s: the run has context %" PRId64 ", the options say %" PRId64 ": resume with the run's own",
                        path, found->context, own->context);
    if (found->data != own->data)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "%s: the run was trained on other data (fingerprint %016" PRIx64 ", now %016" PRIx64
                        "): resume with the run's own",
                        path, found->data, own->data);
    return PSK_OK;
}

static psk_status state_from_json(const json_t *object, const char *path, psk_train_state *state) {
    psk_train_state found = {.best_loss = NAN, .seconds = 0};
    int64_t version = 0, seed = 0;
    const char *data = "";
    char *end;
    PSK_TRY(required_int(object, path, "version", 0, &version));
    if (version != VERSION)
        return psk_fail(PSK_ERROR_FORMAT, "%s: version %" PRId64 ", expected %d", path, version, VERSION);
#define NUMBER(key, field, low) PSK_TRY(required_int(object, path, #key, low, &found.field));
    STATE_NUMBERS(NUMBER)
#undef NUMBER
    PSK_TRY(required_int(object, path, "seed", 0, &seed));
    found.seed = (uint64_t)seed;
    PSK_TRY(psk_json_string(object, path, "data", &data));
    found.data = strtoull(data, &end, 16);
    if (strlen(data) != 16 || *end)
        return psk_fail(PSK_ERROR_FORMAT, "%s: \"data\" is \"%s\", expected 16 hexadecimal digits", path, data);
    PSK_TRY(psk_json_double(object, path, "seconds", 0, 1e300, &found.seconds));
    PSK_TRY(psk_json_double(object, path, "best_valid_loss", -1e300, 1e300, &found.best_loss));
    PSK_TRY(psk_json_int(object, path, "best_step", 1, found.step, &found.best_step));
    PSK_TRY(state_must_agree(&found, state, path));
    *state = found;
    return PSK_OK;
}

static psk_status read_state(const psk_checkpoint *checkpoint, const char *path, json_t **options) {
    json_t *object;
    PSK_TRY(psk_json_load(path, &object));
    psk_status status = state_from_json(object, path, checkpoint->state);
    if (status == PSK_OK && !checkpoint->state->best_step)
        status = linked_best_step(checkpoint->output, &checkpoint->state->best_step);
    json_t *found = json_object_get(object, "options");
    if (status == PSK_OK && !json_is_object(found))
        status = psk_fail(PSK_ERROR_FORMAT, "%s: \"options\" is missing or not an object", path);
    if (status == PSK_OK)
        *options = json_incref(found);
    json_decref(object);
    return status;
}

psk_status psk_config_must_agree(const char *path, const psk_model_config *config) {
    psk_status status;
    psk_model_config found;
    json_t *was = NULL, *is = NULL, *value;
    const char *key;
    PSK_TRY(psk_model_config_read(path, &found));
    PSK_TRY_GOTO(status, psk_config_to_json(&found, &was), done);
    PSK_TRY_GOTO(status, psk_config_to_json(config, &is), done);
    json_object_foreach(is, key, value) {
        json_t *other = json_object_get(was, key);
        if (other && json_equal(value, other))
            continue;
        char *now = json_dumps(value, JSON_ENCODE_ANY), *before = other ? json_dumps(other, JSON_ENCODE_ANY) : NULL;
        status = psk_fail(PSK_ERROR_ARGUMENT, "%s: %s is %s there and %s in the model that is to be trained", path, key,
                          before ? before : "missing", now ? now : "(out of memory)");
        free(now);
        free(before);
        break;
    }
done:
    json_decref(was);
    json_decref(is);
    return status;
}

/* ---------------------------------------------------------------------------------------------------------- checkpoint
 */

/* All files of a checkpoint. */
typedef psk_status (*file_action)(const psk_checkpoint *checkpoint, const char *path);

static psk_status in_folder(const char *folder, const char *name, const psk_checkpoint *checkpoint,
                            file_action action) {
    char *path;
    PSK_TRY(psk_join_path(folder, name, &path));
    const psk_status status = action(checkpoint, path);
    psk_free(path);
    return status;
}

static psk_status check_config(const psk_checkpoint *checkpoint, const char *path) {
    return psk_config_must_agree(path, &checkpoint->model->config);
}

static psk_status read_weights(const psk_checkpoint *checkpoint, const char *path) {
    return psk_model_read_weights(checkpoint->model, path);
}

psk_status psk_checkpoint_read(const char *path, const psk_checkpoint *checkpoint, json_t **options) {
    char *state;
    *options = NULL;
    PSK_TRY(in_folder(path, "config.json", checkpoint, check_config));
    PSK_TRY(in_folder(path, "model.safetensors", checkpoint, read_weights));
    PSK_TRY(in_folder(path, "optimizer.safetensors", checkpoint, read_optimizer));
    PSK_TRY(psk_join_path(path, "state.json", &state));
    const psk_status status = read_state(checkpoint, state, options);
    psk_free(state);
    return status;
}

static psk_status check_space(const psk_checkpoint *checkpoint) {
    uint64_t free_bytes;
    const uint64_t needed = (uint64_t)checkpoint->model->params.floats * 3 * sizeof(float) + SPARE_SPACE;
    PSK_TRY(psk_free_space(checkpoint->output, &free_bytes));
    if (free_bytes >= needed)
        return PSK_OK;
    return psk_fail(PSK_ERROR_FILE, "%s has %.1f MiB free, a checkpoint needs %.1f MiB: free some space",
                    checkpoint->output, (double)free_bytes / 0x1p20, (double)needed / 0x1p20);
}

static psk_status write_files(const psk_checkpoint *checkpoint, const json_t *options, const char *folder) {
    char *state;
    PSK_TRY(psk_remove_tree(folder)); /* left by a crash */
    PSK_TRY(psk_make_folders(folder));
    PSK_TRY(psk_model_save(checkpoint->model, folder));
    if (checkpoint->tokenizer)
        PSK_TRY(psk_tokenizer_save(checkpoint->tokenizer, folder));
    PSK_TRY(in_folder(folder, "optimizer.safetensors", checkpoint, write_optimizer));
    PSK_TRY(psk_join_path(folder, "state.json", &state));
    const psk_status status = write_state(checkpoint, options, state);
    psk_free(state);
    return status;
}

static psk_status write_folder(const psk_checkpoint *checkpoint, const json_t *options, const char *name) {
    psk_status status;
    char *folder = NULL, *fresh = NULL, fresh_name[NAME_SIZE];
    snprintf(fresh_name, sizeof fresh_name, INCOMPLETE "%.40s", name);
    PSK_TRY_GOTO(status, join3(checkpoint->output, CHECKPOINTS, name, &folder), done);
    if (psk_is_folder(folder)) /* of this very step, for instance the one resumed from */
        goto done;
    PSK_TRY_GOTO(status, join3(checkpoint->output, CHECKPOINTS, fresh_name, &fresh), done);
    PSK_TRY_GOTO(status, check_space(checkpoint), done);
    status = write_files(checkpoint, options, fresh);
    if (status == PSK_OK)
        status = psk_rename(fresh, folder);
    else
        psk_remove_tree(fresh);
done:
    psk_free(folder);
    psk_free(fresh);
    return status;
}

psk_status psk_checkpoint_write(const psk_checkpoint *checkpoint, const json_t *options, int64_t keep_last) {
    char name[NAME_SIZE];
    step_name(checkpoint->state->step, name);
    const psk_status status = write_folder(checkpoint, options, name);
    if (status != PSK_OK)
        return psk_fail_within(status, "the checkpoint of step %" PRId64 " was not written, the ones before are whole",
                               checkpoint->state->step);
    PSK_TRY(psk_checkpoint_link(checkpoint));
    return prune(checkpoint, keep_last);
}
