/* BPE vocabularies from files: vocab.json and merges.txt, or a tokenizer.json of Hugging Face. */
#include "base/files.h"
#include "base/memory.h"
#include "data/bpe.h"
#include "data/bpe_alphabet.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_LIMIT  ((size_t)64 << 20)
#define SHOWN_BYTES 60 /* of a name, in messages */

/* Names of a token that ends a document, the first that is there. */
static const char *const end_names[] = {"<|endoftext|>", "</s>"};

/* One vocabulary being read. Names belong to the JSON object. */
typedef struct reader {
    psk_bpe_parts *parts;
    const char *path; /* of the vocabulary, for messages */
    const json_t *vocab;
    const char **names;  /* by id; vocab_size */
    bool *is_special;    /* by id */
    char *scratch;       /* for a merge: both names and a 0 byte */
    size_t scratch_size; /* of it */
} reader;

/* ------------------------------------------------------------------------------------------------------------ tokens
 */

static psk_status add_name(reader *r, const char *name, const json_t *value) {
    const int64_t V = r->parts->vocab_size;
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) >= V)
        return psk_fail(PSK_ERROR_FORMAT,
                        "%s: the id of token \"%.*s\" is not a number from 0 to %" PRId64
                        ", as it has to be among %" PRId64 " tokens",
                        r->path, SHOWN_BYTES, name, V - 1, V);
    const int64_t id = json_integer_value(value);
    if (r->names[id])
        return psk_fail(PSK_ERROR_FORMAT, "%s: tokens \"%.*s\" and \"%.*s\" have the same id %" PRId64, r->path,
                        SHOWN_BYTES, r->names[id], SHOWN_BYTES, name, id);
    r->names[id] = name;
    return PSK_OK;
}

/* The entry of added_tokens at `index`: a special token, in the vocabulary or beyond it. */
static psk_status add_special(reader *r, const json_t *entry, size_t index) {
    const json_t *const content = json_object_get(entry, "content"), *const id = json_object_get(entry, "id");
    if (!json_is_string(content) || json_string_length(content) == 0 || !json_is_integer(id))
        return psk_fail(PSK_ERROR_FORMAT, "%s: entry %zu of added_tokens lacks a \"content\" that is text or an \"id\"",
                        r->path, index);
    const char *const name = json_string_value(content);
    if (!json_is_true(json_object_get(entry, "special")))
        return psk_fail(PSK_ERROR_UNSUPPORTED,
                        "%s: the added token \"%.*s\" is not special, so it would be cut out of text before the "
                        "merges: that is not supported",
                        r->path, SHOWN_BYTES, name);
    const json_t *const known = json_object_get(r->vocab, name);
    if (!known)
        PSK_TRY(add_name(r, name, id));
    else if (!json_equal(known, id))
        return psk_fail(PSK_ERROR_FORMAT, "%s: token \"%.*s\" has two ids, in the vocabulary and in added_tokens",
                        r->path, SHOWN_BYTES, name);
    r->is_special[json_integer_value(id)] = true;
    return PSK_OK;
}

static int64_t count_tokens(const json_t *vocab, const json_t *added) {
    int64_t count = (int64_t)json_object_size(vocab);
    for (size_t i = 0; i < json_array_size(added); i++) {
        const char *const name = json_string_value(json_object_get(json_array_get(added, i), "content"));
        count += name && !json_object_get(vocab, name);
    }
    return count;
}

/* Every id from 0 to V - 1 has one name afterwards. */
static psk_status read_names(reader *r, const json_t *added) {
    const int64_t V = count_tokens(r->vocab, added);
    const char *name;
    json_t *value;
    if (V > INT32_MAX)
        return psk_fail(PSK_ERROR_FORMAT, "%s: %" PRId64 " tokens are too many", r->path, V);
    r->parts->vocab_size = V;
    PSK_TRY(psk_alloc_zero((size_t)V * sizeof *r->names, "the names of tokens", (void **)&r->names));
    PSK_TRY(psk_alloc_zero((size_t)V * sizeof *r->is_special, "the names of tokens", (void **)&r->is_special));
    json_object_foreach((json_t *)(uintptr_t)r->vocab, name, value) PSK_TRY(add_name(r, name, value));
    for (size_t i = 0; i < json_array_size(added); i++)
        PSK_TRY(add_special(r, json_array_get(added, i), i));
    return PSK_OK;
}

/* Which token ends a document: it is special, also where the file has no list of those. */
static void find_end_of_text(reader *r) {
    r->parts->end_of_text = -1;
    for (size_t i = 0; i < sizeof end_names / sizeof end_names[0] && r->parts->end_of_text < 0; i++)
        for (int32_t id = 0; id < r->parts->vocab_size; id++)
            if (strcmp(r->names[id], end_names[i]) == 0) {
                r->is_special[id] = true;
                r->parts->end_of_text = id;
            }
}

static psk_status read_specials(reader *r) {
    psk_bpe_parts *const parts = r->parts;
    int64_t count = 0;
    for (int64_t id = 0; id < parts->vocab_size; id++)
        count += r->is_special[id];
    PSK_TRY(psk_alloc_zero((size_t)count * sizeof *parts->specials, "special tokens", (void **)&parts->specials));
    for (int32_t id = 0; id < parts->vocab_size; id++) {
        if (!r->is_special[id])
            continue;
        PSK_TRY(psk_strdup(r->names[id], &parts->specials[parts->special_count].name));
        parts->specials[parts->special_count++].id = id;
    }
    return PSK_OK;
}

static psk_status read_texts(reader *r) {
    psk_bpe_parts *const parts = r->parts;
    size_t bytes = 0;
    for (int64_t id = 0; id < parts->vocab_size; id++)
        bytes += strlen(r->names[id]);
    PSK_TRY(psk_alloc(bytes, "the texts of tokens", (void **)&parts->text));
    PSK_TRY(psk_alloc((size_t)(parts->vocab_size + 1) * sizeof *parts->starts, "the texts of tokens",
                      (void **)&parts->starts));
    int64_t end = 0;
    for (int64_t id = 0; id < parts->vocab_size; id++) {
        size_t size = 0;
        if (!r->is_special[id] && !psk_bpe_read_bytes(r->names[id], strlen(r->names[id]), parts->text + end, &size))
            return psk_fail(PSK_ERROR_UNSUPPORTED,
                            "%s: token \"%.*s\" has a character that stands for no byte: this is no byte-level "
                            "vocabulary as GPT-2's is",
                            r->path, SHOWN_BYTES, r->names[id]);
        if (!r->is_special[id] && size == 0)
            return psk_fail(PSK_ERROR_FORMAT, "%s: token %" PRId64 " is empty", r->path, id);
        parts->starts[id] = end;
        end += (int64_t)size;
    }
    parts->starts[parts->vocab_size] = end;
    return PSK_OK;
}

/* The token of every byte: without one of them there would be texts without tokens. */
static psk_status find_bytes(reader *r) {
    psk_bpe_parts *const parts = r->parts;
    for (int byte = 0; byte < 256; byte++)
        parts->bytes[byte] = -1;
    for (int32_t id = 0; id < parts->vocab_size; id++)
        if (parts->starts[id + 1] - parts->starts[id] == 1)
            parts->bytes[(unsigned char)parts->text[parts->starts[id]]] = id;
    for (int byte = 0; byte < 256; byte++)
        if (parts->bytes[byte] < 0)
            return psk_fail(PSK_ERROR_FORMAT, "%s: no token for the byte 0x%02X: all 256 are needed", r->path, byte);
    return PSK_OK;
}

static psk_status read_tokens(reader *r, const json_t *added) {
    PSK_TRY(read_names(r, added));
    find_end_of_text(r);
    PSK_TRY(read_specials(r));
    PSK_TRY(read_texts(r));
    return find_bytes(r);
}

/* ------------------------------------------------------------------------------------------------------------ merges
 */

/* Where a merge stands, for messages: "merges.txt:17" or "tokenizer.json: merge 17". */
typedef struct merge_place {
    const char *path, *before;
    int64_t number;
} merge_place;

static psk_status find_token(const reader *r, const char *name, const merge_place *at, int32_t *id) {
    const json_t *const value = json_object_get(r->vocab, name);
    if (!value || r->is_special[json_integer_value(value)])
        return psk_fail(PSK_ERROR_FORMAT, "%s%s%" PRId64 ": \"%.*s\" is not in the vocabulary (%s)", at->path,
                        at->before, at->number, SHOWN_BYTES, name, r->path);
    *id = (int32_t)json_integer_value(value);
    return PSK_OK;
}

static psk_status not_a_pair(const merge_place *at) {
    return psk_fail(PSK_ERROR_FORMAT, "%s%s%" PRId64 ": a merge is two tokens with one space between them", at->path,
                    at->before, at->number);
}

static psk_status make_scratch(reader *r, size_t size) {
    if (size <= r->scratch_size)
        return PSK_OK;
    psk_free(r->scratch);
    r->scratch_size = 0;
    PSK_TRY(psk_alloc(2 * size, "a merge", (void **)&r->scratch));
    r->scratch_size = 2 * size;
    return PSK_OK;
}

/* "left right", `size` bytes. */
static psk_status add_merge(reader *r, const char *text, size_t size, const merge_place *at) {
    const char *const space = memchr(text, ' ', size);
    const size_t left = space ? (size_t)(space - text) : 0, right = space ? size - left - 1 : 0;
    psk_merge *const merge = &r->parts->merges[r->parts->merge_count];
    if (left == 0 || right == 0 || memchr(space + 1, ' ', right) || memchr(text, 0, size))
        return not_a_pair(at);
    PSK_TRY(make_scratch(r, size + 1));
    memcpy(r->scratch, text, left);
    r->scratch[left] = 0;
    PSK_TRY(find_token(r, r->scratch, at, &merge->left));
    memcpy(r->scratch, space + 1, right);
    r->scratch[right] = 0;
    PSK_TRY(find_token(r, r->scratch, at, &merge->right));
    memcpy(r->scratch, text, left);
    memcpy(r->scratch + left, space + 1, right);
    r->scratch[left + right] = 0;
    PSK_TRY(find_token(r, r->scratch, at, &merge->merged));
    r->parts->merge_count++;
    return PSK_OK;
}

static psk_status reserve_merges(reader *r, int64_t count) {
    int64_t bytes;
    PSK_TRY(psk_size_mul(count, sizeof *r->parts->merges, &bytes));
    return psk_alloc((size_t)bytes, "merges", (void **)&r->parts->merges);
}

/* A pair that stands there twice has no one rank. `first`: number of the first merge in messages. */
static psk_status check_merges(const reader *r, const char *path, const char *before, int64_t first) {
    psk_merge_table *table;
    int64_t repeated;
    PSK_TRY(psk_merge_table_create(r->parts->merges, r->parts->merge_count, &table, &repeated));
    psk_merge_table_free(table);
    if (repeated < 0)
        return PSK_OK;
    const psk_merge *const merge = &r->parts->merges[repeated];
    return psk_fail(PSK_ERROR_FORMAT, "%s%s%" PRId64 ": the merge \"%.*s\" \"%.*s\" stands there a second time", path,
                    before, first + repeated, SHOWN_BYTES, r->names[merge->left], SHOWN_BYTES, r->names[merge->right]);
}

/* Lines, the first of which may be "#version: ..."; an empty one may be the last. */
static psk_status read_merge_lines(reader *r, const char *path, const char *text, size_t size) {
    static const char version[] = "#version";
    const size_t version_size = sizeof version - 1;
    int64_t lines = 1, first = 1;
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    PSK_TRY(reserve_merges(r, lines));
    merge_place at = {path, ":", 0};
    for (size_t start = 0, end; start < size; start = end + 1) {
        const char *const line_end = memchr(text + start, '\n', size - start);
        end = line_end ? (size_t)(line_end - text) : size;
        at.number++;
        const size_t length = end - start - (end > start && text[end - 1] == '\r');
        if (at.number == 1 && length >= version_size && memcmp(text, version, version_size) == 0)
            first = 2;
        else if (length > 0 || end + 1 < size)
            PSK_TRY(add_merge(r, text + start, length, &at));
    }
    return check_merges(r, path, ":", first);
}

static psk_status read_merge_file(reader *r, const char *path) {
    char *text;
    size_t size;
    PSK_TRY(psk_read_file(path, FILE_LIMIT, &text, &size));
    const psk_status status = read_merge_lines(r, path, text, size);
    psk_free(text);
    return status;
}

/* An entry of "merges": "left right", or ["left", "right"]. */
static psk_status add_merge_value(reader *r, const json_t *value, const merge_place *at) {
    const json_t *const left = json_array_get(value, 0), *const right = json_array_get(value, 1);
    char *pair;
    if (json_is_string(value))
        return add_merge(r, json_string_value(value), json_string_length(value), at);
    if (json_array_size(value) != 2 || !json_is_string(left) || !json_is_string(right))
        return not_a_pair(at);
    const size_t size = json_string_length(left) + 1 + json_string_length(right);
    PSK_TRY(psk_alloc(size + 1, "a merge", (void **)&pair));
    snprintf(pair, size + 1, "%s %s", json_string_value(left), json_string_value(right));
    const psk_status status = add_merge(r, pair, size, at);
    psk_free(pair);
    return status;
}

static psk_status read_merge_array(reader *r, const json_t *merges) {
    static const char before[] = ": merge ";
    if (!json_is_array(merges))
        return psk_fail(PSK_ERROR_FORMAT, "%s: model.merges is missing or no list", r->path);
    PSK_TRY(reserve_merges(r, (int64_t)json_array_size(merges)));
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const merge_place at = {r->path, before, (int64_t)i};
        PSK_TRY(add_merge_value(r, json_array_get(merges, i), &at));
    }
    return check_merges(r, r->path, before, 0);
}

/* ------------------------------------------------------------------------------------------------------------- files
 */

static psk_status reader_end(reader *r, psk_status status) {
    psk_free(r->names);
    psk_free(r->is_special);
    psk_free(r->scratch);
    if (status != PSK_OK)
        psk_bpe_parts_free(r->parts);
    return status;
}

psk_status psk_bpe_read_pair(const char *vocab_path, const char *merges_path, psk_bpe_parts *parts) {
    json_t *vocab;
    *parts = (psk_bpe_parts){0};
    PSK_TRY(psk_json_load(vocab_path, &vocab));
    reader r = {.parts = parts, .path = vocab_path, .vocab = vocab};
    psk_status status = read_tokens(&r, NULL);
    if (status == PSK_OK)
        status = read_merge_file(&r, merges_path);
    status = reader_end(&r, status);
    json_decref(vocab);
    return status;
}

/* What else a tokenizer.json may ask for, and what of it is GPT-2's way. All else is refused: approximating it would
 * give other tokens than those that the model was trained on. */
typedef enum { TAKE_EMPTY, TAKE_FALSE, TAKE_TRUE, TAKE_BYTE_LEVEL, TAKE_BPE } taken_value;
static const struct {
    const char *section; /* NULL: at the top */
    const char *key;
    taken_value taken;
    bool required;
} expectations[] = {
    {NULL, "normalizer", TAKE_EMPTY, false},
    {NULL, "truncation", TAKE_EMPTY, false},
    {NULL, "padding", TAKE_EMPTY, false},
    {NULL, "pre_tokenizer", TAKE_BYTE_LEVEL, true},
    {NULL, "post_processor", TAKE_BYTE_LEVEL, false},
    {NULL, "decoder", TAKE_BYTE_LEVEL, false},
    {"pre_tokenizer", "add_prefix_space", TAKE_FALSE, true},
    {"pre_tokenizer", "use_regex", TAKE_TRUE, false},
    {"model", "type", TAKE_BPE, false},
    {"model", "dropout", TAKE_EMPTY, false},
    {"model", "continuing_subword_prefix", TAKE_EMPTY, false},
    {"model", "end_of_word_suffix", TAKE_EMPTY, false},
    {"model", "byte_fallback", TAKE_FALSE, false},
    {"model", "ignore_merges", TAKE_FALSE, false},
};

static bool is_taken(const json_t *value, taken_value taken) {
    const char *type;
    switch (taken) {
    case TAKE_EMPTY:
        return json_is_null(value) || (json_is_string(value) && json_string_length(value) == 0);
    case TAKE_FALSE:
        return json_is_false(value);
    case TAKE_TRUE:
        return json_is_true(value);
    case TAKE_BYTE_LEVEL:
        type = json_string_value(json_object_get(value, "type"));
        return type && strcmp(type, "ByteLevel") == 0;
    case TAKE_BPE:
        return json_is_string(value) && strcmp(json_string_value(value), "BPE") == 0;
    }
    return false;
}

static psk_status check_expectations(const json_t *object, const char *path) {
    for (size_t i = 0; i < sizeof expectations / sizeof expectations[0]; i++) {
        const char *const section = expectations[i].section, *const key = expectations[i].key;
        const json_t *value = json_object_get(section ? json_object_get(object, section) : object, key);
        const bool absent = !value || (json_is_null(value) && expectations[i].taken == TAKE_BYTE_LEVEL);
        if (absent ? !expectations[i].required : is_taken(value, expectations[i].taken))
            continue;
        if (json_is_object(value))
            value = json_object_get(value, "type");
        char *const shown = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        const psk_status status =
            psk_fail(PSK_ERROR_UNSUPPORTED,
                     "%s: %s%s%s is %.*s: not as in GPT-2's byte-level BPE, which is the only kind of tokenizer.json "
                     "that is read",
                     path, section ? section : "", section ? "." : "", key, SHOWN_BYTES, shown ? shown : "missing");
        free(shown);
        return status;
    }
    return PSK_OK;
}

psk_status psk_bpe_read_json(const json_t *object, const char *path, psk_bpe_parts *parts) {
    const json_t *const model = json_object_get(object, "model"), *const added =
                                                                      json_object_get(object, "added_tokens");
    reader r = {.parts = parts, .path = path, .vocab = json_object_get(model, "vocab")};
    *parts = (psk_bpe_parts){0};
    if (!json_is_object(r.vocab))
        return psk_fail(PSK_ERROR_FORMAT, "%s: model.vocab is missing or no object", path);
    if (added && !json_is_array(added) && !json_is_null(added))
        return psk_fail(PSK_ERROR_FORMAT, "%s: added_tokens is no list", path);
    PSK_TRY(check_expectations(object, path));
    psk_status status = read_tokens(&r, added);
    if (status == PSK_OK)
        status = read_merge_array(&r, json_object_get(model, "merges"));
    return reader_end(&r, status);
}
