#include "model/config.h"

#include "attention/attn_sketch.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

int64_t psk_config_kv_heads(const psk_model_config *config) {
    return config->n_kv_head == 0 ? config->n_head : config->n_kv_head;
}

int64_t psk_config_head_size(const psk_model_config *config) {
    return config->n_embd / config->n_head;
}

int64_t psk_config_hidden(const psk_model_config *config) {
    return 8 * config->n_embd / 3 / 8 * 8;
}

psk_sizes psk_sizes_of(const psk_model_config *config) {
    const psk_attention_config *attention = &config->attention;
    const bool sketch = attention->mechanism == PSK_POLYSKETCH;
    psk_sizes s = {
        .V = config->vocab_size,
        .D = config->n_embd,
        .L = config->n_layer,
        .H = config->n_head,
        .Hkv = psk_config_kv_heads(config),
        .h = psk_config_head_size(config),
        .F = psk_config_hidden(config),
        .r = psk_attention_uses_ab(attention) ? attention->sketch_size : 0,
        .sinusoids = config->position_scale > 0,
        .local_norms = sketch && attention->local != PSK_LOCAL_NONE,
        .sketch = sketch,
        .learned = sketch && attention->sketch == PSK_SKETCH_LEARNED,
        .learned_linear = sketch && attention->sketch == PSK_SKETCH_LEARNED_LINEAR,
        .far_gain = config->far_gain != 0,
        .performer = attention->mechanism == PSK_PERFORMER,
    };
    s.E = (s.H + 2 * s.Hkv) * s.h;
    s.qk_norm = config->qk_norm || attention->mechanism == PSK_POLYNOMIAL || (sketch && !s.learned);
    return s;
}

/* ----------------------------------------------------------------------------------------------------------- presets
 */

/* name, description, V, positions, D, L, H, b. GPT-2's vocabulary for its sizes; bytes and end-of-text for the small
 * ones, with blocks of an eighth of the context, so that most of it is seen through the sketch. */
#define PSK_PRESETS(X)                                                                                                 \
    X("tiny", "0.1 M parameters on bytes: seconds to train, for trying things", 257, 256, 64, 2, 2, 32)                \
    X("mini", "1.8 M parameters on bytes: minutes on two cores", 257, 512, 192, 4, 3, 64)                              \
    X("small", "10.7 M parameters on bytes: hours on a few cores", 257, 1024, 384, 6, 6, 128)                          \
    X("gpt2-small", "GPT-2 small: 12 layers, 12 heads, width 768", 50257, 1024, 768, 12, 12, 256)                      \
    X("gpt2-medium", "GPT-2 medium: 24 layers, 16 heads, width 1024", 50257, 1024, 1024, 24, 16, 256)                  \
    X("gpt2-large", "GPT-2 large: 36 layers, 20 heads, width 1280", 50257, 1024, 1280, 36, 20, 256)

static const struct {
    const char *name, *description;
    int64_t vocab_size, n_positions, n_embd, n_layer, n_head, block_size;
} psk_presets[] = {
#define PSK_PRESET(name, description, V, positions, D, L, H, b) {name, description, V, positions, D, L, H, b},
    PSK_PRESETS(PSK_PRESET)
#undef PSK_PRESET
};
#define PSK_PRESET_COUNT ((int64_t)(sizeof psk_presets / sizeof psk_presets[0]))

#define PSK_PRESET_NAME(name, description, V, positions, D, L, H, b) " " name
static const char psk_preset_names[] = PSK_PRESETS(PSK_PRESET_NAME);

const char *psk_model_preset_name(int64_t index) {
    return index >= 0 && index < PSK_PRESET_COUNT ? psk_presets[index].name : NULL;
}

const char *psk_model_preset_description(int64_t index) {
    return index >= 0 && index < PSK_PRESET_COUNT ? psk_presets[index].description : NULL;
}

psk_status psk_model_config_preset(const char *name, psk_model_config *config) {
    for (int64_t i = 0; i < PSK_PRESET_COUNT; i++) {
        if (strcmp(name, psk_presets[i].name) != 0)
            continue;
        *config = (psk_model_config){
            .vocab_size = psk_presets[i].vocab_size,
            .n_positions = psk_presets[i].n_positions,
            .n_embd = psk_presets[i].n_embd,
            .n_layer = psk_presets[i].n_layer,
            .n_head = psk_presets[i].n_head,
            .attention = psk_attention_config_default(),
        };
        config->attention.block_size = psk_presets[i].block_size;
        config->attention.far_scale = psk_default_far_scale(config);
        return PSK_OK;
    }
    return psk_fail(PSK_ERROR_ARGUMENT, "preset \"%s\" does not exist; there are:%s", name, psk_preset_names);
}

static bool has_near_and_far(const psk_attention_config *attention) {
    return attention->mechanism == PSK_POLYSKETCH && attention->local != PSK_LOCAL_NONE;
}

/* E <s(q),s(k)>^2 of unrelated LayerNormed rows of h numbers, as sketches start: the network's are r terms of variance
 * 1; the others' are estimates of <q,k>^(degree / 2), with a variance of h^degree / r. */
static double unrelated_far_weight(const psk_attention_config *attention, double h) {
    const double r = (double)attention->sketch_size;
    if (attention->sketch == PSK_SKETCH_LEARNED)
        return r;
    return pow(h, attention->sketch == PSK_SKETCH_LEARNED_LINEAR ? 4 : (double)attention->degree) / r;
}

/* E <q,k>^p = (p-1)!! h^(p/2). */
static double unrelated_near_weight(const psk_attention_config *attention, double h) {
    double weight = pow(h, (double)attention->degree / 2);
    for (int64_t odd = 3; odd < attention->degree; odd += 2)
        weight *= (double)odd;
    return weight;
}

/* Weight of all far keys over that of all near ones at the start, at most. */
#define PSK_FAR_OVER_NEAR 10

/* Weight of an unrelated far key over that of an unrelated near one at the start. A step of Adam changes the last
 * layers of the networks, and so far weights, much more than those of other sketches, and their tanh leaves no room for
 * a start with larger numbers: they start quieter. */
static double loudness(psk_sketch sketch) {
    return sketch == PSK_SKETCH_LEARNED ? 1.0 / 40 : 1;
}

/* How many of the keys before an average token of the context are near. */
static double near_keys(const psk_attention_config *attention, double all) {
    const double b = (double)attention->block_size, own = (b + 1) / 2;
    return fmin(all, attention->local == PSK_LOCAL_WINDOW ? own + b : own);
}

float psk_default_far_scale(const psk_model_config *config) {
    const psk_attention_config *const attention = &config->attention;
    if (!has_near_and_far(attention))
        return 1.0f;
    const double h = (double)psk_config_head_size(config), all = ((double)config->n_positions + 1) / 2,
                 near = near_keys(attention, all), far = all - near,
                 even = unrelated_near_weight(attention, h) / unrelated_far_weight(attention, h);
    return (float)(even * fmin(loudness(attention->sketch), PSK_FAR_OVER_NEAR * near / fmax(far, 1)));
}

/* far_scale of a config.json that does not give it. Every model file since has it. */
static float unwritten_far_scale(const psk_attention_config *attention) {
    const bool random = attention->sketch == PSK_SKETCH_RANDOM || attention->sketch == PSK_SKETCH_RANDOM_HADAMARD;
    if (!has_near_and_far(attention) || !random)
        return 1.0f;
    return 1.0f / ((float)attention->sketch_size * (float)attention->sketch_size);
}

/* ------------------------------------------------------------------------------------------------------------ fields
 */

#define PSK_USED_BY(mechanism) (1u << (mechanism))
#define PSK_LOCAL_ONLY         (1u << 31)
#define PSK_ALWAYS             (~0u)
#define PSK_NEVER_REQUIRED     0u

/* What a form of attention uses: what its mechanism does, and with local_only what that needs. */
static unsigned used_by_form(const psk_attention_config *attention) {
    return PSK_USED_BY(attention->mechanism) | (attention->local_only ? PSK_LOCAL_ONLY : 0);
}

/* The integers: key, field, lowest, highest, forms that use it (and so require the key in config.json). The limits are
 * far above what fits a machine; they keep products of a few sizes inside int64_t. */
typedef struct psk_config_integer {
    const char *key;
    size_t offset;
    int64_t low, high;
    unsigned used_by, required_by;
} psk_config_integer;

#define PSK_INTEGER(key, field, low, high, used_by, required_by)                                                       \
    { key, offsetof(psk_model_config, field), low, high, used_by, required_by }
#define PSK_INTEGER_OF(key, field, low, high, mechanisms) PSK_INTEGER(key, field, low, high, mechanisms, mechanisms)

static const psk_config_integer psk_config_integers[] = {
    PSK_INTEGER_OF("vocab_size", vocab_size, 1, 1 << 24, PSK_ALWAYS),
    PSK_INTEGER_OF("n_positions", n_positions, 1, INT32_MAX, PSK_ALWAYS),
    PSK_INTEGER_OF("n_embd", n_embd, 3, 1 << 17, PSK_ALWAYS), /* F is 0 below 3 */
    PSK_INTEGER_OF("n_layer", n_layer, 1, 4096, PSK_ALWAYS),
    PSK_INTEGER_OF("n_head", n_head, 1, 4096, PSK_ALWAYS),
    PSK_INTEGER("n_kv_head", n_kv_head, 0, 4096, PSK_ALWAYS, PSK_NEVER_REQUIRED),
    PSK_INTEGER_OF("degree", attention.degree, 2, PSK_MOST_DEGREE,
                   PSK_USED_BY(PSK_POLYNOMIAL) | PSK_USED_BY(PSK_POLYSKETCH)),
    PSK_INTEGER_OF("sketch_size", attention.sketch_size, 1, 4096,
                   PSK_USED_BY(PSK_POLYSKETCH) | PSK_USED_BY(PSK_PERFORMER)),
    PSK_INTEGER("block_size", attention.block_size, 1, 1 << 24,
                PSK_USED_BY(PSK_POLYSKETCH) | PSK_USED_BY(PSK_PERFORMER) | PSK_LOCAL_ONLY,
                PSK_USED_BY(PSK_POLYSKETCH) | PSK_LOCAL_ONLY),
};
#define PSK_INTEGER_COUNT (sizeof psk_config_integers / sizeof psk_config_integers[0])

static int64_t *integer_field(psk_model_config *config, const psk_config_integer *field) {
    return (int64_t *)(void *)((char *)config + field->offset);
}

static int64_t integer_value(const psk_model_config *config, const psk_config_integer *field) {
    return *(const int64_t *)(const void *)((const char *)config + field->offset);
}

/* The real numbers: key and field. */
static const struct {
    const char *key;
    size_t offset;
} psk_config_reals[] = {{"position_scale", offsetof(psk_model_config, position_scale)},
                        {"denominator_bias", offsetof(psk_model_config, attention.denominator_bias)},
                        {"far_scale", offsetof(psk_model_config, attention.far_scale)}};
#define PSK_REAL_COUNT (sizeof psk_config_reals / sizeof psk_config_reals[0])

static float *real_field(psk_model_config *config, size_t i) {
    return (float *)(void *)((char *)config + psk_config_reals[i].offset);
}

static float real_value(const psk_model_config *config, size_t i) {
    return *(const float *)(const void *)((const char *)config + psk_config_reals[i].offset);
}

/* Scores of LayerNormed rows reach h, weights h^p: a sum of some hundred of them has to fit a float. */
#define PSK_MOST_WEIGHT_BITS 120

static psk_status check_degree(const psk_attention_config *attention, int64_t h) {
    const bool powers = attention->mechanism == PSK_POLYNOMIAL || attention->mechanism == PSK_POLYSKETCH;
    const int64_t most = h > 1 ? (int64_t)(PSK_MOST_WEIGHT_BITS / log2((double)h)) / 2 * 2 : INT64_MAX;
    if (powers && attention->degree > most)
        return psk_fail(
            PSK_ERROR_ARGUMENT,
            "degree is %lld, but weights of heads of %lld numbers reach %lld^%lld, more than float32 holds; "
            "take a degree of up to %lld, or smaller heads",
            (long long)attention->degree, (long long)h, (long long)h, (long long)attention->degree, (long long)most);
    return PSK_OK;
}

psk_status psk_model_config_check(const psk_model_config *config) {
    if (psk_mechanism_name(config->attention.mechanism) == NULL)
        return psk_fail(PSK_ERROR_ARGUMENT, "attention %d is no mechanism", (int)config->attention.mechanism);
    if (psk_sketch_name(config->attention.sketch) == NULL)
        return psk_fail(PSK_ERROR_ARGUMENT, "sketch %d is none", (int)config->attention.sketch);
    if (psk_local_name(config->attention.local) == NULL)
        return psk_fail(PSK_ERROR_ARGUMENT, "local %d is none", (int)config->attention.local);
    for (size_t i = 0; i < PSK_INTEGER_COUNT; i++) {
        const psk_config_integer *field = &psk_config_integers[i];
        const int64_t value = integer_value(config, field);
        const bool used = field->used_by & used_by_form(&config->attention);
        const int64_t low = used ? field->low : 0; /* what is written into config.json can be read again */
        if (value < low || (used && value > field->high))
            return psk_fail(PSK_ERROR_ARGUMENT, "%s is %lld, must be %lld ... %lld", field->key, (long long)value,
                            (long long)low, (long long)field->high);
    }
    for (size_t i = 0; i < PSK_REAL_COUNT; i++) {
        const float value = real_value(config, i);
        if (!(value >= 0 && value <= FLT_MAX))
            return psk_fail(PSK_ERROR_ARGUMENT, "%s is %g, must be finite and not negative", psk_config_reals[i].key,
                            (double)value);
    }
    if (config->n_embd % config->n_head != 0)
        return psk_fail(PSK_ERROR_ARGUMENT, "n_head is %lld, must divide n_embd (%lld)", (long long)config->n_head,
                        (long long)config->n_embd);
    if (config->n_head % psk_config_kv_heads(config) != 0)
        return psk_fail(PSK_ERROR_ARGUMENT, "n_kv_head is %lld, must divide n_head (%lld)",
                        (long long)config->n_kv_head, (long long)config->n_head);
    if (config->attention.direction != PSK_CAUSAL)
        return psk_fail(PSK_ERROR_ARGUMENT, "attention direction is %d, a model's must be causal (%d)",
                        (int)config->attention.direction, (int)PSK_CAUSAL);
    PSK_TRY(psk_attention_config_check(&config->attention));
    PSK_TRY(check_degree(&config->attention, psk_config_head_size(config)));
    if (config->far_gain && config->attention.mechanism != PSK_POLYSKETCH)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "far_gain is true, but attention is %s: only polysketch has sketched weights",
                        psk_mechanism_name(config->attention.mechanism));
    if (config->qk_norm && config->attention.mechanism != PSK_SOFTMAX)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "qk_norm is true, but attention is %s: only softmax has LayerNorms of q and k by choice",
                        psk_mechanism_name(config->attention.mechanism));
    if (config->attention.mechanism == PSK_POLYSKETCH)
        PSK_TRY(psk_sketch_check(&config->attention, psk_config_head_size(config)));
    return PSK_OK;
}

/* ------------------------------------------------------------------------------------------------------- config.json
 */

/* Keys that a config.json of the Hugging Face hub may carry and that say nothing here. */
static const char *const psk_foreign_keys[] = {
    "_name_or_path", "architectures",   "auto_map",    "bos_token_id",         "dtype", "eos_token_id", "model_type",
    "pad_token_id",  "tokenizer_class", "torch_dtype", "transformers_version",
};

static const char *mechanism_name(int value) {
    return psk_mechanism_name((psk_mechanism)value);
}
static const char *sketch_name(int value) {
    return psk_sketch_name((psk_sketch)value);
}
static const char *local_name(int value) {
    return psk_local_name((psk_local)value);
}

/* The choices: key and the names of its values. */
static const struct {
    const char *key;
    const char *(*name)(int value);
} psk_config_choices[] = {{"attention", mechanism_name}, {"sketch", sketch_name}, {"local", local_name}};
enum { PSK_CHOICE_ATTENTION, PSK_CHOICE_SKETCH, PSK_CHOICE_LOCAL, PSK_CHOICES };

/* The flags: key and field; false where the key is missing. A softmax or polynomial model without local_only sees all
 * keys, whatever its "local" says: before there was this key, "local" was written and meant nothing. */
static const struct {
    const char *key;
    size_t offset;
} psk_config_flags[] = {{"local_only", offsetof(psk_model_config, attention.local_only)},
                        {"far_gain", offsetof(psk_model_config, far_gain)},
                        {"qk_norm", offsetof(psk_model_config, qk_norm)}};
#define PSK_FLAG_COUNT (sizeof psk_config_flags / sizeof psk_config_flags[0])

static int *flag_field(psk_model_config *config, size_t i) {
    return (int *)(void *)((char *)config + psk_config_flags[i].offset);
}

static int flag_value(const psk_model_config *config, size_t i) {
    return *(const int *)(const void *)((const char *)config + psk_config_flags[i].offset);
}

static bool is_known_key(const char *key) {
    for (size_t i = 0; i < PSK_INTEGER_COUNT; i++)
        if (strcmp(key, psk_config_integers[i].key) == 0)
            return true;
    for (size_t i = 0; i < PSK_CHOICES; i++)
        if (strcmp(key, psk_config_choices[i].key) == 0)
            return true;
    for (size_t i = 0; i < PSK_REAL_COUNT; i++)
        if (strcmp(key, psk_config_reals[i].key) == 0)
            return true;
    for (size_t i = 0; i < PSK_FLAG_COUNT; i++)
        if (strcmp(key, psk_config_flags[i].key) == 0)
            return true;
    for (size_t i = 0; i < sizeof psk_foreign_keys / sizeof psk_foreign_keys[0]; i++)
        if (strcmp(key, psk_foreign_keys[i]) == 0)
            return true;
    return false;
}

static psk_status check_keys(const json_t *object, const char *where) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value) { /* jansson iterates without const */
        if (!is_known_key(key))
            return psk_fail(PSK_ERROR_FORMAT,
                            "%s: key \"%s\" is not known; remove it, or use the version of polysketch that wrote it",
                            where, key);
    }
    return PSK_OK;
}

static psk_status require_key(const json_t *object, const char *where, const char *key) {
    if (json_object_get(object, key) == NULL)
        return psk_fail(PSK_ERROR_FORMAT, "%s: key \"%s\" is missing", where, key);
    return PSK_OK;
}

static psk_status read_choice(const json_t *object, const char *where, int choice, int *value) {
    const char *key = psk_config_choices[choice].key, *text = NULL;
    PSK_TRY(psk_json_string(object, where, key, &text));
    if (text == NULL)
        return PSK_OK;
    char names[128] = "";
    for (int i = 0; psk_config_choices[choice].name(i) != NULL; i++) {
        const char *name = psk_config_choices[choice].name(i);
        if (strcmp(text, name) == 0) {
            *value = i;
            return PSK_OK;
        }
        snprintf(names + strlen(names), sizeof names - strlen(names), " %s", name);
    }
    return psk_fail(PSK_ERROR_FORMAT, "%s: %s is \"%s\", must be one of:%s", where, key, text, names);
}

static psk_status read_choices(const json_t *object, const char *where, psk_attention_config *attention) {
    int mechanism = attention->mechanism, sketch = attention->sketch, local = attention->local;
    PSK_TRY(require_key(object, where, psk_config_choices[PSK_CHOICE_ATTENTION].key));
    PSK_TRY(read_choice(object, where, PSK_CHOICE_ATTENTION, &mechanism));
    if (mechanism == PSK_POLYSKETCH)
        PSK_TRY(require_key(object, where, psk_config_choices[PSK_CHOICE_SKETCH].key));
    if (mechanism == PSK_POLYSKETCH || attention->local_only)
        PSK_TRY(require_key(object, where, psk_config_choices[PSK_CHOICE_LOCAL].key));
    PSK_TRY(read_choice(object, where, PSK_CHOICE_SKETCH, &sketch));
    PSK_TRY(read_choice(object, where, PSK_CHOICE_LOCAL, &local));
    attention->mechanism = (psk_mechanism)mechanism;
    attention->sketch = (psk_sketch)sketch;
    attention->local = (psk_local)local;
    return PSK_OK;
}

psk_status psk_config_from_json(const json_t *object, const char *where, psk_model_config *config) {
    psk_model_config c = {.position_scale = 1, .attention = psk_attention_config_default()};
    PSK_TRY(check_keys(object, where));
    for (size_t i = 0; i < PSK_FLAG_COUNT; i++) {
        bool flag = false;
        PSK_TRY(psk_json_bool(object, where, psk_config_flags[i].key, &flag));
        *flag_field(&c, i) = flag;
    }
    PSK_TRY(read_choices(object, where, &c.attention));
    for (size_t i = 0; i < PSK_INTEGER_COUNT; i++) {
        const psk_config_integer *field = &psk_config_integers[i];
        if (field->required_by & used_by_form(&c.attention))
            PSK_TRY(require_key(object, where, field->key));
        PSK_TRY(psk_json_int(object, where, field->key, 0, INT64_MAX, integer_field(&c, field)));
    }
    c.attention.far_scale = unwritten_far_scale(&c.attention);
    for (size_t i = 0; i < PSK_REAL_COUNT; i++) {
        double value = real_value(&c, i);
        PSK_TRY(psk_json_double(object, where, psk_config_reals[i].key, 0, (double)FLT_MAX, &value));
        *real_field(&c, i) = (float)value;
    }
    if (psk_model_config_check(&c) != PSK_OK)
        return psk_fail_within(PSK_ERROR_FORMAT, "%s", where);
    *config = c;
    return PSK_OK;
}

static psk_status fill_json(const psk_model_config *config, json_t *object) {
    const int values[PSK_CHOICES] = {[PSK_CHOICE_ATTENTION] = config->attention.mechanism,
                                     [PSK_CHOICE_SKETCH] = config->attention.sketch,
                                     [PSK_CHOICE_LOCAL] = config->attention.local};
    PSK_TRY(psk_json_set(object, "model_type", json_string("polysketch")));
    for (size_t i = 0; i < PSK_CHOICES; i++)
        PSK_TRY(psk_json_set(object, psk_config_choices[i].key, json_string(psk_config_choices[i].name(values[i]))));
    for (size_t i = 0; i < PSK_INTEGER_COUNT; i++) {
        const psk_config_integer *field = &psk_config_integers[i];
        PSK_TRY(psk_json_set(object, field->key, json_integer(integer_value(config, field))));
    }
    for (size_t i = 0; i < PSK_REAL_COUNT; i++)
        PSK_TRY(psk_json_set(object, psk_config_reals[i].key, json_real((double)real_value(config, i))));
    for (size_t i = 0; i < PSK_FLAG_COUNT; i++)
        PSK_TRY(psk_json_set(object, psk_config_flags[i].key, json_boolean(flag_value(config, i))));
    return PSK_OK;
}

psk_status psk_config_to_json(const psk_model_config *config, json_t **object) {
    PSK_TRY(psk_model_config_check(config));
    psk_json_init();
    json_t *made = json_object();
    if (made == NULL)
        return psk_fail(PSK_ERROR_MEMORY, "out of memory for the object of a config.json");
    const psk_status status = fill_json(config, made);
    if (status != PSK_OK) {
        json_decref(made);
        return status;
    }
    *object = made;
    return PSK_OK;
}

psk_status psk_model_config_read(const char *path, psk_model_config *config) {
    json_t *object = NULL;
    PSK_TRY(psk_json_load(path, &object));
    const psk_status status = psk_config_from_json(object, path, config);
    json_decref(object);
    return status;
}

psk_status psk_model_config_write(const char *path, const psk_model_config *config) {
    json_t *object = NULL;
    PSK_TRY(psk_config_to_json(config, &object));
    const psk_status status = psk_json_save(path, object);
    json_decref(object);
    return status;
}
