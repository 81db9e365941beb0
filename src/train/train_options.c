#include "train/train_options.h"

#include "base/files.h"
#include "base/memory.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef enum { WHOLE, NUMBER, FLAG } option_kind; /* int64_t, double, int */

typedef struct option {
    const char *name;
    option_kind kind;
    size_t place;
    double low, high;
    bool may_lack; /* 0 in files from before there was a choice */
} option;

#define OPTION(field, kind, low, high)                                                                                 \
    { #field, kind, offsetof(psk_train_options, field), low, high, false }
#define LATER_OPTION(field, kind, low, high)                                                                           \
    { #field, kind, offsetof(psk_train_options, field), low, high, true }
#define MANY 1e15 /* steps: exact in a double, and products with it do not overflow a double */

static const option options_table[] = {
    OPTION(steps, WHOLE, 1, MANY),
    OPTION(seconds, NUMBER, 0, 1e12),
    OPTION(batch_size, WHOLE, 1, 1e6),
    OPTION(context, WHOLE, 1, 1e9), /* positions are int32_t */
    OPTION(accumulate, WHOLE, 1, 1e6),
    OPTION(learning_rate, NUMBER, 0, 1e3),
    OPTION(min_learning_rate, NUMBER, 0, 1e3),
    OPTION(warmup_steps, WHOLE, 0, MANY),
    OPTION(beta1, NUMBER, 0, 0.999999),
    OPTION(beta2, NUMBER, 0, 0.999999),
    OPTION(epsilon, NUMBER, 1e-20, 1),
    OPTION(weight_decay, NUMBER, 0, 1e3),
    OPTION(grad_clip, NUMBER, 0, 1e9),
    OPTION(dropout, NUMBER, 0, 0.99),
    OPTION(reset_at_documents, FLAG, 0, 1),
    LATER_OPTION(align_documents, FLAG, 0, 1),
    OPTION(recompute, FLAG, 0, 1),
    OPTION(eval_every, WHOLE, 0, MANY),
    OPTION(eval_batches, WHOLE, 0, MANY),
    OPTION(save_every, WHOLE, 0, MANY),
    OPTION(keep_last, WHOLE, 0, MANY),
};
#define OPTION_COUNT (sizeof options_table / sizeof options_table[0])

/* An enum in the struct, a word in the file. Files from before there was a choice lack it: the first word. */
typedef struct word_option {
    const char *name;
    size_t place;
    int count;
    const char *words[4];
    bool may_lack;
} word_option;

static const word_option words_table[] = {
    {"schedule",
     offsetof(psk_train_options, schedule),
     3,
     {[PSK_SCHEDULE_COSINE] = "cosine", [PSK_SCHEDULE_LINEAR] = "linear", [PSK_SCHEDULE_CONSTANT] = "constant"},
     false},
    {"precision",
     offsetof(psk_train_options, precision),
     2,
     {[PSK_PRECISION_F32] = "float32", [PSK_PRECISION_BF16] = "bfloat16"},
     true},
};
#define WORD_COUNT (sizeof words_table / sizeof words_table[0])
_Static_assert(sizeof(psk_schedule) == sizeof(int) && sizeof(psk_precision) == sizeof(int), "enums are read as int");

static int word_value(const psk_train_options *options, const word_option *entry) {
    int value;
    memcpy(&value, (const char *)options + entry->place, sizeof value);
    return value;
}

psk_train_options psk_train_options_default(void) {
    return (psk_train_options){.steps = 1000,
                               .batch_size = 8,
                               .context = 512,
                               .accumulate = 1,
                               .learning_rate = 1e-3,
                               .min_learning_rate = 1e-4,
                               .warmup_steps = 100,
                               .schedule = PSK_SCHEDULE_COSINE,
                               .beta1 = 0.9,
                               .beta2 = 0.95,
                               .epsilon = 1e-8,
                               .weight_decay = 0.1,
                               .grad_clip = 1,
                               .eval_every = 250,
                               .eval_batches = 16,
                               .save_every = 500,
                               .keep_last = 2,
                               .seed = 1};
}

static double option_value(const psk_train_options *options, const option *entry) {
    const char *place = (const char *)options + entry->place;
    switch (entry->kind) {
    case WHOLE: {
        int64_t value;
        memcpy(&value, place, sizeof value);
        return (double)value;
    }
    case NUMBER: {
        double value;
        memcpy(&value, place, sizeof value);
        return value;
    }
    case FLAG:
        break;
    }
    int value;
    memcpy(&value, place, sizeof value);
    return value;
}

psk_status psk_train_options_check(const psk_train_options *options) {
    if (!options->data || !*options->data)
        return psk_fail(PSK_ERROR_ARGUMENT, "no data folder is given: make one with `polysketch prepare`");
    if (!options->output || !*options->output)
        return psk_fail(PSK_ERROR_ARGUMENT, "no output folder is given");
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const option *entry = &options_table[i];
        const double value = option_value(options, entry);
        if (!(value >= entry->low && value <= entry->high))
            return psk_fail(PSK_ERROR_ARGUMENT, "%s is %.12g, expected %.12g ... %.12g", entry->name, value, entry->low,
                            entry->high);
    }
    for (size_t i = 0; i < WORD_COUNT; i++) {
        const int value = word_value(options, &words_table[i]);
        if (value < 0 || value >= words_table[i].count)
            return psk_fail(PSK_ERROR_ARGUMENT, "%s is %d, expected one of psk_%s", words_table[i].name, value,
                            words_table[i].name);
    }
    if (options->min_learning_rate > options->learning_rate)
        return psk_fail(PSK_ERROR_ARGUMENT, "min_learning_rate is %g, expected at most learning_rate, %g",
                        options->min_learning_rate, options->learning_rate);
    if (options->seed > INT64_MAX)
        return psk_fail(PSK_ERROR_ARGUMENT, "seed is %" PRIu64 ", expected at most %" PRId64, options->seed, INT64_MAX);
    return PSK_OK;
}

psk_status psk_train_options_to_json(const psk_train_options *options, json_t **out) {
    psk_status status;
    char resolved[PATH_MAX];
    psk_json_init();
    *out = NULL;
    json_t *object = json_object();
    if (!object)
        return psk_fail(PSK_ERROR_MEMORY, "out of memory for the options");
    const char *data = realpath(options->data, resolved) ? resolved : options->data;
    PSK_TRY_GOTO(status, psk_json_set(object, "data", json_string(data)), failed);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const option *entry = &options_table[i];
        const double value = option_value(options, entry);
        json_t *json = entry->kind == NUMBER  ? json_real(value)
                       : entry->kind == WHOLE ? json_integer((json_int_t)value)
                                              : json_boolean(value != 0);
        PSK_TRY_GOTO(status, psk_json_set(object, entry->name, json), failed);
    }
    for (size_t i = 0; i < WORD_COUNT; i++) {
        const word_option *entry = &words_table[i];
        json_t *word = json_string(entry->words[word_value(options, entry)]);
        PSK_TRY_GOTO(status, psk_json_set(object, entry->name, word), failed);
    }
    PSK_TRY_GOTO(status, psk_json_set(object, "seed", json_integer((json_int_t)options->seed)), failed);
    *out = object;
    return PSK_OK;
failed:
    json_decref(object);
    return status;
}

static psk_status read_option(const json_t *object, const char *where, const option *entry, void *place) {
    if (!json_object_get(object, entry->name) && !entry->may_lack)
        return psk_fail(PSK_ERROR_FORMAT, "%s: the option %s is missing", where, entry->name);
    if (entry->kind == WHOLE)
        return psk_json_int(object, where, entry->name, (int64_t)entry->low, (int64_t)entry->high, place);
    if (entry->kind == NUMBER)
        return psk_json_double(object, where, entry->name, entry->low, entry->high, place);
    bool flag = false;
    PSK_TRY(psk_json_bool(object, where, entry->name, &flag));
    *(int *)place = flag;
    return PSK_OK;
}

static psk_status read_word(const json_t *object, const char *where, const word_option *entry, int *value) {
    const char *word = entry->may_lack ? entry->words[0] : NULL;
    PSK_TRY(psk_json_string(object, where, entry->name, &word));
    if (word == NULL)
        return psk_fail(PSK_ERROR_FORMAT, "%s: the option %s is missing", where, entry->name);
    for (*value = 0; *value < entry->count; (*value)++)
        if (strcmp(word, entry->words[*value]) == 0)
            return PSK_OK;
    return psk_fail(PSK_ERROR_FORMAT, "%s: %s is \"%s\", which is unknown; the first known is %s", where, entry->name,
                    word, entry->words[0]);
}

psk_status psk_train_options_from_json(const json_t *object, const char *where, psk_train_options *options) {
    int64_t seed = -1;
    options->data = NULL;
    PSK_TRY(psk_json_string(object, where, "data", &options->data));
    for (size_t i = 0; i < WORD_COUNT; i++)
        PSK_TRY(read_word(object, where, &words_table[i], (int *)(void *)((char *)options + words_table[i].place)));
    PSK_TRY(psk_json_int(object, where, "seed", 0, INT64_MAX, &seed));
    if (!options->data || seed < 0)
        return psk_fail(PSK_ERROR_FORMAT, "%s: the option %s is missing", where, !options->data ? "data" : "seed");
    options->seed = (uint64_t)seed;
    for (size_t i = 0; i < OPTION_COUNT; i++)
        PSK_TRY(read_option(object, where, &options_table[i], (char *)options + options_table[i].place));
    return PSK_OK;
}

psk_status psk_train_options_read(const char *output, psk_train_options *options, char *data, size_t capacity) {
    psk_status status;
    char *path;
    json_t *object = NULL;
    if (!output || !options || !data)
        return psk_fail(PSK_ERROR_ARGUMENT, "psk_train_options_read: output, options and data must not be NULL");
    PSK_TRY(psk_join_path(output, PSK_OPTIONS_FILE, &path));
    psk_train_options found = {.output = output};
    PSK_TRY_GOTO(status, psk_json_load(path, &object), done);
    PSK_TRY_GOTO(status, psk_train_options_from_json(object, path, &found), done);
    if (strlen(found.data) >= capacity) {
        status = psk_fail(PSK_ERROR_ARGUMENT, "%s: the data path needs a buffer of %zu bytes, %zu are given", path,
                          strlen(found.data) + 1, capacity);
        goto done;
    }
    strcpy(data, found.data);
    found.data = data;
    *options = found;
done:
    json_decref(object);
    psk_free(path);
    return status;
}

/* Whether files from before there was this option mean `value` by not having it. */
static bool meant_by_lack(const char *key, const json_t *value) {
    for (size_t i = 0; i < WORD_COUNT; i++)
        if (words_table[i].may_lack && strcmp(key, words_table[i].name) == 0)
            return strcmp(json_string_value(value), words_table[i].words[0]) == 0;
    return json_is_false(value);
}

void psk_train_options_changes(const json_t *before, const json_t *now, char *names, size_t capacity) {
    const char *key;
    json_t *value;
    *names = 0;
    json_object_foreach((json_t *)(uintptr_t)now, key, value) {
        const json_t *old = json_object_get(before, key);
        if (strcmp(key, "data") == 0 || json_equal(value, old) || (!old && meant_by_lack(key, value)))
            continue;
        strncat(names, *names ? ", " : "", capacity - strlen(names) - 1);
        strncat(names, key, capacity - strlen(names) - 1);
    }
}
