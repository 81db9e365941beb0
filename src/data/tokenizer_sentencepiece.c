/* A SentencePiece model as a tokenizer. */
#include "base/files.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "data/sentencepiece.h"
#include "data/tokenizer_kinds.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MODEL_LIMIT ((size_t)256 << 20)

/* The library takes many times the memory of what it is given, so long texts come in segments. */
#define SEGMENT_LEAST ((size_t)1 << 14)
#define SEGMENT_MOST  ((size_t)1 << 16)

#define SPACE      "\xE2\x96\x81" /* U+2581, which stands for a space in pieces */
#define SPACE_SIZE 3

typedef struct sentencepiece_tokenizer {
    psk_tokenizer base;
    psk_sentencepiece *model;
    char *file; /* the .model, to be saved again */
    size_t file_size;
    bool spaces_first;  /* in no piece a space follows another character: a text may be cut before spaces */
    int32_t bytes[256]; /* the tokens of single bytes, -1: none */
    bool has_bytes;     /* all of them */
} sentencepiece_tokenizer;

/* ------------------------------------------------------------------------------------------------------------ encode
 */

static bool is_space_sign(const char *text, size_t size) {
    return size >= SPACE_SIZE && memcmp(text, SPACE, SPACE_SIZE) == 0;
}

/* Where the part of the text ends that the library takes as it is: it would replace what is not UTF-8, and would take
 * U+2581 for a space. */
static size_t plain_end(const char *text, size_t size) {
    const size_t valid = psk_utf8_valid_end(text, size, 0);
    for (size_t i = 0; i + SPACE_SIZE <= valid; i++) {
        const char *const sign = memchr(text + i, SPACE[0], valid - i);
        if (!sign)
            break;
        i = (size_t)(sign - text);
        if (is_space_sign(sign, valid - i))
            return i;
    }
    return valid;
}

/* With tokens for all bytes, and if no space is added to each part, nothing is lost: what the library does not take
 * goes as bytes. */
static psk_status encode_exactly(const sentencepiece_tokenizer *t, const char *text, size_t size, psk_tokens *tokens) {
    while (size > 0) {
        const size_t plain = plain_end(text, size);
        if (plain > 0)
            PSK_TRY(psk_sentencepiece_encode(t->model, text, plain, tokens));
        text += plain;
        size -= plain;
        const size_t other = size == 0 ? 0 : is_space_sign(text, size) ? SPACE_SIZE : 1;
        PSK_TRY(psk_tokens_reserve(tokens, (int64_t)other));
        for (size_t i = 0; i < other; i++)
            tokens->ids[tokens->count++] = t->bytes[(unsigned char)text[i]];
        text += other;
        size -= other;
    }
    return PSK_OK;
}

static psk_status encode_segment(const sentencepiece_tokenizer *t, const char *text, size_t size, psk_tokens *tokens) {
    if (t->has_bytes && !t->base.adds_space)
        return encode_exactly(t, text, size, tokens);
    return psk_sentencepiece_encode(t->model, text, size, tokens);
}

static bool is_sign(char c) {
    return c > ' ' && c < 0x7F;
}

/* How much of the text, longer than SEGMENT_MOST, is to be encoded by itself: up to the last single space between ASCII
 * signs, where the tokens are those of the whole text; else up to a character. */
static size_t segment_size(const sentencepiece_tokenizer *t, const char *text) {
    for (size_t i = SEGMENT_MOST - 2; t->spaces_first && i >= SEGMENT_LEAST; i--)
        if (text[i] == ' ' && is_sign(text[i - 1]) && is_sign(text[i + 1]))
            return i;
    size_t end = SEGMENT_MOST;
    while (end > SEGMENT_MOST - 3 && ((unsigned char)text[end] & 0xC0) == 0x80)
        end--;
    return end;
}

static psk_status append(const psk_tokenizer *tokenizer, const char *text, size_t size, psk_tokens *tokens) {
    const sentencepiece_tokenizer *const t = (const sentencepiece_tokenizer *)tokenizer;
    while (size > SEGMENT_MOST) {
        const size_t part = segment_size(t, text);
        PSK_TRY(encode_segment(t, text, part, tokens));
        const size_t done = part + (t->base.adds_space && text[part] == ' '); /* the library adds it again */
        text += done;
        size -= done;
    }
    return size > 0 ? encode_segment(t, text, size, tokens) : PSK_OK;
}

/* ---------------------------------------------------------------------------------------------------- save and free
 */

static psk_status save(const psk_tokenizer *tokenizer, const char *folder) {
    const sentencepiece_tokenizer *const t = (const sentencepiece_tokenizer *)tokenizer;
    char *path;
    PSK_TRY(psk_join_path(folder, PSK_MODEL_FILE, &path));
    const psk_status status = psk_write_file(path, t->file, t->file_size);
    psk_free(path);
    return status == PSK_OK ? psk_tokenizer_save_facts(tokenizer, folder) : status;
}

static void free_tokenizer(psk_tokenizer *tokenizer) {
    sentencepiece_tokenizer *const t = (sentencepiece_tokenizer *)tokenizer;
    psk_sentencepiece_free(t->model);
    psk_free(t->file);
    psk_free(t->base.text);
    psk_free(t->base.starts);
    psk_free(t);
}

static const psk_tokenizer_kind sentencepiece_kind = {append, save, free_tokenizer};

/* -------------------------------------------------------------------------------------------------------------- load
 */

/* The text of a piece into `text`, at most `size` bytes; returns how many. */
static size_t piece_text(sentencepiece_tokenizer *t, int32_t id, const char *piece, size_t size, psk_piece_type type,
                         char *text) {
    static const char unknown[] = " \xE2\x81\x87 "; /* as the library shows it: U+2047 between spaces */
    size_t length = 0;
    unsigned int byte;
    if (type == PSK_PIECE_BYTE && sscanf(piece, "<0x%2X>", &byte) == 1) {
        t->bytes[byte] = id;
        text[length++] = (char)byte;
        return length;
    }
    if (type == PSK_PIECE_UNKNOWN) {
        memcpy(text, unknown, sizeof unknown - 1);
        return sizeof unknown - 1;
    }
    for (size_t i = 0; type == PSK_PIECE_TEXT && i < size; i++) {
        const bool space = is_space_sign(piece + i, size - i);
        if (space && length > 0 && text[length - 1] != ' ')
            t->spaces_first = false;
        text[length++] = space ? ' ' : piece[i];
        i += space ? SPACE_SIZE - 1 : 0;
    }
    return length;
}

static psk_status make_texts(sentencepiece_tokenizer *t) {
    const int32_t V = psk_sentencepiece_count(t->model);
    const size_t most = 5; /* of what is no text: see piece_text */
    size_t bytes = 0, size;
    const char *piece;
    int64_t end = 0;
    for (int32_t id = 0; id < V; id++) {
        psk_sentencepiece_piece(t->model, id, &piece, &size);
        bytes += size > most ? size : most;
    }
    t->base.vocab_size = V;
    PSK_TRY(psk_tokenizer_make_texts(&t->base, (int64_t)bytes));
    for (int i = 0; i < 256; i++)
        t->bytes[i] = -1;
    t->spaces_first = true;
    for (int32_t id = 0; id < V; id++) {
        const psk_piece_type type = psk_sentencepiece_piece(t->model, id, &piece, &size);
        t->base.starts[id] = end;
        end += (int64_t)piece_text(t, id, piece, size, type, t->base.text + end);
    }
    t->base.starts[V] = end;
    t->has_bytes = true;
    for (int i = 0; i < 256; i++)
        t->has_bytes = t->has_bytes && t->bytes[i] >= 0;
    return PSK_OK;
}

/* Whether the tokens of "a" begin with a space. */
static psk_status find_added_space(sentencepiece_tokenizer *t) {
    psk_tokens tokens = {0};
    const psk_status status = psk_sentencepiece_encode(t->model, "a", 1, &tokens);
    if (status == PSK_OK && tokens.count > 0) {
        const int64_t *const start = &t->base.starts[tokens.ids[0]];
        t->base.adds_space = start[0] < start[1] && t->base.text[start[0]] == ' ';
    }
    psk_free(tokens.ids);
    return status;
}

/* Of t->file. */
static psk_status make(sentencepiece_tokenizer *t) {
    PSK_TRY(psk_sentencepiece_create(t->file, t->file_size, &t->model));
    PSK_TRY(make_texts(t));
    PSK_TRY(find_added_space(t));
    t->base.end_of_text = psk_sentencepiece_end(t->model);
    snprintf(t->base.name, sizeof t->base.name, PSK_SENTENCEPIECE_PREFIX "%016" PRIx64,
             (uint64_t)XXH3_64bits(t->file, t->file_size));
    return PSK_OK;
}

/* Takes `file`, whatever the outcome. */
static psk_status create(char *file, size_t size, const char *where, psk_tokenizer **out) {
    sentencepiece_tokenizer *t;
    psk_status status = psk_alloc_zero(sizeof *t, "a tokenizer", (void **)&t);
    if (status != PSK_OK) {
        psk_free(file);
        return status;
    }
    t->base.kind = &sentencepiece_kind;
    t->file = file;
    t->file_size = size;
    status = make(t);
    if (status == PSK_OK) {
        *out = &t->base;
        return PSK_OK;
    }
    free_tokenizer(&t->base);
    return psk_fail_within(status, "%s", where);
}

psk_status psk_tokenizer_sentencepiece(const char *path, psk_tokenizer **out) {
    char *file;
    size_t size;
    *out = NULL;
    PSK_TRY(psk_read_file(path, MODEL_LIMIT, &file, &size));
    return create(file, size, path, out);
}

psk_status psk_tokenizer_sentencepiece_bytes(const char *bytes, size_t size, const char *where, psk_tokenizer **out) {
    char *file;
    *out = NULL;
    PSK_TRY(psk_alloc(size, "a SentencePiece model", (void **)&file));
    memcpy(file, bytes, size);
    return create(file, size, where, out);
}
