/* A BPE vocabulary as tokenizer.json, in the form that Hugging Face's library reads. */
#include "base/files.h"
#include "base/memory.h"
#include "data/bpe.h"
#include "data/bpe_alphabet.h"

#include <string.h>

/* What one file is written with. */
typedef struct writer {
    const psk_bpe_parts *parts;
    char *name; /* of a token, or of a merge: two tokens and a space */
} writer;

static int64_t token_size(const psk_bpe_parts *parts, int32_t id) {
    return parts->starts[id + 1] - parts->starts[id];
}

/* Appends the token's name at `end`; returns where it ends, with a 0 byte. */
static char *write_name(const psk_bpe_parts *parts, int32_t id, char *end) {
    const char *const text = parts->text + parts->starts[id];
    for (int64_t i = 0; i < token_size(parts, id); i++)
        end += psk_bpe_write_byte((unsigned char)text[i], end);
    *end = 0;
    return end;
}

static psk_status make_name_buffer(writer *w) {
    int64_t longest = 0;
    for (int32_t id = 0; id < w->parts->vocab_size; id++)
        if (token_size(w->parts, id) > longest)
            longest = token_size(w->parts, id);
    return psk_alloc(2 * PSK_BPE_CHARACTER_SIZE * (size_t)longest + 2, "the names of tokens", (void **)&w->name);
}

static psk_status out_of_memory(void) {
    return psk_fail(PSK_ERROR_MEMORY, "out of memory for " PSK_TOKENIZER_FILE);
}

/* array += value, whose reference is taken. */
static psk_status append(json_t *array, json_t *value) {
    return json_array_append_new(array, value) == 0 ? PSK_OK : out_of_memory();
}

static psk_status fill_vocab(writer *w, json_t *vocab) {
    const psk_bpe_parts *const parts = w->parts;
    for (int32_t id = 0; id < parts->vocab_size; id++) {
        if (token_size(parts, id) == 0)
            continue;
        write_name(parts, id, w->name);
        PSK_TRY(psk_json_set(vocab, w->name, json_integer(id)));
    }
    for (int64_t i = 0; i < parts->special_count; i++)
        PSK_TRY(psk_json_set(vocab, parts->specials[i].name, json_integer(parts->specials[i].id)));
    return PSK_OK;
}

static psk_status fill_merges(writer *w, json_t *merges) {
    for (int64_t i = 0; i < w->parts->merge_count; i++) {
        char *const end = write_name(w->parts, w->parts->merges[i].left, w->name);
        *end = ' ';
        write_name(w->parts, w->parts->merges[i].right, end + 1);
        PSK_TRY(append(merges, json_string(w->name)));
    }
    return PSK_OK;
}

static psk_status fill_specials(writer *w, json_t *added) {
    for (int64_t i = 0; i < w->parts->special_count; i++) {
        const psk_bpe_special *const special = &w->parts->specials[i];
        PSK_TRY(append(added, json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (int)special->id, "content",
                                        special->name, "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0,
                                        "special", 1)));
    }
    return PSK_OK;
}

/* object[key] = a new, empty `value`, filled by `fill`. */
static psk_status set_filled(writer *w, json_t *object, const char *key, json_t *value,
                             psk_status (*fill)(writer *w, json_t *value)) {
    PSK_TRY(psk_json_set(object, key, value)); /* object now owns it */
    return fill(w, value);
}

static psk_status fill_model(writer *w, json_t *model) {
    PSK_TRY(psk_json_set(model, "type", json_string("BPE")));
    PSK_TRY(psk_json_set(model, "dropout", json_null()));
    PSK_TRY(psk_json_set(model, "unk_token", json_null()));
    PSK_TRY(psk_json_set(model, "continuing_subword_prefix", json_null()));
    PSK_TRY(psk_json_set(model, "end_of_word_suffix", json_null()));
    PSK_TRY(psk_json_set(model, "fuse_unk", json_false()));
    PSK_TRY(set_filled(w, model, "vocab", json_object(), fill_vocab));
    return set_filled(w, model, "merges", json_array(), fill_merges);
}

static json_t *byte_level(void) {
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex",
                     1);
}

static psk_status fill_file(writer *w, json_t *file) {
    PSK_TRY(psk_json_set(file, "version", json_string("1.0")));
    PSK_TRY(psk_json_set(file, "truncation", json_null()));
    PSK_TRY(psk_json_set(file, "padding", json_null()));
    PSK_TRY(set_filled(w, file, "added_tokens", json_array(), fill_specials));
    PSK_TRY(psk_json_set(file, "normalizer", json_null()));
    PSK_TRY(psk_json_set(file, "pre_tokenizer", byte_level()));
    PSK_TRY(psk_json_set(file, "post_processor", byte_level()));
    PSK_TRY(psk_json_set(file, "decoder", byte_level()));
    return set_filled(w, file, "model", json_object(), fill_model);
}

psk_status psk_bpe_write(const psk_bpe_parts *parts, const char *folder) {
    psk_status status;
    writer w = {.parts = parts};
    char *path;
    PSK_TRY(psk_join_path(folder, PSK_TOKENIZER_FILE, &path));
    psk_json_init();
    json_t *const file = json_object();
    status = file ? make_name_buffer(&w) : out_of_memory();
    if (status == PSK_OK)
        status = fill_file(&w, file);
    if (status == PSK_OK)
        status = psk_json_save(path, file);
    json_decref(file);
    psk_free(w.name);
    psk_free(path);
    return status;
}
