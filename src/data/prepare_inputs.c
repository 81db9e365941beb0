#include "data/prepare_inputs.h"

#include "base/files.h"
#include "base/memory.h"
#include "data/file_names.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

/* Names of text, as they are and with a suffix of compression. A plain .json in a folder is more often a description of
 * the data than the data. */
static const struct {
    const char *suffix;
    psk_text_format format;
    bool plain_in_folders;
} text_names[] = {{".txt", PSK_FORMAT_AUTO, true},     {".jsonl", PSK_FORMAT_JSONL, true},
                  {".ndjson", PSK_FORMAT_JSONL, true}, {".json", PSK_FORMAT_JSONL, false},
                  {".tokens", PSK_FORMAT_AUTO, true},  {".raw", PSK_FORMAT_AUTO, true}};
enum { TEXT_NAMES = sizeof text_names / sizeof text_names[0] };

static const char *const compressions[] = {"", ".gz", ".zst", ".zstd"};
enum { COMPRESSIONS = sizeof compressions / sizeof compressions[0] };

/* The entry of text_names that the path ends in, TEXT_NAMES if there is none; *compressed: with a suffix more. */
static int find_name(const char *path, bool *compressed) {
    char suffix[16];
    for (int i = 0; i < TEXT_NAMES; i++) {
        for (int c = 0; c < COMPRESSIONS; c++) {
            snprintf(suffix, sizeof suffix, "%s%s", text_names[i].suffix, compressions[c]);
            *compressed = c > 0;
            if (psk_name_ends(path, suffix))
                return i;
        }
    }
    return TEXT_NAMES;
}

const char *psk_input_name(const psk_input *input) {
    return strcmp(input->path, "-") == 0 ? "standard input" : input->path;
}

psk_text_format psk_format_of_name(const char *path, psk_text_format format) {
    bool compressed;
    const int name = find_name(path, &compressed);
    return format != PSK_FORMAT_AUTO || name == TEXT_NAMES ? format : text_names[name].format;
}

/* -------------------------------------------------------------------------------------------------------------- list
 */

static psk_status grow(psk_input_list *list) {
    const int64_t capacity = list->capacity ? 2 * list->capacity : 64;
    psk_input *larger;
    PSK_TRY(psk_alloc((size_t)capacity * sizeof *larger, "list of inputs", (void **)&larger));
    if (list->count)
        memcpy(larger, list->files, (size_t)list->count * sizeof *larger);
    psk_free(list->files);
    list->files = larger;
    list->capacity = capacity;
    return PSK_OK;
}

static psk_status find_size(const char *path, int64_t *bytes) {
    struct stat facts = {0};
    *bytes = -1;
    if (strcmp(path, "-") == 0)
        return PSK_OK;
    if (stat(path, &facts) != 0)
        return psk_file_error(path, "read");
    if (S_ISREG(facts.st_mode))
        *bytes = facts.st_size;
    return PSK_OK;
}

/* An empty file among many of a folder is passed over later, and counted. */
static psk_status add_file(psk_input_list *list, const char *path, bool in_folder, bool held_out) {
    int64_t bytes;
    char *copy;
    PSK_TRY(find_size(path, &bytes));
    if (bytes == 0 && !in_folder)
        return psk_fail(PSK_ERROR_FORMAT, "the input %s is empty: fill it or leave it out", path);
    if (list->count == list->capacity)
        PSK_TRY(grow(list));
    PSK_TRY(psk_strdup(path, &copy));
    list->files[list->count++] =
        (psk_input){.path = copy, .bytes = bytes, .held_out = held_out, .in_folder = in_folder};
    list->pipe = list->pipe || bytes < 0;
    list->bytes = list->pipe ? 0 : list->bytes + bytes;
    return PSK_OK;
}

static psk_status add_folder(psk_input_list *list, const char *folder, bool held_out) {
    psk_status status = PSK_OK;
    char **names;
    int64_t entries;
    const int64_t before = list->count;
    PSK_TRY(psk_list_folder(folder, &names, &entries));
    for (int64_t i = 0; i < entries && status == PSK_OK; i++) {
        char *path = NULL;
        bool compressed;
        const int name = find_name(names[i], &compressed);
        if (name == TEXT_NAMES || (!compressed && !text_names[name].plain_in_folders))
            continue;
        status = psk_join_path(folder, names[i], &path);
        if (status == PSK_OK && psk_is_file(path))
            status = add_file(list, path, true, held_out);
        psk_free(path);
    }
    psk_free_names(names, entries);
    if (status == PSK_OK && list->count == before)
        return psk_fail(PSK_ERROR_FILE,
                        "the folder %s holds no text: no .txt, .jsonl, ... file, also .gz or .zst (folders inside it "
                        "are not entered)",
                        folder);
    return status;
}

static psk_status add_all(psk_input_list *list, const char *const *inputs, int64_t count, bool held_out) {
    for (int64_t i = 0; i < count; i++) {
        if (!inputs[i])
            return psk_fail(PSK_ERROR_ARGUMENT, "%s[%" PRId64 "] is NULL", held_out ? "valid_inputs" : "inputs", i);
        PSK_TRY(psk_is_folder(inputs[i]) ? add_folder(list, inputs[i], held_out)
                                         : add_file(list, inputs[i], false, held_out));
    }
    return PSK_OK;
}

psk_status psk_input_list_make(const psk_prepare_options *options, psk_input_list *out) {
    *out = (psk_input_list){0};
    PSK_TRY(add_all(out, options->inputs, options->input_count, false));
    return add_all(out, options->valid_inputs, options->valid_input_count, true);
}

void psk_input_list_free(psk_input_list *list) {
    for (int64_t i = 0; i < list->count; i++)
        psk_free(list->files[i].path);
    psk_free(list->files);
    *list = (psk_input_list){0};
}

uint64_t psk_input_list_hash(const psk_input_list *list, int64_t count) {
    uint64_t hash = 0;
    for (int64_t i = 0; i < count; i++) {
        const uint64_t facts[4] = {hash, (uint64_t)list->files[i].bytes, list->files[i].held_out,
                                   XXH3_64bits(list->files[i].path, strlen(list->files[i].path))};
        hash = XXH3_64bits(facts, sizeof facts);
    }
    return hash;
}
