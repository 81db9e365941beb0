/* polysketch info: what is in a model, a run, a shard, or this machine. */
#include "machine.h"
#include "model_options.h"
#include "records.h"
#include "tensor_file.h"
#include "terminal.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct info_settings {
    int64_t context, batch;
    int recompute, check;
    device_options device;
} info_settings;

/* ---------------------------------------------------------------------------------------------------------- machine
 */

static exit_code print_machine(const info_settings *settings) {
    const machine_facts facts = machine_read();
    char total[FORMAT_CAPACITY], available[FORMAT_CAPACITY];
    printf("polysketch   %s\n", psk_version());
    printf("CPU          %s, %lld for this process\n", facts.cpu, (long long)facts.cpus);
    printf("memory       %s, %s of it free\n", format_bytes(total, facts.memory_total),
           format_bytes(available, facts.memory_free));
    printf("system       %s\n", facts.system);
    static const char *const names[] = {"cpu", "reference"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        psk_device *device;
        const psk_status status = psk_device_create(names[i], (int)settings->device.threads, &device);
        printf("device       %-10s %s\n", names[i],
               status == PSK_OK ? psk_device_description(device) : psk_error_message());
        if (status == PSK_OK)
            psk_device_free(device);
    }
    printf("presets      ");
    for (int64_t i = 0; psk_model_preset_name(i); i++)
        printf("%s%-12s %s\n", i ? "             " : "", psk_model_preset_name(i), psk_model_preset_description(i));
    return EXIT_DONE;
}

/* ------------------------------------------------------------------------------------------------------------ model
 */

static void print_config(const psk_model_config *config) {
    const psk_attention_config *const attention = &config->attention;
    char label[ATTENTION_LABEL_CAPACITY];
    printf("layers       %lld, width %lld, %lld heads of %lld", (long long)config->n_layer, (long long)config->n_embd,
           (long long)config->n_head, (long long)(config->n_embd / config->n_head));
    if (config->n_kv_head && config->n_kv_head != config->n_head)
        printf(", %lld key/value heads", (long long)config->n_kv_head);
    printf("\nvocabulary   %lld\ntrained for  %lld tokens of context\n", (long long)config->vocab_size,
           (long long)config->n_positions);
    printf("positions    RoPE");
    if (config->position_scale > 0)
        printf(", and sinusoids times %g", (double)config->position_scale);
    printf("\nattention    %s", attention_label(label, attention));
    if (attention->mechanism == PSK_POLYSKETCH)
        printf("; degree %lld, sketches of %lld, blocks of %lld, far scale %g%s", (long long)attention->degree,
               (long long)attention->sketch_size, (long long)attention->block_size, (double)attention->far_scale,
               config->far_gain ? " times a gain for each head" : "");
    else if (attention->mechanism == PSK_POLYNOMIAL)
        printf(", degree %lld", (long long)attention->degree);
    else if (attention->mechanism == PSK_PERFORMER)
        printf(", %lld features", (long long)attention->sketch_size);
    if (config->qk_norm)
        printf(" of LayerNormed q and k");
    if (attention->local_only)
        printf("; blocks of %lld, no key beyond them is seen", (long long)attention->block_size);
    putchar('\n');
}

/* The range of exp(g) over heads and layers. */
static void print_gains(const psk_model *model) {
    psk_model_tensor tensor;
    double low = INFINITY, high = -INFINITY;
    for (int64_t i = 0; psk_model_tensor_at(model, i, &tensor); i++)
        for (int64_t e = 0; strstr(tensor.name, ".far_gain") && e < tensor.shape[0]; e++) {
            low = fmin(low, (double)tensor.data[e]);
            high = fmax(high, (double)tensor.data[e]);
        }
    if (low <= high)
        printf("far gains    %.3g ... %.3g\n", exp(low), exp(high));
}

typedef struct parameter_group {
    char name[64];
    int64_t tensors, numbers;
    bool trained;
} parameter_group;

/* "blocks.3.attn.sketch.a.0.up.weight" -> "attn.sketch": what all layers have in common, two words of it; outside the
 * layers the first word. */
static void group_name(const char *tensor, char name[64]) {
    const char *start = tensor;
    int words = 1;
    if (strncmp(tensor, "blocks.", 7) == 0) {
        start = tensor + 7 + strcspn(tensor + 7, ".") + 1;
        words = strncmp(start, "ln_", 3) == 0 ? 1 : 2;
    }
    size_t length = strcspn(start, ".");
    if (words == 2 && start[length] == '.')
        length += 1 + strcspn(start + length + 1, ".");
    snprintf(name, 64, "%.*s", (int)length, start);
}

static void print_groups(const psk_model *model) {
    parameter_group groups[64];
    size_t count = 0;
    psk_model_tensor tensor;
    char text[FORMAT_CAPACITY];
    for (int64_t i = 0; psk_model_tensor_at(model, i, &tensor); i++) {
        char name[64];
        size_t g = 0;
        group_name(tensor.name, name);
        while (g < count && (strcmp(groups[g].name, name) != 0 || groups[g].trained != (tensor.trained != 0)))
            g++;
        if (g == count && count < 64) {
            groups[count] = (parameter_group){.trained = tensor.trained != 0};
            memcpy(groups[count++].name, name, sizeof name);
        }
        if (g < count) {
            groups[g].tensors++;
            groups[g].numbers += tensor.shape[0] * (tensor.dims > 1 ? tensor.shape[1] : 1);
        }
    }
    printf("parameters   %s trained\n", format_count(text, (double)psk_model_parameter_count(model)));
    for (size_t g = 0; g < count; g++)
        printf("  %-16s %10s in %lld tensor%s%s\n", groups[g].name, format_count(text, (double)groups[g].numbers),
               (long long)groups[g].tensors, groups[g].tensors == 1 ? "" : "s",
               groups[g].trained ? "" : ", random, not trained");
}

/* What a sequence that is being written keeps: constant where time is linear, keys and values otherwise. */
static psk_status print_state(psk_model *model) {
    const psk_model_config *const config = psk_model_get_config(model);
    char text[FORMAT_CAPACITY], whole[FORMAT_CAPACITY];
    if (sees_pairs(&config->attention) && !config->attention.local_only) {
        const int64_t kv = config->n_kv_head ? config->n_kv_head : config->n_head;
        const int64_t bytes = 2 * config->n_layer * kv * (config->n_embd / config->n_head) * (int64_t)sizeof(float);
        printf("state        %s a token, %s at %lld tokens\n", format_bytes(text, bytes),
               format_bytes(whole, bytes * config->n_positions), (long long)config->n_positions);
        return PSK_OK;
    }
    psk_session *session;
    const psk_status status = psk_session_create(model, &session);
    if (status != PSK_OK)
        return status;
    printf("state        %s a sequence, whatever its length\n", format_bytes(text, psk_session_bytes(session)));
    psk_session_free(session);
    return PSK_OK;
}

static psk_status print_memory(const psk_model_config *config, const info_settings *settings) {
    psk_memory_report report;
    char text[FORMAT_CAPACITY];
    const int64_t context = settings->context ? settings->context : config->n_positions;
    const psk_status status = psk_model_memory(config, settings->batch, context, 1, settings->recompute, &report);
    if (status != PSK_OK)
        return status;
    printf("training     %s for a step of %lld x %lld tokens:", format_bytes(text, report.total),
           (long long)settings->batch, (long long)context);
    for (int64_t i = 0; i < report.count; i++)
        printf("%s %s %s", i ? "," : "", report.lines[i].category, format_bytes(text, report.lines[i].bytes));
    putchar('\n');
    return PSK_OK;
}

static exit_code print_model(const char *folder, const info_settings *settings) {
    psk_device *device = NULL;
    psk_model *model = NULL;
    psk_status status = device_options_create(&settings->device, &device);
    if (status == PSK_OK)
        status = psk_model_load(device, folder, &model);
    if (status == PSK_OK) {
        printf("model        %s\n", folder);
        print_config(psk_model_get_config(model));
        print_gains(model);
        print_groups(model);
        status = print_state(model);
    }
    if (status == PSK_OK)
        status = print_memory(psk_model_get_config(model), settings);
    psk_model_free(model);
    psk_device_free(device);
    return say_status("info", status);
}

/* -------------------------------------------------------------------------------------------------------------- run
 */

/* The numbers, words and flags of a JSON object in one line. */
static void print_object(const char *title, json_t *object) {
    const char *key;
    json_t *value;
    printf("%-12s", title);
    json_object_foreach(object, key, value) {
        if (json_is_real(value))
            printf(" %s %.6g;", key, json_real_value(value));
        else if (json_is_integer(value))
            printf(" %s %lld;", key, (long long)json_integer_value(value));
        else if (json_is_boolean(value))
            printf(" %s %s;", key, json_is_true(value) ? "true" : "false");
        else if (json_string_length(value) > 0)
            printf(" %s %s;", key, json_string_value(value));
    }
    putchar('\n');
}

/* The object in a file of the folder, if there is one, printed; false: it cannot be read, which was said. */
static bool load_json_file(const char *title, const char *folder, const char *name, json_t **object) {
    char path[PATH_CAPACITY];
    json_error_t error;
    *object = NULL;
    if (!path_join(path, folder, name) || !path_exists(path))
        return true;
    *object = json_load_file(path, 0, &error);
    if (json_is_object(*object)) {
        print_object(title, *object);
        return true;
    }
    if (*object)
        say_error("info", "%s: an object { \"name\": value, ... } is expected", path);
    else
        say_error("info", "%s: line %d: %s", path, error.line, error.text);
    json_decref(*object);
    *object = NULL;
    return false;
}

static bool print_json_file(const char *title, const char *folder, const char *name) {
    json_t *object;
    const bool good = load_json_file(title, folder, name, &object);
    json_decref(object);
    return good;
}

/* The code of what was printed after a file that was `good` or not. */
static exit_code both(bool good, exit_code code) {
    return good ? code : EXIT_FAILED;
}

/* The last whole line of metrics.jsonl. */
static void print_last_metrics(const char *folder) {
    char path[PATH_CAPACITY], line[4096];
    json_t *last = NULL;
    FILE *const file = path_join(path, folder, "metrics.jsonl") ? fopen(path, "r") : NULL;
    if (!file)
        return;
    while (fgets(line, sizeof line, file)) {
        json_t *const object = json_loads(line, 0, NULL);
        if (!object)
            continue;
        json_decref(last);
        last = object;
    }
    fclose(file);
    if (last)
        print_object("metrics", last);
    json_decref(last);
}

static int skip_hidden(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

static void print_entries(const char *title, const char *folder) {
    struct dirent **entries;
    const int count = scandir(folder, &entries, skip_hidden, alphasort);
    if (count < 0)
        return;
    printf("%-12s", title);
    for (int i = 0; i < count; i++) {
        printf(" %s", entries[i]->d_name);
        free(entries[i]);
    }
    putchar('\n');
    free(entries);
}

static exit_code print_run(const char *folder, const info_settings *settings) {
    char path[PATH_CAPACITY];
    printf("run          %s\n", folder);
    const bool good = print_json_file("options", folder, "options.json");
    print_last_metrics(folder);
    if (path_join(path, folder, "checkpoints"))
        print_entries("checkpoints", path);
    return both(good, print_model(model_folder(folder, path), settings));
}

/* ------------------------------------------------------------------------------------------------------------ shard
 */

static exit_code print_shard(const char *path, const info_settings *settings) {
    psk_shard_info info;
    char tokens[FORMAT_CAPACITY], bytes[FORMAT_CAPACITY];
    const psk_status status = psk_shard_read_info(path, settings->check, &info);
    if (status != PSK_OK)
        return say_status("info", status);
    printf("%s: %s tokens in %lld document%s, tokenizer %s (vocabulary %lld), %lld bytes a token, %s, version %lld, "
           "checksum %016llx%s\n",
           path, format_count(tokens, (double)info.tokens), (long long)info.documents, info.documents == 1 ? "" : "s",
           info.tokenizer, (long long)info.vocab_size, (long long)info.token_bytes,
           format_bytes(bytes, info.file_bytes), (long long)info.version, (unsigned long long)info.checksum,
           settings->check ? ", which holds" : "");
    return EXIT_DONE;
}

static int is_shard(const struct dirent *entry) {
    const size_t length = strlen(entry->d_name);
    return length > 4 && strcmp(entry->d_name + length - 4, ".psk") == 0;
}

/* Every shard of a folder; *count of them. */
static exit_code print_shards(const char *folder, const info_settings *settings, int *count) {
    struct dirent **entries;
    exit_code code = EXIT_DONE;
    *count = scandir(folder, &entries, is_shard, alphasort);
    for (int i = 0; i < *count; i++) {
        char path[PATH_CAPACITY];
        if (path_join(path, folder, entries[i]->d_name) && print_shard(path, settings) != EXIT_DONE)
            code = EXIT_FAILED;
        free(entries[i]);
    }
    if (*count >= 0)
        free(entries);
    return code;
}

static exit_code print_data(const char *folder, const info_settings *settings) {
    json_t *prepared;
    int shards = 0;
    const bool good = load_json_file("prepared", folder, "prepare.json", &prepared), any = !good || prepared;
    if (json_is_false(json_object_get(prepared, "finished")))
        puts("unfinished   the same `polysketch prepare` goes on; training refuses the folder until it has ended");
    json_decref(prepared);
    const exit_code code = print_shards(folder, settings, &shards);
    if (any || shards > 0)
        return both(good, code);
    say_error("info", "%s is neither a model, nor a run, nor a folder of shards", folder);
    return EXIT_FAILED;
}

/* --------------------------------------------------------------------------------------------------------------- all
 */

static bool has(const char *folder, const char *name) {
    char path[PATH_CAPACITY];
    return path_join(path, folder, name) && path_exists(path);
}

static exit_code print_path(const char *path, const info_settings *settings) {
    struct stat facts;
    if (stat(path, &facts) != 0) {
        say_error("info", "%s: %s", path, strerror(errno));
        return EXIT_FAILED;
    }
    if (!S_ISDIR(facts.st_mode))
        return tensor_file_print(path, (int64_t)facts.st_size) ? EXIT_DONE : print_shard(path, settings);
    if (has(path, "checkpoints"))
        return print_run(path, settings);
    if (has(path, "config.json")) {
        const bool good = print_json_file("checkpoint", path, "state.json");
        return both(good, print_model(path, settings));
    }
    return print_data(path, settings);
}

exit_code command_info(int argc, char **argv) {
    info_settings settings = {.batch = 1, .device = device_options_default()};
    const command_option table[] = {
        {"context", OPTION_LENGTH, NULL, "for the memory of training", .target = &settings.context, .low = 1,
         .high = 1 << 30, .fallback = "the model's"},
        {"batch-size", OPTION_COUNT, "N", "for the memory of training", .target = &settings.batch, .low = 1,
         .high = 1e6},
        {"recompute", OPTION_FLAG, NULL, "for the memory of training", .target = &settings.recompute},
        {"check", OPTION_FLAG, NULL, "of shards: verify the checksum", .target = &settings.check},
    };
    command_option device[DEVICE_OPTION_COUNT];
    const option_group groups[] = {OPTION_GROUP("Options", table), device_option_group(&settings.device, device)};
    const command_usage usage = {
        .command = "info",
        .synopsis = "[PATH] [options]",
        .summary =
            "What is in a model folder, a run, a checkpoint, a shard, a folder of shards, a saved state or another\n"
            "safetensors file; without PATH, what this machine has.",
        .examples = "  polysketch info\n"
                    "  polysketch info run --context 32k --batch-size 1\n"
                    "  polysketch info tokens --check",
        .groups = groups,
        .group_count = sizeof groups / sizeof groups[0],
        .operand = "PATH",
        .operand_most = 1,
    };
    command_line line = {0};
    exit_code code;
    if (options_read(&usage, argc, argv, &line, &code))
        code = line.operand_count ? print_path(line.operands[0], &settings) : print_machine(&settings);
    options_free(&line);
    return code;
}
