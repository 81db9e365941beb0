#include "data/tokenizer.h"

#include "base/files.h"
#include "base/memory.h"
#include "data/file_names.h"
#include "data/tokenizer_kinds.h"

#include <inttypes.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------------------ tokens
 */

psk_status psk_tokens_reserve(psk_tokens *tokens, int64_t more) {
    int64_t capacity, bytes;
    void *larger;
    if (more <= tokens->capacity - tokens->count)
        return PSK_OK;
    PSK_TRY(psk_size_mul(2, tokens->capacity, &capacity));
    if (capacity < tokens->count + more)
        capacity = tokens->count + more;
    PSK_TRY(psk_size_mul(capacity, sizeof *tokens->ids, &bytes));
    PSK_TRY(psk_alloc((size_t)bytes, "tokens", &larger));
    if (tokens->count)
        memcpy(larger, tokens->ids, (size_t)tokens->count * sizeof *tokens->ids);
    psk_free(tokens->ids);
    tokens->ids = larger;
    tokens->capacity = capacity;
    return PSK_OK;
}

/* -------------------------------------------------------------------------------------------------------------- load
 */

/* {"tokenizer": name, "vocab_size": V, "end_of_text": id} has to say what the tokenizer is. */
static psk_status check_facts(const json_t *object, const char *path, const psk_tokenizer *tokenizer) {
    const char *name = "";
    int64_t vocab_size = -1, end_of_text = -2;
    PSK_TRY(psk_json_string(object, path, "tokenizer", &name));
    PSK_TRY(psk_json_int(object, path, "vocab_size", 1, INT32_MAX, &vocab_size));
    PSK_TRY(psk_json_int(object, path, "end_of_text", -1, INT32_MAX, &end_of_text));
    if (strcmp(name, tokenizer->name) == 0 && vocab_size == tokenizer->vocab_size &&
        end_of_text == tokenizer->end_of_text)
        return PSK_OK;
    return psk_fail(PSK_ERROR_FORMAT,
                    "%s: tokenizer \"%s\" has vocab_size %" PRId64 " and end_of_text %" PRId64
                    " there; the one that is there is \"%s\" with %" PRId64 " and %" PRId32,
                    path, name, vocab_size, end_of_text, tokenizer->name, tokenizer->vocab_size,
                    tokenizer->end_of_text);
}

/* Frees the tokenizer unless `status` is PSK_OK. */
static psk_status keep_if(psk_status status, psk_tokenizer **out) {
    if (status != PSK_OK) {
        psk_tokenizer_free(*out);
        *out = NULL;
    }
    return status;
}

static psk_status load_object(const json_t *object, const char *path, psk_tokenizer **out) {
    const char *name = NULL;
    PSK_TRY(psk_json_string(object, path, "tokenizer", &name));
    if (name && strcmp(name, PSK_BYTES_NAME) == 0) {
        PSK_TRY(psk_tokenizer_bytes(out));
        return keep_if(check_facts(object, path, *out), out);
    }
    if (name)
        return psk_fail(PSK_ERROR_FORMAT, "%s: tokenizer \"%s\" consists of other files, which are not beside it", path,
                        name);
    if (json_object_get(object, "model"))
        return psk_tokenizer_bpe_json(object, path, out);
    return psk_fail(PSK_ERROR_FORMAT,
                    "%s: has neither \"tokenizer\", as ours do, nor \"model\", as Hugging Face's do; a vocab.json is "
                    "read with the merges.txt beside it when their folder is named",
                    path);
}

static psk_status load_json(const char *path, psk_tokenizer **out) {
    json_t *object;
    PSK_TRY(psk_json_load(path, &object));
    const psk_status status = load_object(object, path, out);
    json_decref(object);
    return status;
}

/* A .model and, where there is one of ours, the tokenizer.json that was written with it. */
static psk_status load_model(const char *model_path, const char *json_path, psk_tokenizer **out) {
    json_t *object = NULL;
    PSK_TRY(psk_tokenizer_sentencepiece(model_path, out));
    psk_status status = psk_is_file(json_path) ? psk_json_load(json_path, &object) : PSK_OK;
    if (status == PSK_OK && json_object_get(object, "tokenizer"))
        status = check_facts(object, json_path, *out);
    json_decref(object);
    return keep_if(status, out);
}

/* The files that a folder may have. */
enum { MODEL, TOKENIZER_JSON, VOCAB, MERGES, CONFIG, FILE_COUNT };
static const char *const file_names[FILE_COUNT] = {PSK_MODEL_FILE, PSK_TOKENIZER_FILE, "vocab.json", "merges.txt",
                                                   "config.json"};

bool psk_tokenizer_has_file(const char *name) {
    for (int i = 0; i < FILE_COUNT; i++)
        if (strcmp(name, file_names[i]) == 0)
            return true;
    return false;
}

/* A model on bytes needs no tokenizer files. */
static psk_status load_by_config(const char *folder, const char *config_path, psk_tokenizer **out) {
    int64_t vocab_size = -1;
    if (psk_is_file(config_path)) {
        json_t *config;
        PSK_TRY(psk_json_load(config_path, &config));
        const psk_status status = psk_json_int(config, config_path, "vocab_size", 1, INT32_MAX, &vocab_size);
        json_decref(config);
        PSK_TRY(status);
    }
    if (vocab_size == PSK_BYTES_VOCAB)
        return psk_tokenizer_bytes(out);
    return psk_fail(
        PSK_ERROR_FILE,
        "%s has no tokenizer: no " PSK_MODEL_FILE ", no " PSK_TOKENIZER_FILE ", no vocab.json with merges.txt", folder);
}

static psk_status load_files(const char *folder, char *const paths[FILE_COUNT], psk_tokenizer **out) {
    if (psk_is_file(paths[MODEL]))
        return load_model(paths[MODEL], paths[TOKENIZER_JSON], out);
    if (psk_is_file(paths[TOKENIZER_JSON]))
        return load_json(paths[TOKENIZER_JSON], out);
    if (psk_is_file(paths[VOCAB]))
        return psk_tokenizer_bpe_pair(paths[VOCAB], paths[MERGES], out);
    return load_by_config(folder, paths[CONFIG], out);
}

static psk_status load_folder(const char *folder, psk_tokenizer **out) {
    char *paths[FILE_COUNT] = {NULL};
    psk_status status = PSK_OK;
    for (int i = 0; i < FILE_COUNT && status == PSK_OK; i++)
        status = psk_join_path(folder, file_names[i], &paths[i]);
    if (status == PSK_OK)
        status = load_files(folder, paths, out);
    for (int i = 0; i < FILE_COUNT; i++)
        psk_free(paths[i]);
    return status;
}

psk_status psk_tokenizer_load(const char *name_or_path, psk_tokenizer **out) {
    *out = NULL;
    if (!name_or_path)
        return psk_fail(PSK_ERROR_ARGUMENT, "no tokenizer is named: \"" PSK_BYTES_NAME "\", a folder or a file");
    if (strcmp(name_or_path, PSK_BYTES_NAME) == 0)
        return psk_tokenizer_bytes(out);
    if (psk_is_folder(name_or_path))
        return load_folder(name_or_path, out);
    if (psk_name_ends(name_or_path, ".model"))
        return psk_tokenizer_sentencepiece(name_or_path, out);
    if (psk_is_file(name_or_path))
        return load_json(name_or_path, out);
    return psk_fail(PSK_ERROR_ARGUMENT,
                    "there is no tokenizer \"%s\": it is neither \"" PSK_BYTES_NAME
                    "\" nor a folder or file that exists",
                    name_or_path);
}

void psk_tokenizer_free(psk_tokenizer *tokenizer) {
    if (tokenizer)
        tokenizer->kind->free(tokenizer);
}

psk_status psk_tokenizer_make_texts(psk_tokenizer *tokenizer, int64_t bytes) {
    PSK_TRY(psk_alloc((size_t)bytes, "the texts of tokens", (void **)&tokenizer->text));
    return psk_alloc((size_t)(tokenizer->vocab_size + 1) * sizeof *tokenizer->starts, "the texts of tokens",
                     (void **)&tokenizer->starts);
}

/* --------------------------------------------------------------------------------------------------------------- use
 */

const char *psk_tokenizer_name(const psk_tokenizer *tokenizer) {
    return tokenizer->name;
}

int64_t psk_tokenizer_vocab_size(const psk_tokenizer *tokenizer) {
    return tokenizer->vocab_size;
}

int32_t psk_tokenizer_end_of_text(const psk_tokenizer *tokenizer) {
    return tokenizer->end_of_text;
}

psk_status psk_tokenizer_check(const psk_tokenizer *tokenizer, int64_t vocab_size) {
    if (tokenizer->vocab_size <= vocab_size)
        return PSK_OK;
    return psk_fail(PSK_ERROR_ARGUMENT,
                    "tokenizer \"%s\" has %" PRId64 " tokens, the model's vocab_size is %" PRId64
                    ": they do not belong together",
                    tokenizer->name, tokenizer->vocab_size, vocab_size);
}

psk_status psk_tokenizer_append(const psk_tokenizer *tokenizer, const char *text, size_t size, psk_tokens *tokens) {
    return tokenizer->kind->append(tokenizer, text, size, tokens);
}

psk_status psk_tokenizer_encode(const psk_tokenizer *tokenizer, const char *text, size_t size, int32_t **tokens,
                                int64_t *count) {
    psk_tokens list = {0};
    *tokens = NULL;
    *count = 0;
    const psk_status status = psk_tokenizer_append(tokenizer, text, size, &list);
    if (status != PSK_OK) {
        psk_free(list.ids);
        return status;
    }
    *tokens = list.ids;
    *count = list.count;
    return PSK_OK;
}

psk_status psk_tokenizer_token_text(const psk_tokenizer *tokenizer, int32_t token, const char **text, size_t *size) {
    *text = "";
    *size = 0;
    if (token < 0 || token >= tokenizer->vocab_size)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "token %" PRId32 " is outside the vocabulary of tokenizer \"%s\" (0 ... %" PRId64 ")", token,
                        tokenizer->name, tokenizer->vocab_size - 1);
    *text = tokenizer->text + tokenizer->starts[token];
    *size = (size_t)(tokenizer->starts[token + 1] - tokenizer->starts[token]);
    return PSK_OK;
}

psk_status psk_tokenizer_decode(const psk_tokenizer *tokenizer, const int32_t *tokens, int64_t count, char **text,
                                size_t *size) {
    const char *part;
    size_t part_size, total = 0;
    *text = NULL;
    *size = 0;
    for (int64_t i = 0; i < count; i++) {
        PSK_TRY(psk_tokenizer_token_text(tokenizer, tokens[i], &part, &part_size));
        total += part_size;
    }
    PSK_TRY(psk_alloc(total + 1, "the text of tokens", (void **)text));
    for (int64_t i = 0; i < count; i++) {
        PSK_TRY(psk_tokenizer_token_text(tokenizer, tokens[i], &part, &part_size));
        memcpy(*text + *size, part, part_size);
        *size += part_size;
    }
    if (tokenizer->adds_space && *size > 0 && (*text)[0] == ' ')
        memmove(*text, *text + 1, --*size);
    (*text)[*size] = 0;
    return PSK_OK;
}

/* -------------------------------------------------------------------------------------------------------------- save
 */

psk_status psk_tokenizer_save(const psk_tokenizer *tokenizer, const char *folder) {
    PSK_TRY(psk_make_folders(folder));
    return tokenizer->kind->save(tokenizer, folder);
}

static psk_status write_facts(const psk_tokenizer *tokenizer, const char *path) {
    psk_status status;
    psk_json_init();
    json_t *object = json_object();
    if (!object)
        return psk_fail(PSK_ERROR_MEMORY, "out of memory for %s", path);
    PSK_TRY_GOTO(status, psk_json_set(object, "tokenizer", json_string(tokenizer->name)), done);
    PSK_TRY_GOTO(status, psk_json_set(object, "vocab_size", json_integer(tokenizer->vocab_size)), done);
    PSK_TRY_GOTO(status, psk_json_set(object, "end_of_text", json_integer(tokenizer->end_of_text)), done);
    status = psk_json_save(path, object);
done:
    json_decref(object);
    return status;
}

psk_status psk_tokenizer_save_facts(const psk_tokenizer *tokenizer, const char *folder) {
    char *path;
    PSK_TRY(psk_join_path(folder, PSK_TOKENIZER_FILE, &path));
    const psk_status status = write_facts(tokenizer, path);
    psk_free(path);
    return status;
}

/* ---------------------------------------------------------------------------------------------------------- training
 */

psk_tokenizer_train_options psk_tokenizer_train_options_default(void) {
    return (psk_tokenizer_train_options){.field = "text", .vocab_size = 8192, .max_bytes = 100000000};
}
