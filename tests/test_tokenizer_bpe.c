/* Byte-level BPE: with a small vocabulary of our own, and with GPT-2's where its files are: PSK_GPT2_TOKENIZER names
 * the folder of vocab.json and merges.txt. */
#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/rng.h"
#include "data/bpe_alphabet.h"
#include "data/bpe_merge.h"
#include "data/bpe_split.h"
#include "data/tokenizer.h"
#include "support.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SEED 11

/* -------------------------------------------------------------------------------------------------- small vocabulary
 */

#define BYTES       256
#define MERGES      150
#define NAME_SIZE   64
#define SMALL_VOCAB (BYTES + MERGES + 1)
#define END_OF_TEXT (SMALL_VOCAB - 1)

/* Bytes, then what random merges give, then end-of-text. */
typedef struct vocabulary {
    char names[SMALL_VOCAB][NAME_SIZE];
    int left[MERGES], right[MERGES]; /* ids */
} vocabulary;

static int find_name(const vocabulary *v, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (strcmp(v->names[i], name) == 0)
            return i;
    return -1;
}

/* Merges of bytes of the alphabet "ab c" and of what came before, a with a the first. */
static void make_vocabulary(vocabulary *v, uint64_t seed) {
    psk_rng rng = psk_rng_make(seed, 0);
    memset(v, 0, sizeof *v);
    for (int i = 0; i < BYTES; i++)
        psk_bpe_write_byte((unsigned char)i, v->names[i]);
    for (int i = 0; i < MERGES;) {
        const int first[] = {'a', 'b', 'c', ' ', 'a'};
        const uint64_t from = 5 + (uint64_t)i;
        const uint64_t a = psk_rng_below(&rng, from), b = psk_rng_below(&rng, from);
        const int left = i == 0 || a < 5 ? first[i == 0 ? 0 : a] : BYTES + (int)a - 5;
        const int right = i == 0 || b < 5 ? first[i == 0 ? 0 : b] : BYTES + (int)b - 5;
        char name[2 * NAME_SIZE];
        snprintf(name, sizeof name, "%s%s", v->names[left], v->names[right]);
        if (strlen(name) > 12 || find_name(v, BYTES + i, name) >= 0)
            continue;
        memcpy(v->names[BYTES + i], name, strlen(name) + 1);
        v->left[i] = left;
        v->right[i++] = right;
    }
    strcpy(v->names[END_OF_TEXT], "<|endoftext|>");
}

static void write_pair(const vocabulary *v, const char *folder) {
    char path[512];
    FILE *file;
    json_t *vocab = json_object();
    for (int i = 0; i < SMALL_VOCAB; i++)
        json_object_set_new(vocab, v->names[i], json_integer(i));
    snprintf(path, sizeof path, "%s/vocab.json", folder);
    assert_int_equal(json_dump_file(vocab, path, 0), 0);
    json_decref(vocab);
    snprintf(path, sizeof path, "%s/merges.txt", folder);
    file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "#version: 0.2\n");
    for (int i = 0; i < MERGES; i++)
        fprintf(file, "%s %s\n", v->names[v->left[i]], v->names[v->right[i]]);
    fclose(file);
}

typedef struct fixture {
    char *folder;
    vocabulary vocabulary;
    psk_tokenizer *tokenizer;
} fixture;

static int set_up(void **state) {
    static fixture f;
    f.folder = psk_test_folder();
    make_vocabulary(&f.vocabulary, SEED);
    write_pair(&f.vocabulary, f.folder);
    *state = &f;
    return psk_tokenizer_load(f.folder, &f.tokenizer) == PSK_OK ? 0 : -1;
}

static int tear_down(void **state) {
    fixture *f = *state;
    psk_tokenizer_free(f->tokenizer);
    psk_test_remove_folder(f->folder);
    return 0;
}

/* ------------------------------------------------------------------------------------------------------------ oracle
 */

/* The definition: of all neighbours that a merge names, those of the first merge become one, the leftmost first. */
static int merge_slowly(const vocabulary *v, int *ids, int count) {
    for (;;) {
        int best = MERGES, at = -1;
        for (int i = 0; i + 1 < count; i++)
            for (int m = 0; m < best; m++)
                if (v->left[m] == ids[i] && v->right[m] == ids[i + 1]) {
                    best = m;
                    at = i;
                }
        if (at < 0)
            return count;
        ids[at] = BYTES + best;
        count--;
        memmove(ids + at + 1, ids + at + 2, (size_t)(count - at - 1) * sizeof *ids);
    }
}

static void check_merges(const fixture *f, const char *text, size_t size) {
    int *ids = malloc((size + 1) * sizeof *ids);
    int32_t *tokens;
    int64_t count;
    for (size_t i = 0; i < size; i++)
        ids[i] = (unsigned char)text[i];
    const int expected = merge_slowly(&f->vocabulary, ids, (int)size);
    PSK_TEST_OK(psk_tokenizer_encode(f->tokenizer, text, size, &tokens, &count));
    assert_int_equal(count, expected);
    for (int i = 0; i < expected; i++)
        assert_int_equal(tokens[i], ids[i]);
    psk_buffer_free(tokens);
    free(ids);
}

/* Pieces of one kind of letter, so that splitting has no part in it; lengths around those where the way of computing
 * changes. Each twice: the second time from memory. */
static void merges_by_definition(void **state) {
    const int lengths[] = {0, 1, 2, 3, 7, 9, 10, 11, 21, 22, 23, 24, 25, 26, 31, 64, 200};
    psk_rng rng = psk_rng_make(SEED, 1);
    for (int round = 0; round < 40; round++)
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
            char text[256];
            for (int j = 0; j < lengths[i]; j++)
                text[j] = "abc"[psk_rng_below(&rng, 3)];
            if (lengths[i] > 1 && round % 2)
                text[0] = ' ';
            check_merges(*state, text, (size_t)lengths[i]);
            check_merges(*state, text, (size_t)lengths[i]);
        }
}

/* A quadratic way would take hours for the second. */
static void long_pieces(void **state) {
    const fixture *f = *state;
    const size_t size = 1 << 20;
    char *text = malloc(size);
    memset(text, 'a', size);
    check_merges(f, text, 3000);
    int32_t *tokens;
    int64_t count;
    PSK_TEST_OK(psk_tokenizer_encode(f->tokenizer, text, size, &tokens, &count));
    assert_true(count >= 1 && count < (int64_t)size);
    psk_buffer_free(tokens);
    free(text);
}

/* ---------------------------------------------------------------------------------------------------------- any text
 */

/* Bytes of every kind: ASCII, characters of 2 to 4 bytes, their parts, anything. */
static size_t random_text(psk_rng *rng, char *text, size_t capacity) {
    static const char *const parts[] = {
        "a", "b", "c",        " ",        "  ",       "\n",           "\r\n",     "'s",           "'",
        "7", "!", "\xC3\xA9", "\xE6\x97", "\xE2\x80", "\xF0\x9F\x98", "\x80\x80", "\xE3\x80\x80", "\xC2\xA0"};
    const size_t limit = (size_t)psk_rng_below(rng, capacity - 4);
    size_t size = 0;
    while (size < limit) {
        const uint64_t pick = psk_rng_below(rng, 24);
        if (pick < sizeof parts / sizeof parts[0]) {
            memcpy(text + size, parts[pick], strlen(parts[pick]));
            size += strlen(parts[pick]);
        } else {
            text[size++] = (char)psk_rng_below(rng, 256);
        }
    }
    return size;
}

static void check_texts(const psk_tokenizer *tokenizer, const int32_t *tokens, int64_t count, const char *text,
                        size_t size) {
    size_t at = 0;
    for (int64_t i = 0; i < count; i++) {
        const char *part;
        size_t part_size;
        PSK_TEST_OK(psk_tokenizer_token_text(tokenizer, tokens[i], &part, &part_size));
        assert_true(part_size > 0 && part_size <= size - at);
        assert_memory_equal(part, text + at, part_size);
        at += part_size;
    }
    assert_int_equal(at, size);
}

static void check_round_trips(const psk_tokenizer *tokenizer, uint64_t stream, int rounds) {
    psk_rng rng = psk_rng_make(SEED, stream);
    print_message("    seed %d\n", SEED);
    for (int round = 0; round < rounds; round++) {
        char text[300];
        int32_t *tokens;
        int64_t count;
        const size_t size = random_text(&rng, text, sizeof text);
        PSK_TEST_OK(psk_tokenizer_encode(tokenizer, text, size, &tokens, &count));
        check_texts(tokenizer, tokens, count, text, size);
        psk_buffer_free(tokens);
    }
}

static void any_bytes_there_and_back(void **state) {
    check_round_trips(((const fixture *)*state)->tokenizer, 2, 3000);
}

#define THREADS 4

typedef struct worker {
    const psk_tokenizer *tokenizer;
    const char *text;
    size_t size;
    int32_t *tokens;
    int64_t count;
    psk_status status;
} worker;

static void *encode_often(void *argument) {
    worker *w = argument;
    for (int i = 0; i < 50 && w->status == PSK_OK; i++) {
        psk_buffer_free(w->tokens);
        w->status = psk_tokenizer_encode(w->tokenizer, w->text, w->size, &w->tokens, &w->count);
    }
    return NULL;
}

/* One tokenizer, many threads. */
static void threads_at_once(void **state) {
    const fixture *f = *state;
    psk_rng rng = psk_rng_make(SEED, 5);
    char text[300];
    worker workers[THREADS];
    pthread_t threads[THREADS];
    const size_t size = random_text(&rng, text, sizeof text);
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (worker){.tokenizer = f->tokenizer, .text = text, .size = size};
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        PSK_TEST_OK(workers[i].status);
        check_texts(f->tokenizer, workers[i].tokens, workers[i].count, text, size);
        psk_buffer_free(workers[i].tokens);
    }
}

static void end_of_text_is_no_text(void **state) {
    const fixture *f = *state;
    static const char text[] = "<|endoftext|>";
    const char *part;
    size_t size;
    int32_t *tokens;
    int64_t count;
    assert_int_equal(psk_tokenizer_end_of_text(f->tokenizer), END_OF_TEXT);
    PSK_TEST_OK(psk_tokenizer_token_text(f->tokenizer, END_OF_TEXT, &part, &size));
    assert_int_equal(size, 0);
    PSK_TEST_OK(psk_tokenizer_encode(f->tokenizer, text, sizeof text - 1, &tokens, &count));
    check_texts(f->tokenizer, tokens, count, text, sizeof text - 1);
    psk_buffer_free(tokens);
}

/* ------------------------------------------------------------------------------------------------------------ pieces
 */

/* Texts and what they fall into, with '|' between the pieces. */
static const char *const split_cases[] = {
    "Hello|,| world|!",
    "don|'t| I|'ll| we|'ve| DON|'|T| it|'s| '|s",
    "  | two|  | and|\n\n|\n|x|\t|y|   ",
    " 12|ab|34|.|5| §|½",
    "caf\xC3\xA9| \xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E|\xE3\x80\x82",
    "a| |\xC2\xA0|b| |\xC2\x85|c| |\xE1\x9A\x80|d| |\xE2\x80\x83|e", /* spaces: the last of several stands alone */
    "a| |\xE2\x80\xA8|b| |\xE2\x80\xA9|c| |\xE2\x80\xAF|d| |\xE2\x81\x9F|e| |\xE3\x80\x80|f",
    "a| \xE1\xA0\x8E|b| \xE2\x80\x8B|c", /* no spaces: U+180E, U+200B */
    "a|\x80|\xFF|b|\xE6|\x97|c| |\xC3",
    "a|\xC0|\x80|\xED|\xA0|\x80|\xF4|\x90|\x80|\x80|z", /* overlong, a surrogate, above U+10FFFF */
};

static void check_split(const psk_splitter *splitter, void *match, const char *expected) {
    char text[128], got[256];
    size_t size = 0, length = 0;
    for (const char *c = expected; *c; c++)
        if (*c != '|')
            text[size++] = *c;
    psk_split split = {.splitter = splitter, .match = match, .text = text, .size = size};
    for (;;) {
        const char *piece;
        size_t piece_size;
        bool found;
        PSK_TEST_OK(psk_split_next(&split, &piece, &piece_size, &found));
        if (!found)
            break;
        if (length)
            got[length++] = '|';
        memcpy(got + length, piece, piece_size);
        length += piece_size;
    }
    got[length] = 0;
    assert_string_equal(got, expected);
}

static void pieces(void **state) {
    (void)state;
    psk_splitter *splitter;
    void *match;
    PSK_TEST_OK(psk_splitter_create(&splitter));
    PSK_TEST_OK(psk_split_match_create(splitter, &match));
    for (size_t i = 0; i < sizeof split_cases / sizeof split_cases[0]; i++)
        check_split(splitter, match, split_cases[i]);
    psk_split_match_free(match);
    psk_splitter_free(splitter);
}

/* ------------------------------------------------------------------------------------------------------------- files
 */

static void write_file(const fixture *f, const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", f->folder, name);
    PSK_TEST_OK(psk_write_file(path, text, strlen(text)));
}

static json_t *read_json(const char *folder, const char *name) {
    char path[512];
    json_t *object;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    PSK_TEST_OK(psk_json_load(path, &object));
    return object;
}

static void saved_and_read(void **state) {
    const fixture *f = *state;
    char *folder = psk_test_folder();
    psk_tokenizer *again;
    PSK_TEST_OK(psk_tokenizer_save(f->tokenizer, folder));
    PSK_TEST_OK(psk_tokenizer_load(folder, &again));
    assert_string_equal(psk_tokenizer_name(again), psk_tokenizer_name(f->tokenizer));
    assert_int_equal(psk_tokenizer_vocab_size(again), SMALL_VOCAB);
    assert_int_equal(psk_tokenizer_end_of_text(again), END_OF_TEXT);
    check_round_trips(again, 3, 50);
    psk_tokenizer_free(again);
    psk_test_remove_folder(folder);
}

/* Another order of merges is another tokenizer. */
static void name_says_what_it_is(void **state) {
    fixture *f = *state;
    psk_tokenizer *other;
    const int left = f->vocabulary.left[0], right = f->vocabulary.right[0];
    f->vocabulary.left[0] = f->vocabulary.left[1];
    f->vocabulary.right[0] = f->vocabulary.right[1];
    f->vocabulary.left[1] = left;
    f->vocabulary.right[1] = right;
    write_pair(&f->vocabulary, f->folder);
    PSK_TEST_OK(psk_tokenizer_load(f->folder, &other));
    assert_string_not_equal(psk_tokenizer_name(other), psk_tokenizer_name(f->tokenizer));
    psk_tokenizer_free(other);
}

/* Changes to a good tokenizer.json: `value`, JSON, at `section`.`key` (section NULL: at the top). */
static const struct {
    const char *section, *key, *value;
    psk_status status;
    const char *message, *message_too;
} json_cases[] = {
    {NULL, "version", "\"1.0\"", PSK_OK, "", ""},
    {NULL, "post_processor", "null", PSK_OK, "", ""},
    {NULL, "normalizer", "{\"type\": \"NFC\"}", PSK_ERROR_UNSUPPORTED, "normalizer", "NFC"},
    {NULL, "pre_tokenizer", "{\"type\": \"Metaspace\"}", PSK_ERROR_UNSUPPORTED, "pre_tokenizer", "Metaspace"},
    {NULL, "pre_tokenizer", "null", PSK_ERROR_UNSUPPORTED, "pre_tokenizer", ""},
    {NULL, "pre_tokenizer", "7", PSK_ERROR_UNSUPPORTED, "pre_tokenizer", "7"},
    {NULL, "post_processor", "{\"type\": \"TemplateProcessing\"}", PSK_ERROR_UNSUPPORTED, "TemplateProcessing", ""},
    {NULL, "decoder", "{\"type\": \"WordPiece\"}", PSK_ERROR_UNSUPPORTED, "decoder", "WordPiece"},
    {NULL, "truncation", "{\"max_length\": 3}", PSK_ERROR_UNSUPPORTED, "truncation", ""},
    {"pre_tokenizer", "add_prefix_space", "true", PSK_ERROR_UNSUPPORTED, "add_prefix_space", "true"},
    {"pre_tokenizer", "use_regex", "false", PSK_ERROR_UNSUPPORTED, "use_regex", "false"},
    {"model", "type", "\"Unigram\"", PSK_ERROR_UNSUPPORTED, "model.type", "Unigram"},
    {"model", "dropout", "0.1", PSK_ERROR_UNSUPPORTED, "model.dropout", "0.1"},
    {"model", "byte_fallback", "true", PSK_ERROR_UNSUPPORTED, "byte_fallback", ""},
    {"model", "ignore_merges", "true", PSK_ERROR_UNSUPPORTED, "ignore_merges", ""},
    {"model", "end_of_word_suffix", "\"</w>\"", PSK_ERROR_UNSUPPORTED, "end_of_word_suffix", "</w>"},
    {NULL, "model", "[]", PSK_ERROR_FORMAT, "model.vocab", ""},
    {NULL, "model", "null", PSK_ERROR_FORMAT, "model.vocab", ""},
    {"model", "vocab", "[]", PSK_ERROR_FORMAT, "model.vocab", ""},
    {"model", "vocab", "{}", PSK_ERROR_FORMAT, "id", ""},
    {"model", "merges", "{}", PSK_ERROR_FORMAT, "model.merges", ""},
    {"model", "merges", "[\"a a\", 3]", PSK_ERROR_FORMAT, "merge 1", "two tokens"},
    {"model", "merges", "[[\"a\", \"b\", \"c\"]]", PSK_ERROR_FORMAT, "merge 0", "two tokens"},
    {"model", "merges", "[\"a  b\"]", PSK_ERROR_FORMAT, "merge 0", "two tokens"},
    {"model", "merges", "[\"a qqq\"]", PSK_ERROR_FORMAT, "merge 0", "\"qqq\" is not in the vocabulary"},
    {NULL, "added_tokens", "7", PSK_ERROR_FORMAT, "added_tokens", ""},
    {NULL, "added_tokens", "[7]", PSK_ERROR_FORMAT, "entry 0 of added_tokens", "content"},
    {NULL, "added_tokens", "[{\"content\": \"<x>\", \"id\": \"7\"}]", PSK_ERROR_FORMAT, "entry 0", ""},
    {NULL, "added_tokens", "[{\"content\": \"<x>\", \"id\": 407}]", PSK_ERROR_UNSUPPORTED, "<x>", "not special"},
    {NULL, "added_tokens", "[{\"content\": \"<x>\", \"id\": 407, \"special\": true}]", PSK_OK, "", ""},
    {NULL, "added_tokens", "[{\"content\": \"<x>\", \"id\": 408, \"special\": true}]", PSK_ERROR_FORMAT, "<x>", "407"},
    {NULL, "added_tokens", "[{\"content\": \"<x>\", \"id\": 5, \"special\": true}]", PSK_ERROR_FORMAT, "<x>",
     "same id 5"},
    {NULL, "added_tokens", "[{\"content\": \"a\", \"id\": 5, \"special\": true}]", PSK_ERROR_FORMAT, "\"a\"",
     "two ids"},
    {NULL, "added_tokens", "[{\"content\": \"a\", \"id\": 97, \"special\": true}]", PSK_ERROR_FORMAT, "0x61", "256"},
};

static void tokenizer_json_refused(void **state) {
    const fixture *f = *state;
    PSK_TEST_OK(psk_tokenizer_save(f->tokenizer, f->folder));
    for (size_t i = 0; i < sizeof json_cases / sizeof json_cases[0]; i++) {
        char path[512];
        psk_tokenizer *tokenizer;
        json_t *object = read_json(f->folder, PSK_TOKENIZER_FILE);
        json_t *const section = json_cases[i].section ? json_object_get(object, json_cases[i].section) : object;
        json_t *const value = json_loads(json_cases[i].value, JSON_DECODE_ANY, NULL);
        assert_int_equal(json_object_set_new(section, json_cases[i].key, value), 0);
        snprintf(path, sizeof path, "%s/changed.json", f->folder);
        assert_int_equal(json_dump_file(object, path, 0), 0);
        json_decref(object);
        print_message("    %s %s\n", json_cases[i].key, json_cases[i].value);
        if (json_cases[i].status == PSK_OK) {
            PSK_TEST_OK(psk_tokenizer_load(path, &tokenizer));
            psk_tokenizer_free(tokenizer);
        } else {
            PSK_TEST_FAILS(psk_tokenizer_load(path, &tokenizer), json_cases[i].status, path, json_cases[i].message,
                           json_cases[i].message_too);
            assert_null(tokenizer);
        }
    }
}

/* merges.txt after a good vocab.json. */
static const struct {
    const char *text;
    psk_status status;
    const char *message, *message_too;
} merge_cases[] = {
    {"#version: 0.2\n", PSK_OK, "", ""},
    {"", PSK_OK, "", ""},
    {"#version: 0.2\na\n", PSK_ERROR_FORMAT, "merges.txt:2:", "two tokens"},
    {"a b c\n", PSK_ERROR_FORMAT, "merges.txt:1:", "two tokens"},
    {" a\n", PSK_ERROR_FORMAT, "merges.txt:1:", "two tokens"},
    {"#version: 0.2\n\na b\n", PSK_ERROR_FORMAT, "merges.txt:2:", "two tokens"},
    {"#version: 0.2\r\na qqq\r\n", PSK_ERROR_FORMAT, "merges.txt:2:", "\"qqq\" is not in the vocabulary"},
    {"a <|endoftext|>", PSK_ERROR_FORMAT, "merges.txt:1:", "not in the vocabulary"},
};

static void merges_refused(void **state) {
    const fixture *f = *state;
    psk_tokenizer *tokenizer;
    char text[512];
    for (size_t i = 0; i < sizeof merge_cases / sizeof merge_cases[0]; i++) {
        write_file(f, "merges.txt", merge_cases[i].text);
        if (merge_cases[i].status == PSK_OK) {
            PSK_TEST_OK(psk_tokenizer_load(f->folder, &tokenizer));
            psk_tokenizer_free(tokenizer);
        } else {
            PSK_TEST_FAILS(psk_tokenizer_load(f->folder, &tokenizer), merge_cases[i].status, merge_cases[i].message,
                           merge_cases[i].message_too);
        }
    }
    const vocabulary *v = &f->vocabulary;
    const char *const left = v->names[v->left[0]], *const right = v->names[v->right[0]];
    snprintf(text, sizeof text, "#version: 0.2\n%s %s\n%s %s\n", left, right, left, right);
    write_file(f, "merges.txt", text);
    PSK_TEST_FAILS(psk_tokenizer_load(f->folder, &tokenizer), PSK_ERROR_FORMAT, "merges.txt:3:", "second time");
}

/* vocab.json in place of a good one. */
static const struct {
    const char *text;
    psk_status status;
    const char *message, *message_too;
} vocab_cases[] = {
    {"", PSK_ERROR_FORMAT, "vocab.json", ""},
    {"{\"a\": 0, \"b\"", PSK_ERROR_FORMAT, "vocab.json", "line 1"},
    {"{\"a\": 0,\n\"a\": 1}", PSK_ERROR_FORMAT, "line 2", "duplicate"},
    {"[]", PSK_ERROR_FORMAT, "vocab.json", "object"},
    {"{\"a\": 0, \"b\": 0}", PSK_ERROR_FORMAT, "\"a\" and \"b\"", "same id 0"},
    {"{\"a\": 0, \"b\": 2}", PSK_ERROR_FORMAT, "\"b\"", "0 to 1"},
    {"{\"a\": 0, \"b\": -1}", PSK_ERROR_FORMAT, "\"b\"", "0 to 1"},
    {"{\"a\": 0, \"b\": \"1\"}", PSK_ERROR_FORMAT, "\"b\"", "0 to 1"},
    {"{\"a\": 0, \"\": 1}", PSK_ERROR_FORMAT, "token 1 is empty", ""},
    {"{\"a\": 0, \"\\u65e5\": 1}", PSK_ERROR_UNSUPPORTED, "stands for no byte", ""},
    {"{\"a\": 0, \"\\u0144\": 1}", PSK_ERROR_UNSUPPORTED, "stands for no byte", ""},
    {"{\"a\": 0, \"a b\": 1}", PSK_ERROR_UNSUPPORTED, "stands for no byte", ""},
    {"{\"a\": 0, \"b\": 1}", PSK_ERROR_FORMAT, "0x00", "256"},
};

static void vocabulary_refused(void **state) {
    const fixture *f = *state;
    psk_tokenizer *tokenizer;
    for (size_t i = 0; i < sizeof vocab_cases / sizeof vocab_cases[0]; i++) {
        write_file(f, "vocab.json", vocab_cases[i].text);
        PSK_TEST_FAILS(psk_tokenizer_load(f->folder, &tokenizer), vocab_cases[i].status, vocab_cases[i].message,
                       vocab_cases[i].message_too);
        assert_null(tokenizer);
    }
}

static void files_missing(void **state) {
    const fixture *f = *state;
    psk_tokenizer *tokenizer;
    char path[512];
    snprintf(path, sizeof path, "%s/merges.txt", f->folder);
    remove(path);
    PSK_TEST_FAILS(psk_tokenizer_load(f->folder, &tokenizer), PSK_ERROR_FILE, path);
    snprintf(path, sizeof path, "%s/vocab.json", f->folder);
    PSK_TEST_FAILS(psk_tokenizer_load(path, &tokenizer), PSK_ERROR_FORMAT, path, "merges.txt", "folder");
}

/* ------------------------------------------------------------------------------------------------------------ memory
 */

static psk_status load_and_encode(void *argument) {
    psk_status status;
    psk_tokenizer *tokenizer;
    int32_t *tokens = NULL;
    int64_t count;
    char text[64];
    memset(text, 'a', sizeof text); /* one long piece */
    PSK_TRY(psk_tokenizer_load(argument, &tokenizer));
    status = psk_tokenizer_encode(tokenizer, text, sizeof text, &tokens, &count);
    psk_buffer_free(tokens);
    psk_tokenizer_free(tokenizer);
    return status;
}

static psk_status save(void *argument) {
    const fixture *f = argument;
    return psk_tokenizer_save(f->tokenizer, f->folder);
}

static void out_of_memory(void **state) {
    const fixture *f = *state;
    assert_true(psk_test_allocation_failures(load_and_encode, f->folder) > 500);
    assert_true(psk_test_allocation_failures(save, *state) > 500);
}

/* ------------------------------------------------------------------------------------------------------------- GPT-2
 */

static void check_golden(const psk_tokenizer *tokenizer, const char *path) {
    char *text;
    size_t size;
    PSK_TEST_OK(psk_read_file(path, 1 << 24, &text, &size));
    json_t *const cases = json_loadb(text, size, JSON_ALLOW_NUL, NULL);
    assert_true(json_array_size(cases) > 0);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *const one = json_array_get(cases, i), *const ids = json_object_get(one, "ids");
        const json_t *const string = json_object_get(one, "text");
        int32_t *tokens;
        int64_t count;
        PSK_TEST_OK(
            psk_tokenizer_encode(tokenizer, json_string_value(string), json_string_length(string), &tokens, &count));
        assert_int_equal(count, json_array_size(ids));
        for (size_t j = 0; j < json_array_size(ids); j++)
            assert_int_equal(tokens[j], json_integer_value(json_array_get(ids, j)));
        check_texts(tokenizer, tokens, count, json_string_value(string), json_string_length(string));
        psk_buffer_free(tokens);
    }
    json_decref(cases);
    psk_free(text);
}

/* Ids that two other encoders agree on. */
static void gpt2_golden(void **state) {
    (void)state;
    const char *const folder = getenv("PSK_GPT2_TOKENIZER");
    psk_tokenizer *tokenizer;
    char path[512];
    if (!folder) {
        print_message("    skipped: PSK_GPT2_TOKENIZER names no folder with GPT-2's vocab.json and merges.txt\n");
        skip();
    }
    PSK_TEST_OK(psk_tokenizer_load(folder, &tokenizer));
    assert_int_equal(psk_tokenizer_vocab_size(tokenizer), 50257);
    assert_int_equal(psk_tokenizer_end_of_text(tokenizer), 50256);
    check_golden(tokenizer, PSK_GOLDEN_DIR "/gpt2_tokens.json");
    snprintf(path, sizeof path, "%s/golden.json", folder);
    if (psk_is_file(path))
        check_golden(tokenizer, path);
    check_round_trips(tokenizer, 4, 3000);
    psk_tokenizer_free(tokenizer);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(merges_by_definition),
        TEST(long_pieces),
        TEST(any_bytes_there_and_back),
        TEST(threads_at_once),
        TEST(end_of_text_is_no_text),
        cmocka_unit_test(pieces),
        TEST(saved_and_read),
        TEST(name_says_what_it_is),
        TEST(tokenizer_json_refused),
        TEST(merges_refused),
        TEST(vocabulary_refused),
        TEST(files_missing),
        TEST(out_of_memory),
        cmocka_unit_test(gpt2_golden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
