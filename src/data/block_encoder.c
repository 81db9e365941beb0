#include "data/block_encoder.h"

#include "base/json.h"
#include "base/memory.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Room that is kept for the next block; a long line may need more. */
#define KEPT_TOKENS ((int64_t)4 * PSK_PIECE_BYTES)

typedef struct encoder {
    const psk_prepare_options *options;
    const psk_tokenizer *tokenizer;
    const psk_input *input;
    const psk_block *block;
    psk_encoded_block *out;
} encoder;

void psk_encoded_block_free(psk_encoded_block *block) {
    for (int side = 0; side < PSK_SIDES; side++)
        psk_free(block->tokens[side].ids);
    *block = (psk_encoded_block){0};
}

static void clear(psk_encoded_block *block) {
    psk_encoded_block empty = {0};
    for (int side = 0; side < PSK_SIDES; side++) {
        psk_tokens *const tokens = &block->tokens[side];
        if (tokens->capacity > KEPT_TOKENS)
            psk_free(tokens->ids);
        else
            empty.tokens[side] = (psk_tokens){.ids = tokens->ids, .capacity = tokens->capacity};
    }
    *block = empty;
}

/* -------------------------------------------------------------------------------------------------------------- text
 */

/* In the pieces in which a reader would have cut it. */
static psk_status encode_text(const encoder *e, psk_side side, const unsigned char *text, int64_t size) {
    while (size > 0) {
        const int64_t length = size > PSK_PIECE_BYTES ? psk_cut_piece(text) : size;
        PSK_TRY(psk_tokenizer_append(e->tokenizer, (const char *)text, (size_t)length, &e->out->tokens[side]));
        e->out->bytes += length;
        text += length;
        size -= length;
    }
    return PSK_OK;
}

static psk_status end_text(const encoder *e, psk_side side) {
    psk_tokens *const tokens = &e->out->tokens[side];
    if (e->tokenizer->end_of_text < 0) /* evaluation takes such a tokenizer too */
        return PSK_OK;
    PSK_TRY(psk_tokens_reserve(tokens, 1));
    tokens->ids[tokens->count++] = e->tokenizer->end_of_text;
    return PSK_OK;
}

static psk_status encode_part(const encoder *e, psk_side side, const unsigned char *text, int64_t size) {
    if (size == 0)
        return PSK_OK;
    PSK_TRY(encode_text(e, side, text, size));
    return end_text(e, side);
}

static psk_status encode_document(const encoder *e, const unsigned char *text, int64_t size) {
    const double fraction = e->options->valid_fraction;
    e->out->documents += size > 0;
    e->out->empty += size == 0;
    if (e->block->side == PSK_VALID || e->options->valid_input_count > 0)
        return encode_part(e, e->block->side, text, size);
    if (e->options->split == PSK_SPLIT_HASH)
        return encode_part(e, psk_hash_side(text, size, fraction), text, size);
    int64_t cut = psk_cut_tail(size, fraction);
    if (cut > 0 && cut < size)
        cut = psk_cut_near(text, cut);
    PSK_TRY(encode_part(e, PSK_TRAIN, text, cut));
    return encode_part(e, PSK_VALID, text + cut, size - cut);
}

static psk_status encode_piece(const encoder *e) {
    const psk_block *const block = e->block;
    e->out->documents += block->ends_document && !block->empty_document;
    e->out->empty += block->ends_document && block->empty_document;
    PSK_TRY(encode_text(e, block->side, block->text, block->size));
    return block->ends_part && block->size > 0 ? end_text(e, block->side) : PSK_OK;
}

/* ----------------------------------------------------------------------------------------------------------- records
 */

/* "name; name; name" of an object's keys, for people. */
static const char *list_keys(json_t *object, char *text, size_t capacity) {
    const char *key;
    json_t *value;
    size_t used = 0;
    *text = 0;
    json_object_foreach(object, key, value) {
        const int more = snprintf(text + used, capacity - used, "%s\"%.40s\"", used ? ", " : "", key);
        if (more < 0 || (size_t)more >= capacity - used)
            break;
        used += (size_t)more;
    }
    return used ? text : "nothing";
}

static psk_status encode_object(const encoder *e, json_t *object, const char *where) {
    const char *text = NULL;
    char keys[200];
    PSK_TRY(psk_json_string(object, where, e->options->field, &text));
    if (!text)
        return psk_fail(
            PSK_ERROR_FORMAT,
            "%s: there is no \"%s\" in it, but %s: the field that holds the text is given as --field NAME to prepare",
            where, e->options->field, list_keys(object, keys, sizeof keys));
    return encode_document(e, (const unsigned char *)text, (int64_t)strlen(text));
}

/* The message of the error, made UTF-8 and cut to fit: it goes into a JSON file. */
static void keep_message(char out[PSK_BLOCK_MESSAGE_SIZE]) {
    psk_utf8_stream characters = {.count = 0};
    size_t used = 0;
    for (const char *text = psk_error_message(); *text && used + PSK_UTF8_OUTPUT_CAPACITY < PSK_BLOCK_MESSAGE_SIZE;
         text++)
        used += psk_utf8_push(&characters, (unsigned char)*text, out + used);
    out[used] = 0;
}

/* A line that cannot be used leaves no token behind: it fails before any of it is encoded. */
static psk_status encode_line(const encoder *e, const unsigned char *line, int64_t size, int64_t number) {
    char where[PSK_BLOCK_MESSAGE_SIZE / 2];
    json_t *object;
    if (psk_is_blank(line, size))
        return PSK_OK;
    snprintf(where, sizeof where, "%s, line %" PRId64, psk_input_name(e->input), number);
    psk_status status = psk_json_parse((const char *)line, (size_t)size, where, &object);
    if (status == PSK_OK) {
        status = encode_object(e, object, where);
        json_decref(object);
    }
    if (status != PSK_ERROR_FORMAT || !e->options->skip_bad_lines)
        return status;
    if (e->out->skipped++ == 0)
        keep_message(e->out->first_skipped);
    return PSK_OK;
}

static psk_status encode_records(const encoder *e) {
    static const unsigned char mark[] = {0xef, 0xbb, 0xbf}; /* of UTF-8, where a file begins */
    const psk_block *const block = e->block;
    int64_t at = 0;
    if (block->format == PSK_FORMAT_JSONL && block->lines == 0 && block->size >= (int64_t)sizeof mark &&
        memcmp(block->text, mark, sizeof mark) == 0)
        at = sizeof mark;
    for (int64_t number = block->lines + 1; at < block->size; number++) {
        const unsigned char *const record = block->text + at;
        const int64_t length = psk_first_record(block->format, record, block->size - at);
        if (block->format == PSK_FORMAT_JSONL)
            PSK_TRY(encode_line(e, record, length, number));
        else if (!psk_is_blank(record, length))
            PSK_TRY(encode_document(e, record, length));
        at += length;
    }
    return PSK_OK;
}

psk_status psk_encode_block(const psk_prepare_options *options, const psk_tokenizer *tokenizer,
                            const psk_input_list *inputs, const psk_block *block, psk_encoded_block *out) {
    const encoder e = {options, tokenizer, &inputs->files[block->input], block, out};
    clear(out);
    const int64_t room = block->size > PSK_PIECE_BYTES ? block->size : PSK_PIECE_BYTES;
    PSK_TRY(psk_tokens_reserve(&out->tokens[block->side], room + 1)); /* once: what is not used takes no memory */
    return block->format == PSK_FORMAT_TEXT ? encode_piece(&e) : encode_records(&e);
}
