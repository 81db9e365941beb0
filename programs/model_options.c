#include "model_options.h"

#include "terminal.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

/* The loops below rely on it: psk_*_name gives NULL past the last. */
#define FILL_NAMES(list, type, name_of)                                                                                \
    for (int i = 0; i < 15 && !(list).names[i] && name_of((type)i); i++)                                               \
    (list).names[i] = name_of((type)i)

const name_list *mechanism_names(void) {
    static name_list list;
    FILL_NAMES(list, psk_mechanism, psk_mechanism_name);
    return &list;
}

const name_list *sketch_names(void) {
    static name_list list;
    FILL_NAMES(list, psk_sketch, psk_sketch_name);
    return &list;
}

const name_list *local_names(void) {
    static name_list list;
    FILL_NAMES(list, psk_local, psk_local_name);
    return &list;
}

model_options model_options_none(void) {
    return (model_options){.attention = -1,
                           .sketch = -1,
                           .local = -1,
                           .far_gain = -1,
                           .qk_norm = -1,
                           .far_scale = NAN,
                           .denominator_bias = NAN,
                           .position_scale = NAN};
}

option_group model_option_group(model_options *model, command_option table[MODEL_OPTION_CAPACITY]) {
    static char presets[256];
    int used = snprintf(presets, sizeof presets, "a named starting point");
    for (int64_t i = 0; psk_model_preset_name(i); i++)
        used +=
            snprintf(presets + used, sizeof presets - (size_t)used, "%s%s", i ? ", " : ": ", psk_model_preset_name(i));
    const char *const preset = "the preset's";
    const command_option options[] = {
        {"preset", OPTION_TEXT, "NAME", presets, &model->preset, .fallback = DEFAULT_PRESET},
        {"layers", OPTION_COUNT, "N", "layers", &model->layers, .low = 1, .high = 4096, .fallback = preset},
        {"heads", OPTION_COUNT, "N", "heads a layer", &model->heads, .low = 1, .high = 4096, .fallback = preset},
        {"kv-heads", OPTION_COUNT, "N", "key/value heads, a divisor of --heads", &model->kv_heads, .low = 1,
         .high = 4096, .fallback = "as many as heads"},
        {"width", OPTION_COUNT, "N", "width of the model, a multiple of --heads", &model->width, .low = 1,
         .high = 131072, .fallback = preset},
        {"attention", OPTION_CHOICE, NULL, "mechanism", &model->attention, .names = mechanism_names()->names,
         .fallback = preset},
        {"sketch", OPTION_CHOICE, NULL, "polysketch: how q and k are sketched", &model->sketch,
         .names = sketch_names()->names, .fallback = preset},
        {"local", OPTION_CHOICE, NULL, "polysketch: keys seen exactly; softmax, polynomial: the only keys seen",
         &model->local, .names = local_names()->names, .fallback = "the preset's; softmax, polynomial: all keys"},
        {"degree", OPTION_COUNT, "N", "degree of the polynomial, even", &model->degree, .low = 2, .high = 64,
         .fallback = preset},
        {"sketch-size", OPTION_COUNT, "N", "numbers in a sketch; features of performer", &model->sketch_size, .low = 1,
         .high = 4096, .fallback = preset},
        {"block-size", OPTION_LENGTH, NULL, "tokens in a block of the local part", &model->block_size, .low = 1,
         .high = 1 << 24, .fallback = preset},
        {"far-scale", OPTION_REAL, NULL, "factor on sketched weights", &model->far_scale, .low = 0, .high = 1e6,
         .fallback = "what suits the sketch"},
        {"far-gain", OPTION_FLAG, NULL, "polysketch: each head learns how loud its sketched weights are",
         .target = &model->far_gain},
        {"qk-norm", OPTION_FLAG, NULL, "softmax: of LayerNormed q and k, as polynomial attention is",
         .target = &model->qk_norm},
        {"position-scale", OPTION_REAL, NULL, "factor on sinusoidal positions; 0: RoPE alone, 1: the paper's",
         &model->position_scale, .low = 0, .high = 1e6, .fallback = preset},
        {"denominator-bias", OPTION_REAL, NULL, "added to the sum of weights", &model->denominator_bias, .low = 0,
         .high = 1e6, .fallback = preset},
    };
    const size_t count = sizeof options / sizeof options[0];
    for (size_t i = 0; i < count; i++)
        table[i] = options[i];
    return (option_group){"Model", table, count};
}

bool sees_pairs(const psk_attention_config *attention) {
    return attention->mechanism == PSK_SOFTMAX || attention->mechanism == PSK_POLYNOMIAL;
}

static void override(int64_t *field, int64_t value) {
    if (value != 0)
        *field = value;
}

void model_options_apply(const model_options *model, psk_model_config *config) {
    psk_attention_config *const attention = &config->attention;
    override(&config->n_layer, model->layers);
    override(&config->n_head, model->heads);
    override(&config->n_kv_head, model->kv_heads);
    override(&config->n_embd, model->width);
    override(&attention->degree, model->degree);
    override(&attention->sketch_size, model->sketch_size);
    override(&attention->block_size, model->block_size);
    if (model->attention >= 0)
        attention->mechanism = (psk_mechanism)model->attention;
    if (model->sketch >= 0)
        attention->sketch = (psk_sketch)model->sketch;
    if (model->local >= 0)
        attention->local = (psk_local)model->local;
    if (model->local >= 0 || !sees_pairs(attention))
        attention->local_only = sees_pairs(attention) && attention->local != PSK_LOCAL_NONE;
    if (model->far_gain >= 0)
        config->far_gain = model->far_gain;
    if (model->qk_norm >= 0)
        config->qk_norm = model->qk_norm;
    if (!isnan(model->position_scale))
        config->position_scale = (float)model->position_scale;
    if (!isnan(model->denominator_bias))
        attention->denominator_bias = (float)model->denominator_bias;
    if (!isnan(model->far_scale))
        attention->far_scale = (float)model->far_scale;
}

psk_status model_options_config(const model_options *model, psk_model_config *config) {
    const psk_status status = psk_model_config_preset(model->preset ? model->preset : DEFAULT_PRESET, config);
    if (status != PSK_OK)
        return status;
    override(&config->n_positions, model->context);
    model_options_apply(model, config);
    const psk_status checked = psk_model_config_check(config);
    if (checked == PSK_OK && isnan(model->far_scale))
        config->attention.far_scale = psk_default_far_scale(config);
    return checked;
}

const char *attention_label(char *text, const psk_attention_config *attention) {
    const char *const mechanism = psk_mechanism_name(attention->mechanism);
    if (attention->mechanism == PSK_POLYSKETCH)
        snprintf(text, ATTENTION_LABEL_CAPACITY, "%s, %s, %s", mechanism, psk_sketch_name(attention->sketch),
                 attention->local == PSK_LOCAL_NONE ? "no local part" : psk_local_name(attention->local));
    else if (attention->local_only)
        snprintf(text, ATTENTION_LABEL_CAPACITY, "%s, %s", mechanism, psk_local_name(attention->local));
    else
        snprintf(text, ATTENTION_LABEL_CAPACITY, "%s", mechanism);
    return text;
}

const char *attention_local(const psk_attention_config *attention) {
    const bool chosen = attention->mechanism == PSK_POLYSKETCH || attention->local_only;
    return chosen ? psk_local_name(attention->local) : NULL;
}

static const char *const device_names[] = {"auto", "cpu", "reference", NULL};
static const char *const precision_names[] = {[PSK_PRECISION_F32] = "float32", [PSK_PRECISION_BF16] = "bfloat16", NULL};

device_options device_options_default(void) {
    return (device_options){.device = 0, .threads = 0};
}

option_group device_option_group(device_options *device, command_option table[DEVICE_OPTION_COUNT]) {
    table[0] =
        (command_option){"device", OPTION_CHOICE, NULL, "where to compute", &device->device, .names = device_names};
    table[1] = (command_option){"threads",        OPTION_COUNT, "N",          "threads of the CPU",
                                &device->threads, .low = 1,     .high = 1024, .fallback = "all"};
    table[2] = (command_option){"precision",        OPTION_CHOICE,           NULL, "of products; sums stay float32",
                                &device->precision, .names = precision_names};
    return (option_group){"Device", table, DEVICE_OPTION_COUNT};
}

psk_status device_options_create(const device_options *device, psk_device **out) {
    psk_status status = psk_device_create(device_names[device->device], (int)device->threads, out);
    if (status == PSK_OK)
        status = psk_device_set_precision(*out, (psk_precision)device->precision);
    return status;
}

bool path_join(char path[PATH_CAPACITY], const char *folder, const char *name) {
    const int length = snprintf(path, PATH_CAPACITY, "%s/%s", folder, name);
    return length > 0 && length < PATH_CAPACITY;
}

bool path_exists(const char *path) {
    return access(path, F_OK) == 0;
}

const char *model_folder(const char *folder, char path[PATH_CAPACITY]) {
    static const char *const places[] = {"best", "last"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (path_join(path, folder, places[i]) && path_exists(path))
            return path;
    return folder;
}

const char *find_model(const char *command, const char *folder, char path[PATH_CAPACITY]) {
    char config[PATH_CAPACITY];
    const char *const found = model_folder(folder, path);
    if (path_join(config, found, "config.json") && path_exists(config))
        return found;
    if (!path_exists(folder))
        say_error(command, "--model: %s is not there", folder);
    else if (path_join(config, folder, ".") && path_exists(config))
        say_error(command, "--model: %s is not a model folder, for it has no config.json", found);
    else
        say_error(command, "--model: %s is a file: give the folder of a model, or that of a run", folder);
    return NULL;
}
