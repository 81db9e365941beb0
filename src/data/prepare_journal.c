#include "data/prepare_journal.h"

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 1

/* The numbers of a journal: key, place, least value. */
#define RESULT_NUMBERS(X)                                                                                              \
    X("documents", result.documents, 0)                                                                                \
    X("bytes", result.bytes, 0)                                                                                        \
    X("empty", result.empty, 0)                                                                                        \
    X("skipped", result.skipped, 0)                                                                                    \
    X("train_tokens", result.train_tokens, 0)                                                                          \
    X("valid_tokens", result.valid_tokens, 0)                                                                          \
    X("shards", result.shards, 0)
#define POSITION_NUMBERS(X)                                                                                            \
    X("next_input", position.input, 0)                                                                                 \
    X("next_offset", position.offset, 0)                                                                               \
    X("next_lines", position.lines, 0)                                                                                 \
    X("next_document", position.document, -1)                                                                          \
    X("read_bytes", consumed, 0)

static psk_status journal_path(const char *folder, char **path) {
    return psk_join_path(folder, PSK_JOURNAL_FILE, path);
}

/* ------------------------------------------------------------------------------------------------------------ writing
 */

static psk_status set_hash(json_t *object, const char *key, uint64_t hash) {
    char text[17];
    snprintf(text, sizeof text, "%016" PRIx64, hash);
    return psk_json_set(object, key, json_string(text));
}

/* What decides the tokens, beside the inputs. */
static psk_status add_options(json_t *object, const psk_prepare_options *options, const char *tokenizer) {
    const bool by_inputs = options->valid_input_count > 0;
    PSK_TRY(psk_json_set(object, "tokenizer", json_string(tokenizer)));
    PSK_TRY(psk_json_set(object, "format", json_string(psk_text_format_name(options->format))));
    PSK_TRY(psk_json_set(object, "field", json_string(options->field)));
    PSK_TRY(psk_json_set(object, "split", json_string(by_inputs ? "inputs" : psk_split_rule_name(options->split))));
    PSK_TRY(psk_json_set(object, "valid_fraction", json_real(by_inputs ? 0 : options->valid_fraction)));
    PSK_TRY(psk_json_set(object, "skip_bad_lines", json_boolean(options->skip_bad_lines)));
    return psk_json_set(object, "shard_tokens", json_integer(options->shard_tokens));
}

#define SET(key, place, least) PSK_TRY(psk_json_set(object, key, json_integer(journal->place)));

static psk_status add_result(json_t *object, const psk_journal *journal) {
    PSK_TRY(psk_json_set(object, "finished", json_boolean(journal->finished)));
    RESULT_NUMBERS(SET)
    return psk_json_set(object, "first_skipped", json_string(journal->result.first_skipped));
}

static psk_status add_position(json_t *object, const psk_input_list *inputs, const psk_journal *journal) {
    POSITION_NUMBERS(SET)
    PSK_TRY(psk_json_set(object, "next_side", json_integer((json_int_t)journal->position.side)));
    PSK_TRY(set_hash(object, "next_hash", journal->position.hash));
    return set_hash(object, "read_inputs", psk_input_list_hash(inputs, journal->position.input));
}

psk_status psk_journal_write(const psk_prepare_options *options, const char *tokenizer, const psk_input_list *inputs,
                             const psk_journal *journal) {
    psk_status status;
    char *path = NULL;
    psk_json_init();
    json_t *const object = json_object();
    if (!object)
        return psk_fail(PSK_ERROR_MEMORY, "out of memory for " PSK_JOURNAL_FILE);
    PSK_TRY_GOTO(status, psk_json_set(object, "version", json_integer(VERSION)), done);
    PSK_TRY_GOTO(status, add_options(object, options, tokenizer), done);
    PSK_TRY_GOTO(status, add_result(object, journal), done);
    if (!journal->finished)
        PSK_TRY_GOTO(status, add_position(object, inputs, journal), done);
    PSK_TRY_GOTO(status, journal_path(options->output, &path), done);
    status = psk_json_save(path, object);
done:
    json_decref(object);
    psk_free(path);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------ reading
 */

static psk_status get_hash(const json_t *object, const char *where, const char *key, uint64_t *hash) {
    const char *text = "";
    char *end;
    PSK_TRY(psk_json_string(object, where, key, &text));
    *hash = strtoull(text, &end, 16);
    if (strlen(text) != 16 || *end)
        return psk_fail(PSK_ERROR_FORMAT, "%s: \"%s\" is \"%.40s\", expected 16 hexadecimal digits", where, key, text);
    return PSK_OK;
}

#define GET(key, place, least) PSK_TRY(psk_json_int(object, where, key, least, INT64_MAX, &out->place));

static psk_status get_result(const json_t *object, const char *where, psk_journal *out) {
    int64_t version = 0;
    const char *first_skipped = "";
    PSK_TRY(psk_json_int(object, where, "version", 0, INT64_MAX, &version));
    if (version != VERSION)
        return psk_fail(PSK_ERROR_FORMAT, "%s: version is %" PRId64 ", expected %d: prepare the data again", where,
                        version, VERSION);
    PSK_TRY(psk_json_bool(object, where, "finished", &out->finished));
    RESULT_NUMBERS(GET)
    PSK_TRY(psk_json_string(object, where, "first_skipped", &first_skipped));
    snprintf(out->result.first_skipped, sizeof out->result.first_skipped, "%s", first_skipped);
    return PSK_OK;
}

static psk_status get_position(const json_t *object, const char *where, const psk_input_list *inputs,
                               psk_journal *out) {
    int64_t side = 0;
    uint64_t read_inputs = 0;
    POSITION_NUMBERS(GET)
    PSK_TRY(psk_json_int(object, where, "next_side", 0, PSK_SIDES - 1, &side));
    out->position.side = (psk_side)side;
    PSK_TRY(get_hash(object, where, "next_hash", &out->position.hash));
    PSK_TRY(get_hash(object, where, "read_inputs", &read_inputs));
    if (out->position.input > inputs->count || psk_input_list_hash(inputs, out->position.input) != read_inputs)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "%s: the inputs that were read before the preparation stopped (%" PRId64 " of them) are not "
                        "the first ones now, or have other sizes: give the same inputs, or remove the folder to start "
                        "again",
                        where, out->position.input);
    return PSK_OK;
}

/* Leaving bad lines out may begin on the way: what was read without it has none. */
static bool may_differ(const char *key, const json_t *before) {
    return strcmp(key, "skip_bad_lines") == 0 && json_is_false(before);
}

/* Every option is what it was when the preparation began. */
static psk_status compare_options(json_t *object, const char *where, const psk_prepare_options *options,
                                  const char *tokenizer) {
    const char *key;
    json_t *value;
    psk_json_init();
    json_t *const now = json_object();
    psk_status status = now ? add_options(now, options, tokenizer) : psk_fail(PSK_ERROR_MEMORY, "out of memory");
    json_object_foreach(now, key, value) {
        json_t *const before = json_object_get(object, key);
        if (status != PSK_OK || (before && json_equal(before, value)) || may_differ(key, before))
            continue;
        status = psk_fail(PSK_ERROR_ARGUMENT,
                          "%s: \"%s\" is not what it was when this preparation began (the file says what): give the "
                          "same options, or remove the folder to start again",
                          where, key);
    }
    json_decref(now);
    return status;
}

psk_status psk_journal_read(const psk_prepare_options *options, const char *tokenizer, const psk_input_list *inputs,
                            psk_journal *out, bool *found) {
    psk_status status = PSK_OK;
    json_t *object = NULL;
    char *path;
    *out = (psk_journal){.position = {.document = -1}};
    PSK_TRY(journal_path(options->output, &path));
    *found = psk_is_file(path);
    if (!*found)
        goto done;
    PSK_TRY_GOTO(status, psk_json_load(path, &object), done);
    PSK_TRY_GOTO(status, get_result(object, path, out), done);
    if (out->finished)
        status =
            psk_fail(PSK_ERROR_ARGUMENT, "%s is prepared already: remove it or choose another folder", options->output);
    else
        status = compare_options(object, path, options, tokenizer);
    if (status == PSK_OK)
        status = get_position(object, path, inputs, out);
done:
    json_decref(object);
    psk_free(path);
    return status;
}

psk_status psk_journal_read_finished(const char *folder, psk_prepare_result *out, bool *found) {
    psk_status status = PSK_OK;
    psk_journal journal = {0};
    json_t *object = NULL;
    char *path;
    PSK_TRY(journal_path(folder, &path));
    *found = psk_is_file(path);
    if (!*found)
        goto done;
    PSK_TRY_GOTO(status, psk_json_load(path, &object), done);
    PSK_TRY_GOTO(status, get_result(object, path, &journal), done);
    if (!journal.finished)
        status = psk_fail(PSK_ERROR_FORMAT,
                          "%s is not finished: preparing it was stopped or failed; give the same `polysketch prepare` "
                          "again, it goes on from there",
                          folder);
    *out = journal.result;
done:
    json_decref(object);
    psk_free(path);
    return status;
}

psk_status psk_journal_remove(const char *folder) {
    char *path;
    PSK_TRY(journal_path(folder, &path));
    const psk_status status = psk_remove_tree(path);
    psk_free(path);
    return status;
}
