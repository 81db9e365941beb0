/* psk_prepare: text to shards.
 *
 * Three rounds of blocks are under way at a time: while one is encoded, by all threads, the next is read and the last
 * one written. Nothing else is held, so memory does not grow with the inputs, and what is written depends on the blocks
 * alone. The journal (prepare.json) says what has been written; it is renewed after a block that completed a shard and
 * every few seconds, after the shards were synced, so that whatever ends the process, the next one goes on from there.
 */
#include "base/files.h"
#include "base/memory.h"
#include "data/block_encoder.h"
#include "data/dataset.h"
#include "data/file_names.h"
#include "data/prepare_journal.h"
#include "data/split_writer.h"

#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCKS_A_THREAD  4 /* of a round: enough that no thread waits long for the last one */
#define ROUNDS           3 /* read, encoded, written */
#define JOURNAL_SECONDS  10
#define MESSAGE_CAPACITY 1024

/* A status that another thread has to report. */
typedef struct outcome {
    psk_status status;
    char message[MESSAGE_CAPACITY];
} outcome;

typedef struct item {
    psk_block block;
    psk_encoded_block encoded;
    outcome outcome; /* of encoding */
} item;

typedef struct round_of_blocks {
    item *items;
    int64_t count;
    outcome reading; /* what came after the last item */
    bool used;       /* there is something to write or to report */
} round_of_blocks;

typedef struct preparation {
    const psk_prepare_options *options;
    psk_tokenizer *tokenizer;
    psk_input_list inputs;
    psk_text_reader *reader;
    psk_split_writer splits[PSK_SIDES];
    psk_journal journal; /* as of the last block that was written */
    bool new_folder, read_all;
    int claim; /* of the output folder, -1: none */
    int threads;
    int64_t capacity; /* blocks of a round */
    round_of_blocks rounds[ROUNDS];
    outcome writing;
    time_t recorded; /* when the journal was last written */
} preparation;

psk_prepare_options psk_prepare_options_default(void) {
    return (psk_prepare_options){
        .tokenizer = "bytes", .field = "text", .valid_fraction = 0.05, .shard_tokens = 100000000};
}

const char *psk_text_format_name(psk_text_format format) {
    static const char *const names[] = {"auto", "text", "jsonl", "wikitext"};
    return (unsigned)format < sizeof names / sizeof names[0] ? names[format] : NULL;
}

const char *psk_split_rule_name(psk_split_rule rule) {
    static const char *const names[] = {"tail", "hash"};
    return (unsigned)rule < sizeof names / sizeof names[0] ? names[rule] : NULL;
}

static void keep(outcome *out, psk_status status) {
    out->status = status;
    if (status != PSK_OK)
        snprintf(out->message, sizeof out->message, "%s", psk_error_message());
}

static psk_status report(const outcome *from) {
    return from->status == PSK_OK ? PSK_OK : psk_fail(from->status, "%s", from->message);
}

/* ------------------------------------------------------------------------------------------------------------ checks
 */

static psk_status check_options(const psk_prepare_options *options) {
    if (!options->inputs || options->input_count < 1)
        return psk_fail(PSK_ERROR_ARGUMENT, "nothing to prepare: give at least one file of text, a folder, or - for "
                                            "standard input");
    if (!options->output || !*options->output)
        return psk_fail(PSK_ERROR_ARGUMENT, "no output folder is given");
    if (!options->tokenizer)
        return psk_fail(PSK_ERROR_ARGUMENT, "no tokenizer is given: \"bytes\", or the path of one");
    if (!psk_text_format_name(options->format))
        return psk_fail(PSK_ERROR_ARGUMENT, "format is %d, which is none", (int)options->format);
    if (!psk_split_rule_name(options->split))
        return psk_fail(PSK_ERROR_ARGUMENT, "split is %d, which is none", (int)options->split);
    if (!options->field || !*options->field)
        return psk_fail(PSK_ERROR_ARGUMENT, "no field is given: the one of JSON lines that holds the text");
    if (options->valid_input_count < 0 || (options->valid_input_count > 0 && !options->valid_inputs))
        return psk_fail(PSK_ERROR_ARGUMENT, "valid_inputs are missing");
    if (!(options->valid_fraction >= 0 && options->valid_fraction < 1))
        return psk_fail(PSK_ERROR_ARGUMENT, "valid_fraction is %g, expected 0 <= fraction < 1",
                        options->valid_fraction);
    if (options->shard_tokens < 1)
        return psk_fail(PSK_ERROR_ARGUMENT, "shard_tokens is %" PRId64 ", expected at least 1", options->shard_tokens);
    if (options->threads < 0)
        return psk_fail(PSK_ERROR_ARGUMENT, "threads is %d, expected at least 0", options->threads);
    return PSK_OK;
}

static psk_status load_tokenizer(preparation *work) {
    PSK_TRY(psk_tokenizer_load(work->options->tokenizer, &work->tokenizer));
    if (work->tokenizer->end_of_text >= 0)
        return PSK_OK;
    return psk_fail(PSK_ERROR_ARGUMENT, "the tokenizer %s has no end-of-text token, which is needed between documents",
                    work->options->tokenizer);
}

static bool is_shard(const char *name) {
    return psk_name_ends(name, ".psk");
}

/* ----------------------------------------------------------------------------------------------------------- journal
 */

static psk_status record(preparation *work) {
    for (int side = 0; side < PSK_SIDES; side++)
        PSK_TRY(psk_split_writer_sync(&work->splits[side]));
    work->recorded = time(NULL);
    return psk_journal_write(work->options, work->tokenizer->name, &work->inputs, &work->journal);
}

static psk_status tell_progress(const preparation *work) {
    const psk_prepare_options *const options = work->options;
    if (options->progress && options->progress(options->user, work->journal.consumed, work->inputs.bytes))
        return psk_fail(PSK_ERROR_INTERRUPTED,
                        "preparing was stopped after %" PRId64 " documents and %" PRId64
                        " bytes of text; the same command goes on from there",
                        work->journal.result.documents, work->journal.result.bytes);
    return PSK_OK;
}

/* After a block was written. */
static psk_status record_if_due(preparation *work) {
    const bool due = work->splits[PSK_TRAIN].completed || work->splits[PSK_VALID].completed ||
                     time(NULL) >= work->recorded + JOURNAL_SECONDS;
    return due ? record(work) : PSK_OK;
}

/* ------------------------------------------------------------------------------------------------------------ rounds
 */

/* As many blocks as there is room for, but not much more text than usual: a long line makes a large block. */
static void read_round(preparation *work, round_of_blocks *round) {
    int64_t bytes = 0;
    round->count = 0;
    round->reading.status = PSK_OK;
    while (!work->read_all && round->count < work->capacity && bytes < work->capacity * PSK_PIECE_BYTES) {
        psk_block *const block = &round->items[round->count].block;
        const psk_status status = psk_text_reader_next(work->reader, block, &work->read_all);
        keep(&round->reading, status);
        if (status != PSK_OK)
            work->read_all = true;
        else if (!work->read_all)
            round->count++;
        bytes += block->size;
    }
    round->used = round->count > 0 || round->reading.status != PSK_OK;
}

static void encode_item(preparation *work, item *it) {
    keep(&it->outcome, psk_encode_block(work->options, work->tokenizer, &work->inputs, &it->block, &it->encoded));
}

/* Shard by shard: where they are small a block is many of them, each synced, and a stop must not wait for all. */
static psk_status write_tokens(preparation *work, psk_split_writer *split, const psk_tokens *tokens) {
    for (int64_t at = 0, taken; at < tokens->count; at += taken) {
        PSK_TRY(psk_split_writer_append(split, tokens->ids + at, tokens->count - at, &taken));
        if (!split->shard)
            PSK_TRY(tell_progress(work));
    }
    return PSK_OK;
}

static psk_status write_item(preparation *work, const item *it) {
    psk_prepare_result *const result = &work->journal.result;
    PSK_TRY(report(&it->outcome));
    for (int side = 0; side < PSK_SIDES; side++)
        PSK_TRY(write_tokens(work, &work->splits[side], &it->encoded.tokens[side]));
    if (result->skipped == 0)
        memcpy(result->first_skipped, it->encoded.first_skipped, sizeof result->first_skipped);
    result->documents += it->encoded.documents;
    result->bytes += it->encoded.bytes;
    result->empty += it->encoded.empty;
    result->skipped += it->encoded.skipped;
    result->train_tokens = work->splits[PSK_TRAIN].tokens;
    result->valid_tokens = work->splits[PSK_VALID].tokens;
    work->journal.position = it->block.after;
    work->journal.consumed = it->block.consumed;
    return PSK_OK;
}

static psk_status write_items(preparation *work, const round_of_blocks *round) {
    for (int64_t i = 0; i < round->count; i++) {
        PSK_TRY(write_item(work, &round->items[i]));
        PSK_TRY(record_if_due(work));
    }
    return report(&round->reading);
}

static void advance(preparation *work, round_of_blocks *reading, round_of_blocks *encoding, round_of_blocks *writing) {
#pragma omp parallel for num_threads(work->threads) schedule(dynamic, 1)
    for (int64_t i = 0; i < encoding->count + 2; i++) {
        if (i == 0)
            read_round(work, reading);
        else if (i == 1)
            keep(&work->writing, write_items(work, writing));
        else
            encode_item(work, &encoding->items[i - 2]);
    }
}

static psk_status run_rounds(preparation *work) {
    round_of_blocks *const rounds = work->rounds;
    for (int step = 0;;
         step = (step + 1) % ROUNDS) { /* a round that was read is encoded and written one and two later */
        round_of_blocks *const reading = &rounds[step], *const encoding = &rounds[(step + 2) % ROUNDS],
                               *const writing = &rounds[(step + 1) % ROUNDS];
        if (work->read_all && !encoding->used && !writing->used)
            return PSK_OK;
        advance(work, reading, encoding, writing);
        PSK_TRY(report(&work->writing));
        if (writing->used)
            PSK_TRY(tell_progress(work));
        writing->used = false;
    }
}

static psk_status finish(preparation *work) {
    psk_prepare_result *const result = &work->journal.result;
    if (result->documents == 0)
        return psk_fail(PSK_ERROR_FORMAT, "there is no text in the inputs (%" PRId64 " empty documents%s%s)",
                        result->empty, result->skipped ? "; the first bad line: " : "", result->first_skipped);
    for (int side = 0; side < PSK_SIDES; side++)
        PSK_TRY(psk_split_writer_close(&work->splits[side]));
    PSK_TRY(psk_tokenizer_save(work->tokenizer, work->options->output));
    result->shards =
        psk_split_writer_shards(&work->splits[PSK_TRAIN]) + psk_split_writer_shards(&work->splits[PSK_VALID]);
    work->journal.finished = true;
    const psk_status status = psk_journal_write(work->options, work->tokenizer->name, &work->inputs, &work->journal);
    work->journal.finished = status == PSK_OK;
    return status;
}

/* ------------------------------------------------------------------------------------------------------------- whole
 */

static psk_status make_rounds(preparation *work) {
    work->threads = work->options->threads > 0 ? work->options->threads : omp_get_max_threads();
    work->capacity = (int64_t)BLOCKS_A_THREAD * work->threads;
    for (int i = 0; i < ROUNDS; i++)
        PSK_TRY(psk_alloc_zero((size_t)work->capacity * sizeof(item), "blocks", (void **)&work->rounds[i].items));
    return PSK_OK;
}

/* A new folder, or one whose preparation was not finished. */
static psk_status open_output(preparation *work) {
    bool found;
    const char *const folder = work->options->output;
    work->new_folder = !psk_is_folder(folder);
    PSK_TRY(psk_make_folders(folder));
    PSK_TRY(psk_claim_folder(folder, &work->claim));
    PSK_TRY(psk_journal_read(work->options, work->tokenizer->name, &work->inputs, &work->journal, &found));
    if (!found) /* shards without a journal are somebody else's */
        PSK_TRY(psk_refuse_entries(folder, is_shard));
    for (int side = 0; side < PSK_SIDES; side++)
        work->splits[side] = (psk_split_writer){.name = side == PSK_TRAIN ? "train" : "valid",
                                                .folder = folder,
                                                .tokenizer = work->tokenizer,
                                                .shard_tokens = work->options->shard_tokens,
                                                .tokens = side == PSK_TRAIN ? work->journal.result.train_tokens
                                                                            : work->journal.result.valid_tokens};
    return PSK_OK;
}

static psk_status write_output(preparation *work) {
    for (int side = 0; side < PSK_SIDES; side++)
        PSK_TRY(psk_split_writer_open(&work->splits[side]));
    PSK_TRY(record(work));
    PSK_TRY(psk_text_reader_open(work->options, &work->inputs, work->journal.position, &work->reader));
    PSK_TRY(tell_progress(work));
    PSK_TRY(run_rounds(work));
    return finish(work);
}

/* Removes what a preparation leaves that has written nothing. */
static void discard(preparation *work) {
    for (int side = 0; side < PSK_SIDES; side++) {
        work->splits[side].tokens = 0;
        (void)psk_split_writer_open(&work->splits[side]); /* nothing better can be done if this fails */
    }
    (void)psk_journal_remove(work->options->output);
    if (work->new_folder)
        rmdir(work->options->output);
}

/* What was written stays for the next time: all of it, or, if a write failed, what the last journal counts. Returns
 * `status`. */
static psk_status leave_unfinished(preparation *work, psk_status status) {
    outcome first;
    keep(&first, status);
    const bool nothing = work->journal.result.train_tokens + work->journal.result.valid_tokens == 0;
    if (!nothing)
        (void)record(work); /* if it fails, as after any failed write, the journal before holds */
    for (int side = 0; side < PSK_SIDES; side++)
        psk_split_writer_suspend(&work->splits[side]);
    if (nothing)
        discard(work);
    return report(&first);
}

static psk_status prepare(preparation *work) {
    PSK_TRY(check_options(work->options));
    PSK_TRY(load_tokenizer(work));
    PSK_TRY(psk_input_list_make(work->options, &work->inputs));
    PSK_TRY(make_rounds(work));
    PSK_TRY(open_output(work));
    const psk_status status = write_output(work);
    return status == PSK_OK ? PSK_OK : leave_unfinished(work, status);
}

static void release(preparation *work) {
    for (int i = 0; i < ROUNDS; i++) {
        for (int64_t j = 0; work->rounds[i].items && j < work->capacity; j++) {
            psk_block_free(&work->rounds[i].items[j].block);
            psk_encoded_block_free(&work->rounds[i].items[j].encoded);
        }
        psk_free(work->rounds[i].items);
    }
    psk_text_reader_close(work->reader);
    psk_input_list_free(&work->inputs);
    psk_tokenizer_free(work->tokenizer);
    psk_release_folder(work->claim);
}

psk_status psk_prepare(const psk_prepare_options *options, psk_prepare_result *result) {
    if (!options || !result)
        return psk_fail(PSK_ERROR_ARGUMENT, "psk_prepare: options and result must not be NULL");
    preparation work = {.options = options, .claim = -1};
    const psk_status status = prepare(&work);
    *result = work.journal.result;
    release(&work);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------- check
 */

static psk_status check_split(const char *folder, const char *name, int64_t expected, psk_prepare_result *seen,
                              int64_t *tokens) {
    psk_dataset dataset;
    PSK_TRY(psk_dataset_open(folder, name, &dataset));
    *tokens = dataset.tokens;
    seen->shards += dataset.count;
    psk_dataset_close(&dataset);
    if (expected >= 0 && *tokens != expected)
        return psk_fail(PSK_ERROR_FORMAT,
                        "%s: the %s shards have %" PRId64 " tokens, " PSK_JOURNAL_FILE " says %" PRId64
                        ": shards are missing",
                        folder, name, *tokens, expected);
    return PSK_OK;
}

psk_status psk_prepare_check(const char *folder, psk_prepare_result *result) {
    bool found;
    psk_prepare_result said = {0}, seen = {0};
    if (!folder || !result)
        return psk_fail(PSK_ERROR_ARGUMENT, "psk_prepare_check: folder and result must not be NULL");
    *result = seen;
    PSK_TRY(psk_journal_read_finished(folder, &said, &found));
    PSK_TRY(check_split(folder, "train", found ? said.train_tokens : -1, &seen, &seen.train_tokens));
    PSK_TRY(check_split(folder, "valid", found ? said.valid_tokens : -1, &seen, &seen.valid_tokens));
    if (seen.shards == 0)
        return psk_fail(PSK_ERROR_FORMAT, "%s holds no shards", folder);
    *result = found ? said : seen;
    return PSK_OK;
}
