/* SentencePiece: vocabularies trained here, and models written byte by byte. */
#include "base/files.h"
#include "base/memory.h"
#include "base/rng.h"
#include "data/sentencepiece.h"
#include "data/tokenizer.h"
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEED  13
#define SPACE "\xE2\x96\x81" /* in pieces */

/* --------------------------------------------------------------------------------------------- models byte by byte
 */

/* A message of protocol buffers being written. */
typedef struct message {
    unsigned char bytes[16384];
    size_t size;
} message;

static void put_varint(message *m, uint64_t value) {
    for (; value >= 0x80; value >>= 7)
        m->bytes[m->size++] = (unsigned char)(value | 0x80);
    m->bytes[m->size++] = (unsigned char)value;
}

static void put_number(message *m, unsigned int field, uint64_t value) {
    put_varint(m, field << 3);
    put_varint(m, value);
}

static void put_bytes(message *m, unsigned int field, const void *bytes, size_t size) {
    put_varint(m, field << 3 | 2);
    put_varint(m, size);
    memcpy(m->bytes + m->size, bytes, size);
    m->size += size;
}

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_BYTE = 6 };

static void put_piece(message *model, const char *piece, float score, int type) {
    message m = {.size = 0};
    put_bytes(&m, 1, piece, strlen(piece));
    put_varint(&m, 2 << 3 | 5);
    memcpy(m.bytes + m.size, &score, sizeof score);
    m.size += sizeof score;
    put_number(&m, 3, (uint64_t)type);
    put_bytes(model, 1, m.bytes, m.size);
}

typedef enum { WITHOUT_BYTES, WITH_BYTES } byte_pieces;

/* BPE pieces that add a space before each text, as most published models do. */
static void write_model(const char *path, byte_pieces with_bytes) {
    static const char *const pieces[] = {SPACE, "a", "b", SPACE "a", "ab"};
    message model = {.size = 0}, trainer = {.size = 0}, normalizer = {.size = 0};
    put_piece(&model, "<unk>", 0, TYPE_UNKNOWN);
    put_piece(&model, "<s>", 0, TYPE_CONTROL);
    put_piece(&model, "</s>", 0, TYPE_CONTROL);
    for (int i = 0; with_bytes == WITH_BYTES && i < 256; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned int)i & 0xFF);
        put_piece(&model, name, 0, TYPE_BYTE);
    }
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++)
        put_piece(&model, pieces[i], -(float)i, TYPE_NORMAL);
    put_number(&trainer, 3, 2); /* BPE */
    put_number(&trainer, 35, with_bytes == WITH_BYTES);
    put_bytes(&normalizer, 1, "identity", 8);
    put_number(&normalizer, 3, 1); /* a space before each text */
    put_number(&normalizer, 4, 0); /* runs of spaces stay */
    put_bytes(&model, 2, trainer.bytes, trainer.size);
    put_bytes(&model, 3, normalizer.bytes, normalizer.size);
    PSK_TEST_OK(psk_write_file(path, model.bytes, model.size));
}

static int set_up(void **state) {
    return psk_test_place_enter(state, PSK_MODEL_FILE);
}

static void check_tokens(const psk_tokenizer *tokenizer, const char *text, const int32_t *expected, int64_t count) {
    int32_t *tokens;
    int64_t got;
    PSK_TEST_OK(psk_tokenizer_encode(tokenizer, text, strlen(text), &tokens, &got));
    assert_int_equal(got, count);
    for (int64_t i = 0; i < count; i++)
        assert_int_equal(tokens[i], expected[i]);
    psk_buffer_free(tokens);
}

static void check_round_trip(const psk_tokenizer *tokenizer, const char *text, size_t size) {
    int32_t *tokens;
    int64_t count;
    char *again;
    size_t again_size;
    PSK_TEST_OK(psk_tokenizer_encode(tokenizer, text, size, &tokens, &count));
    PSK_TEST_OK(psk_tokenizer_decode(tokenizer, tokens, count, &again, &again_size));
    assert_int_equal(again_size, size);
    assert_memory_equal(again, text, size);
    psk_buffer_free(again);
    psk_buffer_free(tokens);
}

/* Worked out by hand: "▁" 3, "a" 4, "b" 5, "▁a" 6 (before "ab" 7, which has a lower score). */
static void pieces_of_a_model(void **state) {
    const psk_test_place *place = *state;
    psk_tokenizer *tokenizer;
    const char *text;
    size_t size;
    write_model(place->path, WITHOUT_BYTES);
    PSK_TEST_OK(psk_tokenizer_load(place->path, &tokenizer));
    assert_int_equal(psk_tokenizer_vocab_size(tokenizer), 8);
    assert_int_equal(psk_tokenizer_end_of_text(tokenizer), 2);
    check_tokens(tokenizer, "ab", (const int32_t[]){6, 5}, 2);
    check_tokens(tokenizer, "b ab", (const int32_t[]){3, 5, 6, 5}, 4);
    check_tokens(tokenizer, "xab", (const int32_t[]){3, 0, 7}, 3);
    check_round_trip(tokenizer, "ab  b a ", 8);
    check_round_trip(tokenizer, " a", 2);
    check_round_trip(tokenizer, "", 0);
    PSK_TEST_OK(psk_tokenizer_token_text(tokenizer, 6, &text, &size));
    assert_int_equal(size, 2);
    assert_memory_equal(text, " a", 2);
    PSK_TEST_OK(psk_tokenizer_token_text(tokenizer, 2, &text, &size));
    assert_int_equal(size, 0);
    psk_tokenizer_free(tokenizer);
}

static void pieces_of_bytes(void **state) {
    const psk_test_place *place = *state;
    psk_tokenizer *tokenizer;
    write_model(place->path, WITH_BYTES);
    PSK_TEST_OK(psk_tokenizer_load(place->path, &tokenizer));
    assert_int_equal(psk_tokenizer_vocab_size(tokenizer), 264);
    check_tokens(tokenizer, "bx", (const int32_t[]){259, 261, 3 + 'x'}, 3);
    check_round_trip(tokenizer, "caf\xC3\xA9 ab", 8);
    psk_tokenizer_free(tokenizer);
}

/* Texts longer than what goes to the library at once: the tokens are those of its parts. */
static void long_texts(void **state) {
    const psk_test_place *place = *state;
    psk_tokenizer *tokenizer;
    int32_t *tokens;
    int64_t count;
    const int64_t words = 100000;
    char *text;
    write_model(place->path, WITH_BYTES);
    PSK_TEST_OK(psk_tokenizer_load(place->path, &tokenizer));
    PSK_TEST_OK(psk_alloc((size_t)words * 3, "a text", (void **)&text));
    for (int64_t i = 0; i < words; i++)
        memcpy(text + 3 * i, "ab ", 3);
    const size_t size = (size_t)words * 3 - 1;
    PSK_TEST_OK(psk_tokenizer_encode(tokenizer, text, size, &tokens, &count));
    assert_int_equal(count, 2 * words);
    for (int64_t i = 0; i < count; i++)
        assert_int_equal(tokens[i], i % 2 ? 261 : 262); /* "▁a" "b" */
    psk_buffer_free(tokens);
    check_round_trip(tokenizer, text, size);
    psk_free(text);
    psk_tokenizer_free(tokenizer);
}

/* ---------------------------------------------------------------------------------------------------------- training
 */

#define LINES 400

typedef struct line_source {
    psk_rng rng;
    int left;
    char line[256];
    psk_status fails; /* with this after half of the lines */
} line_source;

static psk_status next_line(void *user, const char **text, size_t *size) {
    static const char *const words[] = {"the", "other", "there", "then", "caf\xC3\xA9", "12", "naught", "a"};
    line_source *source = user;
    *text = NULL;
    if (source->fails != PSK_OK && source->left < LINES / 2)
        return psk_fail(source->fails, "no more lines");
    if (source->left-- == 0)
        return PSK_OK;
    source->line[0] = 0;
    for (int i = 0; i < 12; i++) {
        strcat(source->line, words[psk_rng_below(&source->rng, sizeof words / sizeof words[0])]);
        strcat(source->line, i % 5 ? " " : "  ");
    }
    *text = source->line;
    *size = strlen(source->line);
    return PSK_OK;
}

static psk_status train(int64_t vocab_size, psk_status fails, char **bytes, size_t *size) {
    line_source source = {.rng = psk_rng_make(SEED, 0), .left = LINES, .fails = fails};
    return psk_sentencepiece_train(vocab_size, next_line, &source, bytes, size);
}

static psk_tokenizer *trained(const char *path) {
    psk_tokenizer *tokenizer;
    char *bytes;
    size_t size;
    PSK_TEST_OK(train(300, PSK_OK, &bytes, &size));
    PSK_TEST_OK(psk_write_file(path, bytes, size));
    psk_free(bytes);
    PSK_TEST_OK(psk_tokenizer_load(path, &tokenizer));
    return tokenizer;
}

static void trained_there_and_back(void **state) {
    const psk_test_place *place = *state;
    psk_tokenizer *tokenizer = trained(place->path);
    psk_rng rng = psk_rng_make(SEED, 1);
    int32_t *tokens;
    int64_t count;
    assert_int_equal(psk_tokenizer_vocab_size(tokenizer), 300);
    assert_int_equal(psk_tokenizer_end_of_text(tokenizer), 1);
    PSK_TEST_OK(psk_tokenizer_encode(tokenizer, "there then other", 16, &tokens, &count));
    assert_true(count < 8);
    psk_buffer_free(tokens);
    check_round_trip(tokenizer, "  the\n\tother\r\n", 14);
    check_round_trip(tokenizer, "<|endoftext|><unk>\xE2\x96\x81the \xE2\x96\xE2\x96\x81", 28);
    for (int round = 0; round < 2000; round++) {
        static const char *const parts[] = {" ", "the", "\xE2\x96\x81", "\xC3\xA9", "\xE2\x96", "\n"};
        char text[200];
        size_t size = 0;
        const size_t limit = (size_t)psk_rng_below(&rng, 190);
        while (size < limit) {
            const uint64_t pick = psk_rng_below(&rng, 12);
            if (pick < 6) {
                memcpy(text + size, parts[pick], strlen(parts[pick]));
                size += strlen(parts[pick]);
            } else {
                text[size++] = (char)psk_rng_below(&rng, 256);
            }
        }
        check_round_trip(tokenizer, text, size);
    }
    psk_tokenizer_free(tokenizer);
}

static void saved_and_read(void **state) {
    const psk_test_place *place = *state;
    psk_tokenizer *tokenizer = trained(place->path), *again;
    char *folder = psk_test_folder(), path[512];
    PSK_TEST_OK(psk_tokenizer_save(tokenizer, folder));
    PSK_TEST_OK(psk_tokenizer_load(folder, &again));
    assert_string_equal(psk_tokenizer_name(again), psk_tokenizer_name(tokenizer));
    psk_tokenizer_free(again);
    /* another model beside the facts of this one */
    snprintf(path, sizeof path, "%s/" PSK_MODEL_FILE, folder);
    write_model(path, WITH_BYTES);
    PSK_TEST_FAILS(psk_tokenizer_load(folder, &again), PSK_ERROR_FORMAT, folder, psk_tokenizer_name(tokenizer), "264");
    remove(path);
    PSK_TEST_FAILS(psk_tokenizer_load(folder, &again), PSK_ERROR_FORMAT, folder, "other files");
    psk_tokenizer_free(tokenizer);
    psk_test_remove_folder(folder);
}

static psk_status no_line(void *user, const char **text, size_t *size) {
    (void)user;
    (void)size;
    *text = NULL;
    return PSK_OK;
}

static long long number_in(const char *words) {
    const char *const at = strstr(psk_error_message(), words);
    assert_non_null(at);
    return strtoll(at + strlen(words), NULL, 10);
}

/* The sizes that a refusal names are those that do. */
static void training_refused(void **state) {
    (void)state;
    char *bytes;
    size_t size;
    PSK_TEST_FAILS(train(100, PSK_OK, &bytes, &size), PSK_ERROR_ARGUMENT, "vocab_size is 100, ", "at least ");
    const long long least = number_in("at least ");
    PSK_TEST_FAILS(train(30000, PSK_OK, &bytes, &size), PSK_ERROR_ARGUMENT, "vocab_size is 30000, ", "at most ");
    const long long most = number_in("at most ");
    assert_in_range(least, 259, most);
    PSK_TEST_FAILS(train(least - 1, PSK_OK, &bytes, &size), PSK_ERROR_ARGUMENT, "at least ");
    PSK_TEST_FAILS(train(most + 1, PSK_OK, &bytes, &size), PSK_ERROR_ARGUMENT, "at most ");
    PSK_TEST_OK(train(least, PSK_OK, &bytes, &size));
    psk_free(bytes);
    PSK_TEST_OK(train(most, PSK_OK, &bytes, &size));
    psk_free(bytes);
    PSK_TEST_FAILS(psk_sentencepiece_train(300, no_line, NULL, &bytes, &size), PSK_ERROR_FORMAT, "no text");
    PSK_TEST_FAILS(train(300, PSK_ERROR_INTERRUPTED, &bytes, &size), PSK_ERROR_INTERRUPTED, "no more lines");
    assert_null(bytes);
}

static int stop(void *user, int64_t done, int64_t total) {
    (void)user;
    (void)done;
    (void)total;
    return 1;
}

/* All that prepare reads is learned from, and what cannot be is passed over. */
static void vocabulary_of_files(void **state) {
    const psk_test_place *place = *state;
    char text[512], lines[512], output[512];
    const char *const inputs[] = {text, lines};
    psk_tokenizer_train_options options = psk_tokenizer_train_options_default();
    psk_tokenizer *tokenizer;
    int32_t *tokens;
    int64_t count;
    snprintf(text, sizeof text, "%s/a.txt", place->folder);
    snprintf(lines, sizeof lines, "%s/b.jsonl", place->folder);
    snprintf(output, sizeof output, "%s/made/new", place->folder);
    static const char content[] = "zebra zebra\tzebra\xFF zebra \xC3 zebra\r\n\nzebra\0zebra",
                      line[] = "{\"text\": \"quagga quagga\"}\n";
    PSK_TEST_OK(psk_write_file(text, content, sizeof content - 1));
    PSK_TEST_OK(psk_write_file(lines, line, sizeof line - 1));
    options.inputs = inputs;
    options.input_count = 2;
    options.output = output;
    options.vocab_size = 258 + 8 + 10; /* 8 letters; merges */
    PSK_TEST_OK(psk_tokenizer_train(&options));
    PSK_TEST_OK(psk_tokenizer_load(output, &tokenizer));
    assert_int_equal(psk_tokenizer_vocab_size(tokenizer), options.vocab_size);
    PSK_TEST_OK(psk_tokenizer_encode(tokenizer, "zebra quagga", 12, &tokens, &count));
    assert_true(count <= 4);
    psk_buffer_free(tokens);
    psk_tokenizer_free(tokenizer);
    PSK_TEST_OK(psk_remove_tree(output));
    options.progress = stop;
    PSK_TEST_FAILS(psk_tokenizer_train(&options), PSK_ERROR_INTERRUPTED, "stopped");
    assert_false(psk_is_folder(output));
    options.progress = NULL;
    options.vocab_size = 5000;
    PSK_TEST_FAILS(psk_tokenizer_train(&options), PSK_ERROR_ARGUMENT, "at most ");
    assert_false(psk_is_folder(output));
    PSK_TEST_OK(psk_make_folders(output));
    PSK_TEST_FAILS(psk_tokenizer_train(&options), PSK_ERROR_ARGUMENT, "at most ");
    assert_true(psk_is_folder(output)); /* it was there before */
    options.vocab_size = 257;
    PSK_TEST_FAILS(psk_tokenizer_train(&options), PSK_ERROR_ARGUMENT, "vocab_size is 257", "258");
    options.vocab_size = 276;
    options.max_bytes = -1;
    PSK_TEST_FAILS(psk_tokenizer_train(&options), PSK_ERROR_ARGUMENT, "max_bytes");
    options.max_bytes = 0;
    options.output = NULL;
    PSK_TEST_FAILS(psk_tokenizer_train(&options), PSK_ERROR_ARGUMENT, "output");
    options.output = output;
    options.input_count = 0;
    PSK_TEST_FAILS(psk_tokenizer_train(&options), PSK_ERROR_ARGUMENT, "nothing to learn from");
}

typedef struct merging {
    const char *output;
    int64_t read; /* bytes, as the progress said last */
    int calls, answer;
} merging;

static int note_read(void *user, int64_t done, int64_t total) {
    merging *const m = user;
    assert_int_equal(m->calls, 0);
    assert_true(done <= total);
    m->read = done;
    return 0;
}

static int note_merging(void *user, int made) {
    merging *const m = user;
    assert_int_equal(made, m->calls);
    m->calls++;
    assert_int_equal(m->read, 11);
    assert_false(psk_is_folder(m->output));
    return m->answer;
}

/* The merges begin when all is read, can be declined, and if the process ends there nothing is left. */
static void merges_come_last(void **state) {
    const psk_test_place *place = *state;
    char text[512], output[512];
    const char *const inputs[] = {text};
    psk_tokenizer_train_options options = psk_tokenizer_train_options_default();
    merging m = {.output = output, .answer = 1};
    snprintf(text, sizeof text, "%s/a.txt", place->folder);
    snprintf(output, sizeof output, "%s/made", place->folder);
    PSK_TEST_OK(psk_write_file(text, "zebra zebra", 11));
    options.inputs = inputs;
    options.input_count = 1;
    options.output = output;
    options.vocab_size = 264;
    options.progress = note_read;
    options.merging = note_merging;
    options.user = &m;
    PSK_TEST_FAILS(psk_tokenizer_train(&options), PSK_ERROR_INTERRUPTED, "stopped");
    assert_int_equal(m.calls, 1);
    assert_false(psk_is_folder(output));
    m = (merging){.output = output};
    PSK_TEST_OK(psk_tokenizer_train(&options));
    assert_int_equal(m.calls, 2); /* nothing was there either when they were made */
    assert_true(psk_is_folder(output));
}

/* Every file by which a folder has a tokenizer or tokens; none of them is touched. */
static void taken_folders(void **state) {
    const psk_test_place *place = *state;
    static const char *const names[] = {
        PSK_MODEL_FILE,    PSK_TOKENIZER_FILE,       "vocab.json", "config.json", "prepare.json",
        "train-00000.psk", "valid-00000.psk.partial"};
    char text[512], output[512], path[600], *kept;
    const char *const inputs[] = {text};
    size_t size;
    psk_tokenizer_train_options options = psk_tokenizer_train_options_default();
    snprintf(text, sizeof text, "%s/a.txt", place->folder);
    snprintf(output, sizeof output, "%s/made", place->folder);
    PSK_TEST_OK(psk_write_file(text, "zebra zebra", 11));
    options.inputs = inputs;
    options.input_count = 1;
    options.output = output;
    options.vocab_size = 258 + 6; /* 5 letters and the space */
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        PSK_TEST_OK(psk_make_folders(output));
        snprintf(path, sizeof path, "%s/%s", output, names[i]);
        PSK_TEST_OK(psk_write_file(path, "kept", 4));
        PSK_TEST_FAILS(psk_tokenizer_train(&options), PSK_ERROR_ARGUMENT, output, names[i], "choose another folder");
        PSK_TEST_OK(psk_read_file(path, 4, &kept, &size));
        assert_string_equal(kept, "kept");
        psk_free(kept);
        PSK_TEST_OK(psk_remove_tree(output));
    }
    PSK_TEST_OK(psk_make_folders(output));
    snprintf(path, sizeof path, "%s/notes.txt", output);
    PSK_TEST_OK(psk_write_file(path, "kept", 4));
    PSK_TEST_OK(psk_tokenizer_train(&options)); /* what else is there does not matter */
    PSK_TEST_FAILS(psk_tokenizer_train(&options), PSK_ERROR_ARGUMENT, output, PSK_TOKENIZER_FILE);
}

static void what_is_no_model(void **state) {
    const psk_test_place *place = *state;
    psk_tokenizer *tokenizer;
    char *bytes;
    size_t size;
    PSK_TEST_FAILS(psk_tokenizer_load(place->path, &tokenizer), PSK_ERROR_FILE, place->path);
    PSK_TEST_OK(psk_write_file(place->path, "", 0));
    PSK_TEST_FAILS(psk_tokenizer_load(place->path, &tokenizer), PSK_ERROR_FORMAT, place->path, "SentencePiece");
    PSK_TEST_OK(psk_write_file(place->path, "hello\xFF\xFF", 7));
    PSK_TEST_FAILS(psk_tokenizer_load(place->path, &tokenizer), PSK_ERROR_FORMAT, place->path, "SentencePiece");
    PSK_TEST_OK(train(300, PSK_OK, &bytes, &size));
    PSK_TEST_OK(psk_write_file(place->path, bytes, size / 2));
    PSK_TEST_FAILS(psk_tokenizer_load(place->folder, &tokenizer), PSK_ERROR_FORMAT, place->path, "SentencePiece");
    psk_free(bytes);
}

static psk_status load_and_encode(void *argument) {
    psk_tokenizer *tokenizer;
    int32_t *tokens;
    int64_t count;
    PSK_TRY(psk_tokenizer_load(argument, &tokenizer));
    const psk_status status = psk_tokenizer_encode(tokenizer, "ab \xFF", 4, &tokens, &count);
    psk_buffer_free(tokens);
    psk_tokenizer_free(tokenizer);
    return status;
}

static void out_of_memory(void **state) {
    const psk_test_place *place = *state;
    write_model(place->path, WITH_BYTES);
    assert_true(psk_test_allocation_failures(load_and_encode, place->folder) > 5);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, psk_test_place_leave)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(pieces_of_a_model), TEST(pieces_of_bytes),  TEST(long_texts),          TEST(trained_there_and_back),
        TEST(saved_and_read),    TEST(training_refused), TEST(vocabulary_of_files), TEST(merges_come_last),
        TEST(taken_folders),     TEST(what_is_no_model), TEST(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
