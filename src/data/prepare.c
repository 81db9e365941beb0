/* psk_prepare: text files to shards, streaming in bounded memory.
 *
 * tokenizer.json is written last: a folder without it is not a finished data set (psk_dataset_open refuses it). */
#include "base/memory.h"
#include "data/dataset.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define CHUNK_BYTES (1 << 18) /* of text read at a time */
#define CUT_WINDOW  1024      /* how far before the cut a line end is looked for */

typedef struct input_file {
    char *path;
    int64_t bytes;
} input_file;

typedef struct input_list {
    input_file *files;
    int64_t count, capacity, bytes;
} input_list;

/* A split being written: a new shard is opened when a token arrives for it. */
typedef struct split_writer {
    const char *name, *folder;
    const psk_tokenizer *tokenizer;
    psk_shard_writer *shard;
    int64_t shard_tokens; /* limit */
    int64_t shards;       /* opened so far */
    int64_t tokens;       /* so far */
} split_writer;

typedef struct preparation {
    const psk_prepare_options *options;
    psk_tokenizer *tokenizer;
    input_list inputs;
    split_writer train, valid;
    unsigned char *text; /* CHUNK_BYTES */
    psk_tokens tokens;   /* of one part of the text */
    int64_t done;        /* bytes */
} preparation;

psk_prepare_options psk_prepare_options_default(void) {
    return (psk_prepare_options){.tokenizer = "bytes", .valid_fraction = 0.05, .shard_tokens = 100000000};
}

/* ------------------------------------------------------------------------------------------------------------ inputs
 */

/* Takes `path`, also when it fails. */
static psk_status add_file(input_list *list, char *path) {
    psk_status status;
    struct stat facts;
    if (stat(path, &facts) != 0) {
        status = psk_fail(PSK_ERROR_FILE, "cannot read the input %s: %s", path, strerror(errno));
        goto failed;
    }
    if (facts.st_size == 0) {
        status = psk_fail(PSK_ERROR_FORMAT, "the input %s is empty: fill it or leave it out", path);
        goto failed;
    }
    if (list->count == list->capacity) {
        const int64_t capacity = list->capacity ? 2 * list->capacity : 64;
        input_file *grown;
        PSK_TRY_GOTO(status, psk_alloc((size_t)capacity * sizeof *grown, "list of inputs", (void **)&grown), failed);
        if (list->count)
            memcpy(grown, list->files, (size_t)list->count * sizeof *grown);
        psk_free(list->files);
        list->files = grown;
        list->capacity = capacity;
    }
    list->files[list->count++] = (input_file){.path = path, .bytes = facts.st_size};
    list->bytes += facts.st_size;
    return PSK_OK;
failed:
    psk_free(path);
    return status;
}

/* The .txt files of a folder, sorted by name; folders inside it are not entered. */
static psk_status add_folder(input_list *list, const char *folder) {
    psk_status status = PSK_OK;
    char **names;
    int64_t entries;
    const int64_t before = list->count;
    PSK_TRY(psk_list_folder(folder, &names, &entries));
    for (int64_t i = 0; i < entries && status == PSK_OK; i++) {
        const size_t length = strlen(names[i]);
        char *path = NULL;
        if (length < 4 || strcmp(names[i] + length - 4, ".txt") != 0)
            continue;
        status = psk_join_path(folder, names[i], &path);
        if (status == PSK_OK && psk_is_file(path))
            status = add_file(list, path);
        else
            psk_free(path);
    }
    psk_free_names(names, entries);
    if (status == PSK_OK && list->count == before)
        return psk_fail(PSK_ERROR_FILE, "the folder %s holds no .txt file", folder);
    return status;
}

static psk_status list_inputs(const psk_prepare_options *options, input_list *list) {
    for (int64_t i = 0; i < options->input_count; i++) {
        char *path = NULL;
        if (!options->inputs[i])
            return psk_fail(PSK_ERROR_ARGUMENT, "inputs[%" PRId64 "] is NULL", i);
        if (psk_is_folder(options->inputs[i])) {
            PSK_TRY(add_folder(list, options->inputs[i]));
            continue;
        }
        PSK_TRY(psk_strdup(options->inputs[i], &path));
        PSK_TRY(add_file(list, path));
    }
    return PSK_OK;
}

static psk_status check_options(const psk_prepare_options *options) {
    if (!options->inputs || options->input_count < 1)
        return psk_fail(PSK_ERROR_ARGUMENT, "nothing to prepare: give at least one text file or folder of .txt files");
    if (!options->output || !*options->output)
        return psk_fail(PSK_ERROR_ARGUMENT, "no output folder is given");
    if (!(options->valid_fraction >= 0 && options->valid_fraction < 1))
        return psk_fail(PSK_ERROR_ARGUMENT, "valid_fraction is %g, expected 0 <= fraction < 1",
                        options->valid_fraction);
    if (options->shard_tokens < 1)
        return psk_fail(PSK_ERROR_ARGUMENT, "shard_tokens is %" PRId64 ", expected at least 1", options->shard_tokens);
    return PSK_OK;
}

/* The folder is made; one that holds shards is refused, for old ones would mix with new ones. */
static psk_status check_output(const char *folder) {
    psk_status status = PSK_OK;
    char **names;
    int64_t entries;
    PSK_TRY(psk_make_folders(folder));
    PSK_TRY(psk_list_folder(folder, &names, &entries));
    for (int64_t i = 0; i < entries && status == PSK_OK; i++) {
        const size_t length = strlen(names[i]);
        if (length >= 4 && strcmp(names[i] + length - 4, ".psk") == 0)
            status = psk_fail(PSK_ERROR_ARGUMENT, "%s holds shards already (%s): remove them or choose another folder",
                              folder, names[i]);
    }
    psk_free_names(names, entries);
    return status;
}

/* ----------------------------------------------------------------------------------------------------------- writing
 */

static psk_status open_next_shard(split_writer *split) {
    psk_status status;
    char name[PSK_SHARD_NAME_SIZE], *path;
    psk_shard_name(split->name, split->shards, name);
    PSK_TRY(psk_join_path(split->folder, name, &path));
    status = psk_shard_writer_open(path, split->tokenizer, &split->shard);
    psk_free(path);
    if (status == PSK_OK)
        split->shards++;
    return status;
}

static psk_status close_shard(split_writer *split) {
    psk_shard_writer *shard = split->shard;
    split->shard = NULL;
    return shard ? psk_shard_writer_close(shard) : PSK_OK;
}

static psk_status append(split_writer *split, const int32_t *tokens, int64_t count) {
    while (count > 0) {
        if (!split->shard)
            PSK_TRY(open_next_shard(split));
        const int64_t room = split->shard_tokens - psk_shard_writer_tokens(split->shard);
        const int64_t part = count < room ? count : room;
        PSK_TRY(psk_shard_writer_append(split->shard, tokens, part));
        split->tokens += part;
        tokens += part;
        count -= part;
        if (part == room)
            PSK_TRY(close_shard(split));
    }
    return PSK_OK;
}

/* Removes the shards of a preparation that failed. */
static void discard(split_writer *split) {
    char name[PSK_SHARD_NAME_SIZE], *path;
    psk_shard_writer_abandon(split->shard);
    split->shard = NULL;
    for (int64_t i = 0; i < split->shards; i++) {
        psk_shard_name(split->name, i, name);
        if (psk_join_path(split->folder, name, &path) != PSK_OK)
            return;
        remove(path);
        psk_free(path);
    }
}

/* --------------------------------------------------------------------------------------------------------- documents
 */

static psk_status read_failed(const input_file *input, FILE *file) {
    return psk_fail(PSK_ERROR_FILE, "cannot read %s: %s", input->path,
                    ferror(file) ? strerror(errno) : "it became shorter while it was read");
}

/* What `git clone` leaves of a text that Git LFS holds would train without a complaint. */
static psk_status check_text(const input_file *input, FILE *file) {
    static const char lfs[] = "version https://git-lfs";
    char start[sizeof lfs] = "";
    if (fread(start, 1, sizeof lfs - 1, file) == sizeof lfs - 1 && strcmp(start, lfs) == 0)
        return psk_fail(PSK_ERROR_FORMAT, "%s is a Git LFS pointer, not the text: fetch the file itself (git lfs pull)",
                        input->path);
    return PSK_OK;
}

/* Where the valid part begins: at (1 - fraction) of the document, moved back to the last line end within CUT_WINDOW,
 * or, where there is none, back to the beginning of a UTF-8 character. Nothing is moved at the ends. */
static psk_status find_cut(const preparation *work, const input_file *input, FILE *file, int64_t *cut) {
    unsigned char window[CUT_WINDOW + 1];
    *cut = (int64_t)floor((double)input->bytes * (1 - work->options->valid_fraction));
    if (*cut <= 0 || *cut >= input->bytes)
        return PSK_OK;
    const int64_t before = *cut < CUT_WINDOW ? *cut : CUT_WINDOW;
    if (fseeko(file, (off_t)(*cut - before), SEEK_SET) != 0 ||
        fread(window, 1, (size_t)before + 1, file) != (size_t)before + 1)
        return read_failed(input, file);
    for (int64_t i = before; i > 0; i--) {
        if (window[i - 1] == '\n') {
            *cut -= before - i;
            return PSK_OK;
        }
    }
    int64_t i = before;
    while (i > 0 && before - i < 3 && (window[i] & 0xc0) == 0x80)
        i--;
    if ((window[i] & 0xc0) != 0x80) /* otherwise it is not UTF-8: any byte is as good as another */
        *cut -= before - i;
    return PSK_OK;
}

static psk_status progress(preparation *work, int64_t bytes) {
    work->done += bytes;
    if (work->options->progress && work->options->progress(work->options->user, work->done, work->inputs.bytes))
        return psk_fail(PSK_ERROR_INTERRUPTED,
                        "preparing was stopped after %" PRId64 " of %" PRId64 " bytes; no shard was kept", work->done,
                        work->inputs.bytes);
    return PSK_OK;
}

/* The next `bytes` bytes of the file as one document of the split, end-of-text after it. */
static psk_status copy_part(preparation *work, const input_file *input, FILE *file, int64_t bytes,
                            split_writer *split) {
    if (bytes == 0)
        return PSK_OK;
    while (bytes > 0) {
        const int64_t part = bytes < CHUNK_BYTES ? bytes : CHUNK_BYTES;
        size_t used;
        if (fread(work->text, 1, (size_t)part, file) != (size_t)part)
            return read_failed(input, file);
        work->tokens.count = 0;
        PSK_TRY(psk_tokenizer_encode_part(work->tokenizer, (const char *)work->text, (size_t)part, PSK_TEXT_GOES_ON,
                                          &work->tokens, &used));
        PSK_TRY(append(split, work->tokens.ids, work->tokens.count));
        PSK_TRY(progress(work, part));
        bytes -= part;
    }
    return append(split, &work->tokenizer->end_of_text, 1);
}

static psk_status prepare_document(preparation *work, const input_file *input) {
    psk_status status;
    int64_t cut = input->bytes;
    FILE *file = fopen(input->path, "rb");
    if (!file)
        return psk_fail(PSK_ERROR_FILE, "cannot read the input %s: %s", input->path, strerror(errno));
    PSK_TRY_GOTO(status, check_text(input, file), done);
    if (work->options->valid_fraction > 0)
        PSK_TRY_GOTO(status, find_cut(work, input, file, &cut), done);
    if (fseeko(file, 0, SEEK_SET) != 0) {
        status = read_failed(input, file);
        goto done;
    }
    PSK_TRY_GOTO(status, copy_part(work, input, file, cut, &work->train), done);
    status = copy_part(work, input, file, input->bytes - cut, &work->valid);
done:
    fclose(file);
    return status;
}

static psk_status prepare_all(preparation *work) {
    for (int64_t i = 0; i < work->inputs.count; i++)
        PSK_TRY(prepare_document(work, &work->inputs.files[i]));
    PSK_TRY(close_shard(&work->train));
    PSK_TRY(close_shard(&work->valid));
    return psk_tokenizer_save(work->tokenizer, work->options->output);
}

static split_writer make_split(const preparation *work, const char *name) {
    return (split_writer){.name = name,
                          .folder = work->options->output,
                          .tokenizer = work->tokenizer,
                          .shard_tokens = work->options->shard_tokens};
}

psk_status psk_prepare(const psk_prepare_options *options, psk_prepare_result *result) {
    psk_status status;
    preparation work = {.options = options};
    if (!options || !result)
        return psk_fail(PSK_ERROR_ARGUMENT, "psk_prepare: options and result must not be NULL");
    *result = (psk_prepare_result){0};
    PSK_TRY(check_options(options));
    PSK_TRY(psk_tokenizer_load(options->tokenizer, &work.tokenizer));
    work.train = make_split(&work, "train");
    work.valid = make_split(&work, "valid");
    PSK_TRY_GOTO(status, list_inputs(options, &work.inputs), done);
    PSK_TRY_GOTO(status, check_output(options->output), done);
    PSK_TRY_GOTO(status, psk_alloc(CHUNK_BYTES, "text buffer", (void **)&work.text), done);
    status = prepare_all(&work);
    if (status != PSK_OK) {
        discard(&work.train);
        discard(&work.valid);
        goto done;
    }
    *result = (psk_prepare_result){.documents = work.inputs.count,
                                   .bytes = work.done,
                                   .train_tokens = work.train.tokens,
                                   .valid_tokens = work.valid.tokens,
                                   .shards = work.train.shards + work.valid.shards};
done:
    for (int64_t i = 0; i < work.inputs.count; i++)
        psk_free(work.inputs.files[i].path);
    psk_free(work.inputs.files);
    psk_free(work.text);
    psk_free(work.tokens.ids);
    psk_tokenizer_free(work.tokenizer);
    return status;
}
