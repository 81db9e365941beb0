/* psk_tokenizer_train: the inputs of a preparation, line by line, to SentencePiece's trainer. */
#include "base/files.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "data/block_encoder.h"
#include "data/file_names.h"
#include "data/prepare_journal.h"
#include "data/sentencepiece.h"
#include "data/tokenizer_kinds.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define LINE_BYTES 4096 /* of a longer line as much comes at a time; no token is longer than a word */

/* Documents come as the tokens of "bytes", so that all formats are read as prepare reads them. */
typedef struct line_reader {
    const psk_tokenizer_train_options *options;
    psk_prepare_options prepare;
    psk_input_list inputs;
    psk_tokenizer *bytes;
    psk_text_reader *reader;
    psk_block block;
    psk_encoded_block text;
    int64_t next;     /* token of the text */
    int64_t consumed; /* bytes of text */
    char line[LINE_BYTES];
} line_reader;

static psk_status check_options(const psk_tokenizer_train_options *options) {
    if (!options->inputs || options->input_count < 1)
        return psk_fail(PSK_ERROR_ARGUMENT, "nothing to learn from: give at least one file of text or a folder");
    if (!options->output || !*options->output)
        return psk_fail(PSK_ERROR_ARGUMENT, "no output folder is given");
    if (!psk_text_format_name(options->format))
        return psk_fail(PSK_ERROR_ARGUMENT, "format is %d, which is none", (int)options->format);
    if (!options->field || !*options->field)
        return psk_fail(PSK_ERROR_ARGUMENT, "no field is given: the one of JSON lines that holds the text");
    if (options->vocab_size < PSK_BYTES_VOCAB + 1 || options->vocab_size > INT32_MAX)
        return psk_fail(PSK_ERROR_ARGUMENT, "vocab_size is %" PRId64 ", expected %d or more", options->vocab_size,
                        PSK_BYTES_VOCAB + 1);
    if (options->max_bytes < 0)
        return psk_fail(PSK_ERROR_ARGUMENT, "max_bytes is %" PRId64 ", expected 0 (all) or more", options->max_bytes);
    return PSK_OK;
}

/* Whether a folder with this file is a model's, a tokenizer's or one of data, which a new vocabulary would spoil. */
static bool is_taken_by(const char *name) {
    return psk_tokenizer_has_file(name) || strcmp(name, PSK_JOURNAL_FILE) == 0 || psk_name_ends(name, ".psk") ||
           psk_name_ends(name, ".psk.partial");
}

static psk_status stopped(void) {
    return psk_fail(PSK_ERROR_INTERRUPTED, "the training of a tokenizer was stopped");
}

static psk_status tell_merging(const psk_tokenizer_train_options *options, int made) {
    return options->merging && options->merging(options->user, made) ? stopped() : PSK_OK;
}

/* After the last line, where the library goes on by itself. */
static psk_status end_reading(const line_reader *r) {
    return r->consumed > 0 ? tell_merging(r->options, 0) : PSK_OK;
}

/* The next block's text; *end where there is none, or enough was read. */
static psk_status next_text(line_reader *r, bool *end) {
    const psk_tokenizer_train_options *const options = r->options;
    r->next = 0;
    r->text.tokens[PSK_TRAIN].count = 0;
    *end = options->max_bytes > 0 && r->consumed >= options->max_bytes;
    if (!*end)
        PSK_TRY(psk_text_reader_next(r->reader, &r->block, end));
    if (*end)
        return end_reading(r);
    if (options->progress && options->progress(options->user, r->block.consumed, r->inputs.bytes))
        return stopped();
    return psk_encode_block(&r->prepare, r->bytes, &r->inputs, &r->block, &r->text);
}

/* The trainer takes control characters for signs of its own. */
static bool ends_line(int32_t token) {
    return token < ' ' || token >= 256;
}

/* Bytes up to the end of the line, of the text, of the room, or up to one that is not UTF-8; 0: there is nothing to
 * learn from here, and it is behind us. */
static int64_t fill_line(line_reader *r) {
    const psk_tokens *const tokens = &r->text.tokens[PSK_TRAIN];
    const int32_t *const ids = tokens->ids + r->next;
    const int64_t left = tokens->count - r->next;
    int64_t size = 0;
    for (; size < left && size < LINE_BYTES && !ends_line(ids[size]); size++)
        r->line[size] = (char)ids[size];
    size = (int64_t)psk_utf8_valid_end(r->line, (size_t)size, 0);
    r->next += size > 0 ? size : 1;
    r->consumed += size;
    return size;
}

static psk_status next_line(void *user, const char **text, size_t *size) {
    line_reader *const r = user;
    int64_t length = 0;
    bool end = false;
    *text = NULL;
    while (length == 0) {
        if (r->next >= r->text.tokens[PSK_TRAIN].count)
            PSK_TRY(next_text(r, &end));
        if (end)
            return PSK_OK;
        length = fill_line(r);
    }
    *text = r->line;
    *size = (size_t)length;
    return PSK_OK;
}

static psk_status open_reader(line_reader *r) {
    const psk_tokenizer_train_options *const options = r->options;
    r->prepare = (psk_prepare_options){.inputs = options->inputs,
                                       .input_count = options->input_count,
                                       .format = options->format,
                                       .field = options->field};
    PSK_TRY(psk_input_list_make(&r->prepare, &r->inputs));
    PSK_TRY(psk_tokenizer_bytes(&r->bytes));
    return psk_text_reader_open(&r->prepare, &r->inputs, (psk_position){.document = -1}, &r->reader);
}

static void close_reader(line_reader *r) {
    psk_text_reader_close(r->reader);
    psk_tokenizer_free(r->bytes);
    psk_input_list_free(&r->inputs);
    psk_block_free(&r->block);
    psk_encoded_block_free(&r->text);
    psk_free(r);
}

static psk_status save(const psk_tokenizer *tokenizer, const char *output) {
    const bool new_folder = !psk_is_folder(output);
    PSK_TRY(psk_make_folders(output));
    const psk_status status = psk_tokenizer_save(tokenizer, output);
    if (status != PSK_OK && new_folder)
        rmdir(output);
    return status;
}

/* The model as a tokenizer, in the output folder. */
static psk_status keep(const char *model, size_t size, const char *output) {
    psk_tokenizer *tokenizer;
    PSK_TRY(psk_tokenizer_sentencepiece_bytes(model, size, output, &tokenizer));
    const psk_status status = save(tokenizer, output);
    psk_tokenizer_free(tokenizer);
    return status;
}

static psk_status train(const psk_tokenizer_train_options *options) {
    line_reader *r;
    char *model = NULL;
    size_t size;
    PSK_TRY(psk_alloc_zero(sizeof *r, "a reader of lines", (void **)&r));
    r->options = options;
    psk_status status = open_reader(r);
    if (status == PSK_OK)
        status = psk_sentencepiece_train(options->vocab_size, next_line, r, &model, &size);
    if (status == PSK_OK)
        status = tell_merging(options, 1);
    if (status == PSK_OK)
        status = keep(model, size, options->output);
    psk_free(model);
    close_reader(r);
    return status;
}

/* That the folder cannot be made is better known before the training than after it; but a new one does not stay, for
 * the training may end with the process. */
static psk_status try_output(const char *folder) {
    const bool new_folder = !psk_is_folder(folder);
    PSK_TRY(psk_make_folders(folder));
    const psk_status status = psk_refuse_entries(folder, is_taken_by);
    if (new_folder)
        rmdir(folder);
    return status;
}

psk_status psk_tokenizer_train(const psk_tokenizer_train_options *options) {
    PSK_TRY(check_options(options));
    PSK_TRY(try_output(options->output));
    return train(options);
}
