/* A model folder: config.json and model.safetensors. */
#include "base/files.h"
#include "io/safetensors.h"
#include "model/model.h"

#include <string.h>

#define PSK_CONFIG_FILE  "config.json"
#define PSK_WEIGHTS_FILE "model.safetensors"

/* path = "folder/name", then use(path, argument). */
static psk_status with_path(const char *folder, const char *name, psk_status (*use)(const char *path, void *argument),
                            void *argument) {
    char *path;
    PSK_TRY(psk_join_path(folder, name, &path));
    const psk_status status = use(path, argument);
    psk_free(path);
    return status;
}

/* -------------------------------------------------------------------------------------------------------------- save
 */

static psk_status write_config(const char *path, void *argument) {
    return psk_model_config_write(path, &((const psk_model *)argument)->config);
}

/* "format": the layout of Linear weights, [out, in], by the name that other readers of model folders look for. */
static psk_status write_sources(const char *path, const psk_tensor_source *sources, int64_t count) {
    psk_json_init();
    json_t *metadata = json_object();
    if (metadata == NULL)
        return psk_fail(PSK_ERROR_MEMORY, "out of memory for the metadata of %s", path);
    psk_status status = psk_json_set(metadata, "format", json_string("pt"));
    if (status == PSK_OK)
        status = psk_safetensors_write(path, sources, count, metadata);
    json_decref(metadata);
    return status;
}

static psk_status write_weights(const char *path, void *argument) {
    const psk_model *model = argument;
    const int64_t count = model->params.count;
    psk_tensor_source *sources;
    PSK_TRY(psk_alloc_zero((size_t)count * sizeof *sources, "the list of tensors to write", (void **)&sources));
    for (int64_t i = 0; i < count; i++) {
        const psk_param *param = &model->params.list[i];
        sources[i] = (psk_tensor_source){.name = param->name,
                                         .dtype = PSK_F32,
                                         .dims = param->dims,
                                         .shape = {param->shape[0], param->shape[1]},
                                         .data = model->weights + param->offset};
    }
    const psk_status status = write_sources(path, sources, count);
    psk_free(sources);
    return status;
}

psk_status psk_model_save(const psk_model *model, const char *folder) {
    void *argument = (void *)(uintptr_t)model; /* both writers only read it */
    PSK_TRY(psk_make_folders(folder));
    PSK_TRY(with_path(folder, PSK_WEIGHTS_FILE, write_weights, argument));
    return with_path(folder, PSK_CONFIG_FILE, write_config, argument);
}

/* -------------------------------------------------------------------------------------------------------------- load
 */

static psk_status check_names(const psk_params *params, const psk_safetensors *file) {
    for (int64_t i = 0; i < psk_safetensors_count(file); i++) {
        const char *name = psk_safetensors_at(file, i)->name;
        if (psk_params_find(params, name) == NULL)
            return psk_fail(PSK_ERROR_FORMAT,
                            "%s: tensor \"%s\" is unexpected: the model that config.json describes has none of this "
                            "name; check attention, sketch, local, far_gain, qk_norm and n_layer there",
                            psk_safetensors_path(file), name);
    }
    return PSK_OK;
}

static psk_status read_tensors(psk_model *model, const psk_safetensors *file) {
    PSK_TRY(check_names(&model->params, file));
    for (int64_t i = 0; i < model->params.count; i++) {
        const psk_param *param = &model->params.list[i];
        PSK_TRY(
            psk_safetensors_read_floats(file, param->name, param->dims, param->shape, model->weights + param->offset));
    }
    return PSK_OK;
}

psk_status psk_model_read_weights(psk_model *model, const char *path) {
    psk_safetensors *file;
    PSK_TRY(psk_safetensors_open(path, &file));
    const psk_status status = read_tensors(model, file);
    psk_safetensors_close(file);
    return status;
}

static psk_status read_weights(const char *path, void *argument) {
    return psk_model_read_weights(argument, path);
}

static psk_status read_config(const char *path, void *argument) {
    return psk_model_config_read(path, argument);
}

psk_status psk_model_load(psk_device *device, const char *folder, psk_model **out) {
    *out = NULL;
    psk_model_config config;
    psk_model *model;
    PSK_TRY(with_path(folder, PSK_CONFIG_FILE, read_config, &config));
    PSK_TRY(psk_model_create_empty(device, &config, &model));
    const psk_status status = with_path(folder, PSK_WEIGHTS_FILE, read_weights, model);
    if (status != PSK_OK) {
        psk_model_free(model);
        return status;
    }
    *out = model;
    return PSK_OK;
}
