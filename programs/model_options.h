/* Options that several commands share: the model's, the device's. */
#ifndef MODEL_OPTIONS_H
#define MODEL_OPTIONS_H

#include "options.h"

/* What the user said of the model; sizes 0, choices and flags -1 and numbers NaN where nothing was said. */
typedef struct model_options {
    const char *preset;
    int64_t layers, heads, kv_heads, width, degree, sketch_size, block_size;
    int64_t context; /* of training, for new models; no option of this group */
    int attention, sketch, local, far_gain, qk_norm;
    double far_scale, denominator_bias, position_scale;
} model_options;

model_options model_options_none(void);

/* The options of `model`, which must outlive the table; at most MODEL_OPTION_CAPACITY of them. */
#define MODEL_OPTION_CAPACITY 16
option_group model_option_group(model_options *model, command_option table[MODEL_OPTION_CAPACITY]);

/* Changes what the user named. Softmax and polynomial see all keys until a local part is named. */
void model_options_apply(const model_options *model, psk_model_config *config);

/* The preset (DEFAULT_PRESET if none was named) with the changes, checked; far_scale suits them unless it was named. */
#define DEFAULT_PRESET "mini"
psk_status model_options_config(const model_options *model, psk_model_config *config);

/* Names in the order of the enums, ending with NULL. */
typedef struct name_list {
    const char *names[16];
} name_list;
const name_list *mechanism_names(void);
const name_list *sketch_names(void);
const name_list *local_names(void);

/* "polysketch, learned_linear, window", "softmax, window": the mechanism with what belongs to it. */
#define ATTENTION_LABEL_CAPACITY 64
const char *attention_label(char *text, const psk_attention_config *attention);

/* The name of the local part, NULL where the mechanism has none or sees all keys. */
const char *attention_local(const psk_attention_config *attention);

/* Softmax and polynomial: every pair of a query and a key has a weight of its own. */
bool sees_pairs(const psk_attention_config *attention);

typedef struct device_options {
    int device; /* index into the names: auto, cpu, reference */
    int64_t threads;
    int precision; /* psk_precision */
} device_options;

device_options device_options_default(void);
#define DEVICE_OPTION_COUNT 3
option_group device_option_group(device_options *device, command_option table[DEVICE_OPTION_COUNT]);
psk_status device_options_create(const device_options *device, psk_device **out);

#define PATH_CAPACITY 4096
bool path_join(char path[PATH_CAPACITY], const char *folder, const char *name);
bool path_exists(const char *path);
/* Of a run folder the best checkpoint, or the last if nothing was held out; any other folder itself. */
const char *model_folder(const char *folder, char path[PATH_CAPACITY]);
/* The same for a --model that is to be read; NULL with an error said if there is none. */
const char *find_model(const char *command, const char *folder, char path[PATH_CAPACITY]);
#define MODEL_HELP "a model folder, or a run: its best weights, or the last where nothing was held out"

#endif
