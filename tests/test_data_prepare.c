/* psk_prepare: formats, splits, bad input. */
#include "data/text_cut.h"
#include "prepare_support.h"

#include <math.h>
#include <unistd.h>

/* Fails as expected and leaves nothing behind. */
#define EXPECT_FAILURE(r, status, ...)                                                                                 \
    do {                                                                                                               \
        PSK_TEST_FAILS(psk_prepare(&(r)->options, &(r)->result), status, __VA_ARGS__);                                 \
        assert_false(psk_is_folder((r)->output));                                                                      \
    } while (0)

/* -------------------------------------------------------------------------------------------------------------- text
 */

static void files_and_folders(void **state) {
    (void)state;
    recipe r;
    PSK_TEST_OK(psk_make_folders(in_folder("texts/inner.txt")));
    write_text("texts/b.txt", "bbbb");
    write_text("texts/a.txt", "one\ntwo\nthree\nfour!\n");
    write_text("texts/ignored.md", "no");
    write_text("texts/ignored.json", "no");
    write_text("texts/empty.txt", "");
    write_text("loose.md", "x");
    make_recipe(&r, "out/deep", (const char *const[]){"texts", "loose.md"}, 2);
    r.options.valid_fraction = 0.25;
    r.options.shard_tokens = 8;
    /* cut 15 of 20 -> 14; 3 of 4; 0 of 1 */
    expect_splits(&r, "one\ntwo\nthree\n|bbb|", "four!\n|b|x|");
    assert_int_equal(r.result.documents, 3);
    assert_int_equal(r.result.empty, 1);
    assert_int_equal(r.result.bytes, 25);
    assert_int_equal(r.result.shards, 3 + 2); /* 19 and 11 tokens */
}

static void cuts_between_characters(void **state) {
    (void)state;
    const struct {
        const char *text, *train, *valid;
    } cases[] = {
        {"abc\xc3\xa9xyz", "abc|", "\xc3\xa9xyz|"},       /* byte 4 is inside the e acute */
        {"ab\xe2\x82\xacxyz", "ab|", "\xe2\x82\xacxyz|"}, /* byte 4 is the last of the euro */
        {"\xf0\x9f\x98\x80\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80|", "\xf0\x9f\x98\x80|"},
        {"\x80\x80\x80\x80\x80\x80\x80\x80", "\x80\x80\x80\x80|", "\x80\x80\x80\x80|"}, /* not UTF-8 */
        {"a\nbcdefg", "a\n|", "bcdefg|"},
        {"abcdefg\n", "abcd|", "efg\n|"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        recipe r;
        make_one(&r, "in.txt");
        r.options.valid_fraction = 0.5;
        write_text("in.txt", cases[i].text);
        expect_splits(&r, cases[i].train, cases[i].valid);
    }
}

/* A text in one file, cut at `valid` of it: every token is where it belongs, whatever pieces it was read in. */
static void expect_cut_text(int64_t size, double fraction) {
    recipe r;
    psk_dataset sides[2];
    int64_t at = 0;
    char *const text = make_bytes(size, (uint64_t)size);
    PSK_TEST_OK(psk_write_file(in_folder("in.txt"), text, (size_t)size));
    make_one(&r, "in.txt");
    r.options.valid_fraction = fraction;
    r.options.shard_tokens = 300000;
    PSK_TEST_OK(psk_prepare(&r.options, &r.result));
    for (int side = 0; side < 2; side++) {
        PSK_TEST_OK(psk_dataset_open(r.output, side ? "valid" : "train", &sides[side]));
        for (int64_t i = 0; i < sides[side].tokens; i++) {
            int32_t token;
            PSK_TEST_OK(psk_dataset_read(&sides[side], i, 1, &token));
            assert_int_equal(token, i + 1 == sides[side].tokens ? 256 : (unsigned char)text[at++]);
        }
    }
    assert_int_equal(at, size);
    const int64_t wanted = (int64_t)floor((double)size * (1 - fraction));
    int64_t cut = wanted; /* or after the last line end within 1,024 bytes */
    while (cut > wanted - 1024 && text[cut - 1] != '\n')
        cut--;
    assert_int_equal(sides[0].tokens - 1, cut > wanted - 1024 ? cut : wanted);
    psk_dataset_close(&sides[0]);
    psk_dataset_close(&sides[1]);
    PSK_TEST_OK(psk_remove_tree(r.output));
    free(text);
}

/* Sizes around the pieces of 256 KiB, and cuts around their ends. */
static void long_texts(void **state) {
    (void)state;
    const int64_t piece = 1 << 18;
    const int64_t sizes[] = {piece - 1, piece, piece + 1, piece + 2, 2 * piece + 1, 700001};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        expect_cut_text(sizes[i], 0.3);
    const int64_t from_end[] = {-3000, -2048, -1024, -20, -3, 0, 3, 20, 1000}; /* the cut passes over the piece's end */
    for (size_t i = 0; i < sizeof from_end / sizeof from_end[0]; i++)
        expect_cut_text(2 * piece, 1 - (double)(piece + from_end[i]) / (double)(2 * piece));
}

#if PSK_WITH_PCRE2
/* A tokenizer of GPT-2's kind: the 256 bytes under its names for them, then merges that tell where a text was cut. */
static void write_bpe(void) {
    static const char *const merges[] = {
        "t h", "e r", "\xc4\xa0 t", "\xc4\xa0t h", "\xc4\x8a \xc4\x8a", "\xc4\xa0 \xc4\xa0"};
    char vocab[8192] = "{", list[256] = "#version: 0.2\n", *end = vocab + 1;
    int other = 256;
    for (int byte = 0; byte < 256; byte++) {
        const bool itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
        const int name = itself ? byte : other++;
        end += sprintf(end, "\"\\u%04x\": %d, ", (unsigned)name, byte);
    }
    for (int i = 0; i < 6; i++) {
        char left[8], right[8];
        sscanf(merges[i], "%7s %7s", left, right);
        end += sprintf(end, "\"%s%s\": %d, ", left, right, 256 + i);
        strcat(strcat(list, merges[i]), "\n");
    }
    sprintf(end, "\"<|endoftext|>\": 262}");
    PSK_TEST_OK(psk_make_folders(in_folder("bpe")));
    write_text("bpe/vocab.json", vocab);
    write_text("bpe/merges.txt", list);
}

/* Prepares in.txt or in.jsonl with the tokenizer of write_bpe, holding out what follows byte `tail` of `size`. */
static void prepare_by_bpe(recipe *r, const char *input, int64_t tail, int64_t size) {
    char tokenizer[512];
    snprintf(tokenizer, sizeof tokenizer, "%s/bpe", folder);
    make_one(r, input);
    r->options.tokenizer = tokenizer;
    r->options.valid_fraction = fmax(1 - ((double)tail + 0.5) / (double)size, 0);
    PSK_TEST_OK(psk_prepare(&r->options, &r->result));
}

/* The training split is the first `size` bytes of the text, encoded as a whole. */
static void expect_whole_tokens(const char *output, const char *text, int64_t size) {
    psk_dataset dataset;
    int32_t *tokens, *prepared;
    int64_t count;
    PSK_TEST_OK(psk_dataset_open(output, "train", &dataset));
    PSK_TEST_OK(psk_tokenizer_encode(dataset.tokenizer, text, (size_t)size, &tokens, &count));
    assert_in_range(count, size / 3, size - 1);
    assert_int_equal(dataset.tokens, count + 1);
    PSK_TEST_OK(psk_alloc((size_t)(count + 1) * sizeof *prepared, "tokens", (void **)&prepared));
    PSK_TEST_OK(psk_dataset_read(&dataset, 0, count + 1, prepared));
    assert_memory_equal(prepared, tokens, (size_t)count * sizeof *tokens);
    assert_int_equal(prepared[count], 262);
    psk_free(prepared);
    psk_buffer_free(tokens);
    psk_dataset_close(&dataset);
}

/* Pieces are cut where the tokenizer cuts too: the tokens are those of the whole text, or of the part before the tail,
 * wherever behind the end of a piece that begins. */
static void pieces_do_not_change_tokens(void **state) {
    (void)state;
    enum { SIZE = 1300000 };
    const int64_t behind[] = {0, 1, 700, 1023, 1024, 1025, 1500, 2000, 2047, 2048, 5000};
    recipe r;
    char *const text = make_bytes(SIZE, SEED);
    for (int i = 0; i < SIZE - 1; i += 3) /* many empty lines, spaces and words that begin with th */
        memcpy(text + i, (i / 3) % 4 == 0 ? "\n\n" : (i / 3) % 4 == 1 ? "  " : "th", 2);
    memset(text + PSK_PIECE_BYTES - 3000, 'a', 6000); /* but no line end near the end of the first piece */
    for (int i = PSK_PIECE_BYTES - 3000; i < PSK_PIECE_BYTES + 3000; i += 6)
        memcpy(text + i, " there", 6);
    write_bpe();
    PSK_TEST_OK(psk_write_file(in_folder("in.txt"), text, SIZE));
    prepare_by_bpe(&r, "in.txt", SIZE, SIZE);
    expect_whole_tokens(r.output, text, SIZE);
    for (size_t i = 0; i < sizeof behind / sizeof behind[0]; i++) {
        const int64_t tail = psk_cut_piece((const unsigned char *)text) + behind[i];
        PSK_TEST_OK(psk_remove_tree(r.output));
        prepare_by_bpe(&r, "in.txt", tail, SIZE);
        expect_whole_tokens(r.output, text, psk_cut_near((const unsigned char *)text, tail));
    }
    free(text);
}

static uint64_t checksum_of(const char *output, const char *shard) {
    char path[1024];
    psk_shard_info info;
    snprintf(path, sizeof path, "%s/%s", output, shard);
    PSK_TEST_OK(psk_shard_read_info(path, 1, &info));
    return info.checksum;
}

/* A text that is read piece by piece has the tokens that it has as one line of JSON, also where there is no good place
 * to cut: no space, and a line end every `line` bytes. */
static void expect_same_in_json(int64_t line) {
    enum { SIZE = 700000 };
    const int64_t behind[] = {-3001, -1025, -3, 0, 1, 699, 1023, 1024, 1025, 1501, 2047, 2049, 3001, PSK_PIECE_BYTES};
    char *const text = malloc(SIZE), *const json = malloc(2 * SIZE), *end = json;
    recipe r;
    for (int i = 0; i < SIZE; i++)
        text[i] = "th\xc3\xa9r"[i % 5];
    for (int64_t i = line; i < SIZE; i += line)
        text[i / 5 * 5] = '\n';
    end += sprintf(end, "{\"text\": \"");
    for (int i = 0; i < SIZE; i++)
        end += text[i] == '\n' ? sprintf(end, "\\n") : sprintf(end, "%c", text[i]);
    end += sprintf(end, "\"}\n");
    PSK_TEST_OK(psk_write_file(in_folder("in.txt"), text, SIZE));
    PSK_TEST_OK(psk_write_file(in_folder("in.jsonl"), json, (size_t)(end - json)));
    for (size_t i = 0; i < sizeof behind / sizeof behind[0]; i++) {
        uint64_t sums[2][2];
        for (int lines = 0; lines < 2; lines++) {
            prepare_by_bpe(&r, lines ? "in.jsonl" : "in.txt", PSK_PIECE_BYTES + behind[i], SIZE);
            sums[lines][0] = checksum_of(r.output, "train-00000.psk");
            sums[lines][1] = checksum_of(r.output, "valid-00000.psk");
            PSK_TEST_OK(psk_remove_tree(r.output));
        }
        if (memcmp(sums[0], sums[1], sizeof sums[0]) != 0)
            fail_msg("a line end every %d bytes, tail %d behind the piece: other tokens", (int)line, (int)behind[i]);
    }
    free(text);
    free(json);
}

static void a_text_has_the_tokens_of_its_json_line(void **state) {
    (void)state;
    const int64_t lines[] = {700000, 140000, PSK_PIECE_BYTES + 600, 900};
    write_bpe();
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        expect_same_in_json(lines[i]);
}
#endif

/* ----------------------------------------------------------------------------------------------------------- formats
 */

static const char *const lines = "\xef\xbb\xbf{\"text\": \"one\\n\", \"url\": \"x\"}\n"
                                 "\n"
                                 "{\"n\": 5, \"text\": \"d\\u00e9j\\u00e0\"}\r\n"
                                 "{\"text\": \"\"}\n"
                                 "{\"text\": \"end\", \"body\": \"B\"}";

static void json_lines(void **state) {
    (void)state;
    recipe r;
    const char *const names[] = {"a.jsonl", "a.ndjson", "a.json"};
    for (int i = 0; i < 3; i++) {
        write_text(names[i], lines);
        make_one(&r, names[i]);
        expect_splits(&r, "one\n|d\xc3\xa9j\xc3\xa0|end|", NULL);
        assert_int_equal(r.result.documents, 3);
        assert_int_equal(r.result.empty, 1);
        assert_int_equal(r.result.bytes, 4 + 6 + 3);
    }
    write_text("a.dat", lines);
    make_one(&r, "a.dat"); /* no name of JSON lines: as it is */
    r.options.format = PSK_FORMAT_JSONL;
    r.options.field = "body";
    r.options.skip_bad_lines = 1;
    expect_splits(&r, "B|", NULL);
    assert_int_equal(r.result.skipped, 3);
    assert_non_null(strstr(r.result.first_skipped, "a.dat, line 1"));
}

static void json_lines_are_cut_as_texts(void **state) {
    (void)state;
    recipe r;
    write_text("a.jsonl", "{\"text\": \"a\\nbcdefg\"}\n{\"text\": \"abcdefg\\n\"}\n{\"text\": \"x\"}\n");
    make_one(&r, "a.jsonl");
    r.options.valid_fraction = 0.5;
    expect_splits(&r, "a\n|abcd|", "bcdefg|efg\n|x|");
}

#define FIRST_ARTICLE  " = First = \n \n Text of it . \n = 1 k = \n \n = = Section = = \n \n"
#define SECOND_ARTICLE " = Second ( 2 ) = \n \n More . \n"

static void wikitext(void **state) {
    (void)state;
    recipe r;
    write_text("wiki.txt", " \n" FIRST_ARTICLE SECOND_ARTICLE);
    make_one(&r, "wiki.txt");
    expect_splits(&r, FIRST_ARTICLE "|" SECOND_ARTICLE "|", NULL);
    assert_int_equal(r.result.documents, 2);
    r.options.format = PSK_FORMAT_TEXT;
    expect_splits(&r, " \n" FIRST_ARTICLE SECOND_ARTICLE "|", NULL);
    write_text("novel.txt", "A novel\n\n = Title = \n");
    make_one(&r, "novel.txt");
    expect_splits(&r, "A novel\n\n = Title = \n|", NULL);
    r.options.format = PSK_FORMAT_WIKITEXT;
    expect_splits(&r, "A novel\n\n| = Title = \n|", NULL);
}

/* The same documents, whatever the name says; files that were joined; a tail that is found by reading twice. */
static void compressed(void **state) {
    (void)state;
    recipe r;
    const struct {
        const char *json, *text;
        int built;
    } kinds[] = {{"c4-train.00000.json.gz", "b.txt.gz", PSK_WITH_ZLIB}, {"a.jsonl.zst", "b.txt.zst", PSK_WITH_ZSTD}};
    write_text("a.jsonl", lines);
    write_text("b.txt", "one\ntwo\nthree\nfour!\n");
    for (int i = 0; i < 2; i++) {
        if (!kinds[i].built)
            continue;
        compress_file("a.jsonl", kinds[i].json, false);
        make_one(&r, kinds[i].json);
        expect_splits(&r, "one\n|d\xc3\xa9j\xc3\xa0|end|", NULL);
        compress_file("b.txt", kinds[i].text, false);
        make_one(&r, kinds[i].text);
        r.options.valid_fraction = 0.25;
        expect_splits(&r, "one\ntwo\nthree\n|", "four!\n|");
        compress_file("b.txt", kinds[i].text, true);
        assert_int_equal(rename(in_folder(kinds[i].text), in_folder("unnamed")), 0);
        make_one(&r, "unnamed");
        expect_splits(&r, "one\ntwo\nthree\nfour!\none\ntwo\nthree\nfour!\n|", NULL);
    }
}

/* Runs psk_prepare with `input` on standard input, which is put back. */
static psk_status prepare_from_pipe(recipe *r, const char *input) {
    int ends[2];
    const int before = dup(STDIN_FILENO);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], input, strlen(input)), strlen(input));
    close(ends[1]);
    dup2(ends[0], STDIN_FILENO);
    close(ends[0]);
    const psk_status status = psk_prepare(&r->options, &r->result);
    dup2(before, STDIN_FILENO);
    close(before);
    return status;
}

static void standard_input(void **state) {
    (void)state;
    recipe r;
    make_recipe(&r, "out", NULL, 0);
    r.inputs[0] = "-";
    r.options.input_count = 1;
    PSK_TEST_OK(prepare_from_pipe(&r, "a\nb"));
    assert_string_equal(split_text(r.output, "train"), "a\nb|");
    PSK_TEST_OK(psk_remove_tree(r.output));
    r.options.format = PSK_FORMAT_JSONL;
    r.options.valid_fraction = 0.5;
    PSK_TEST_OK(prepare_from_pipe(&r, "{\"text\": \"abcd\"}\n"));
    assert_string_equal(split_text(r.output, "train"), "ab|");
    assert_string_equal(split_text(r.output, "valid"), "cd|");
    PSK_TEST_OK(psk_remove_tree(r.output));
    r.options.format = PSK_FORMAT_AUTO;
    PSK_TEST_FAILS(prepare_from_pipe(&r, "a\nb"), PSK_ERROR_ARGUMENT, "standard input", "pipe");
    r.options.valid_fraction = 0;
    PSK_TEST_FAILS(prepare_from_pipe(&r, ""), PSK_ERROR_FORMAT, "no text");
    assert_false(psk_is_folder(r.output));
}

/* ------------------------------------------------------------------------------------------------------------ splits
 */

static void write_numbered_lines(const char *name, int from, int step, int count) {
    char *const text = malloc((size_t)count * 64), *end = text;
    for (int i = 0, n = from; i < count; i++, n += step)
        end += sprintf(end, "{\"text\": \"document number %d\"}\n", n);
    write_text(name, text);
    free(text);
}

/* Whole documents, about as many as asked, the same ones in another order. */
static void split_by_hash(void **state) {
    (void)state;
    enum { COUNT = 2000 };
    recipe r;
    int64_t held_out = 0;
    write_numbered_lines("a.jsonl", 0, 1, COUNT);
    write_numbered_lines("b.jsonl", COUNT - 1, -1, COUNT);
    for (int i = 0; i < 2; i++) {
        make_one(&r, i ? "b.jsonl" : "a.jsonl");
        r.options.split = PSK_SPLIT_HASH;
        r.options.valid_fraction = 0.1;
        PSK_TEST_OK(psk_prepare(&r.options, &r.result));
        assert_in_range(r.result.valid_tokens, COUNT * 20 / 14, COUNT * 20 / 7);
        if (i)
            assert_int_equal(r.result.valid_tokens, held_out);
        held_out = r.result.valid_tokens;
        psk_dataset dataset;
        PSK_TEST_OK(psk_dataset_open(r.output, "valid", &dataset));
        int32_t first[8];
        PSK_TEST_OK(psk_dataset_read(&dataset, 0, 8, first));
        assert_int_equal(first[0], 'd'); /* no document is cut */
        psk_dataset_close(&dataset);
        PSK_TEST_OK(psk_remove_tree(r.output));
    }
    write_text("a.txt", "one text");
    make_one(&r, "a.txt");
    r.options.split = PSK_SPLIT_HASH;
    r.options.valid_fraction = 0;
    expect_splits(&r, "one text|", NULL);
    r.options.valid_fraction = 0.999999999; /* hash of 2^53 steps */
    expect_splits(&r, "", "one text|");
}

static void split_by_inputs(void **state) {
    (void)state;
    recipe r;
    char held_out[512];
    write_text("a.txt", "train\non this");
    write_text("b.jsonl", "{\"text\": \"valid 1\"}\n{\"text\": \"valid 2\"}\n");
    snprintf(held_out, sizeof held_out, "%s/b.jsonl", folder);
    const char *const valid[] = {held_out};
    make_one(&r, "a.txt");
    r.options.valid_inputs = valid;
    r.options.valid_input_count = 1;
    r.options.valid_fraction = 0.5;
    expect_splits(&r, "train\non this|", "valid 1|valid 2|");
}

/* --------------------------------------------------------------------------------------------------------- bad input
 */

static void refuses(void **state) {
    (void)state;
    recipe r;
    write_text("in.txt", "text");
    write_text("empty.txt", "");
    write_text("pointer.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234\n");
    PSK_TEST_OK(psk_make_folders(in_folder("bare")));
    PSK_TEST_OK(psk_make_folders(in_folder("hollow")));
    write_text("hollow/a.txt", "");
    write_text("hollow/b.txt", "");
    const struct {
        const char *input;
        psk_status status;
        const char *words, *more;
    } inputs[] = {{"missing.txt", PSK_ERROR_FILE, "missing.txt", "cannot read"},
                  {"empty.txt", PSK_ERROR_FORMAT, "empty.txt", "empty"},
                  {"bare", PSK_ERROR_FILE, "bare", "no text"},
                  {"hollow", PSK_ERROR_FORMAT, "no text", "2 empty"},
                  {"pointer.txt", PSK_ERROR_FORMAT, "pointer.txt", "LFS"}};
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
        make_one(&r, inputs[i].input);
        EXPECT_FAILURE(&r, inputs[i].status, inputs[i].words, inputs[i].more);
    }
    make_one(&r, "in.txt");
    r.inputs[0] = NULL;
    EXPECT_FAILURE(&r, PSK_ERROR_ARGUMENT, "inputs[0]");
#define REFUSED(field, value, words)                                                                                   \
    make_one(&r, "in.txt");                                                                                            \
    r.options.field = value;                                                                                           \
    PSK_TEST_FAILS(psk_prepare(&r.options, &r.result), PSK_ERROR_ARGUMENT, words)
    REFUSED(input_count, 0, "nothing to prepare");
    REFUSED(output, NULL, "output");
    REFUSED(tokenizer, "gpt9", "gpt9");
    REFUSED(tokenizer, NULL, "tokenizer");
    REFUSED(shard_tokens, 0, "shard_tokens");
    REFUSED(threads, -1, "threads");
    REFUSED(field, "", "field");
    REFUSED(format, (psk_text_format)9, "format");
    REFUSED(split, (psk_split_rule)9, "split");
    REFUSED(valid_input_count, 1, "valid_inputs");
    const double fractions[] = {-0.1, 1, 2, NAN};
    for (int i = 0; i < 4; i++) {
        REFUSED(valid_fraction, fractions[i], "valid_fraction");
    }
    make_one(&r, "in.txt");
    PSK_TEST_OK(psk_prepare(&r.options, &r.result));
    PSK_TEST_FAILS(psk_prepare(&r.options, &r.result), PSK_ERROR_ARGUMENT, "prepared already", "out");
    PSK_TEST_OK(psk_remove_tree(in_folder("out/prepare.json")));
    PSK_TEST_FAILS(psk_prepare(&r.options, &r.result), PSK_ERROR_ARGUMENT, "holds train-00000.psk already");
}

static void bad_lines(void **state) {
    (void)state;
    const struct {
        const char *line, *words;
    } cases[] = {{"{\"text\": \"ab", "not valid JSON"},
                 {"{\"text\": \"a\xff\"}", "not valid JSON"},
                 {"{\"text\": \"a\\u0000b\"}", "not valid JSON"},
                 {"{\"text\": \"a\", \"text\": \"b\"}", "not valid JSON"},
                 {"plain text", "not valid JSON"},
                 {"[\"text\"]", "not an object"},
                 {"{\"body\": \"b\", \"url\": \"u\"}", "there is no \"text\" in it, but \"body\", \"url\""},
                 {"{}", "but nothing"},
                 {"{\"text\": 5}", "\"text\" is 5"},
                 {"{\"text\": null}", "\"text\" is null"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256];
        recipe r;
        print_message("    %s\n", cases[i].line);
        snprintf(text, sizeof text, "{\"text\": \"good\"}\n\n%s\n{\"text\": \"last\"}\n", cases[i].line);
        write_text("in.jsonl", text);
        make_one(&r, "in.jsonl");
        EXPECT_FAILURE(&r, PSK_ERROR_FORMAT, "in.jsonl, line 3: ", cases[i].words);
        r.options.skip_bad_lines = 1;
        expect_splits(&r, "good|last|", NULL);
        assert_int_equal(r.result.skipped, 1);
        assert_non_null(strstr(r.result.first_skipped, "in.jsonl, line 3: "));
    }
}

/* A line longer than the limit ends the preparation; long ones below it pass, in bounded memory. */
static void long_lines(void **state) {
    (void)state;
    recipe r;
    const size_t limit = PSK_RECORD_BYTES;
    char *const text = malloc(limit + 4096);
    for (int i = 0; i < 2; i++) {
        const size_t length = i ? limit + 1000 : limit - 1000;
        char *end = text;
        end += sprintf(end, "{\"text\": \"x\"}\n{\"text\": \"");
        memset(end, 'a', length);
        end += length;
        end += sprintf(end, "\"}\n{\"text\": \"y\"}\n");
        PSK_TEST_OK(psk_write_file(in_folder("in.jsonl"), text, (size_t)(end - text)));
        make_one(&r, "in.jsonl");
        if (i) {
            PSK_TEST_FAILS(psk_prepare(&r.options, &r.result), PSK_ERROR_FORMAT, "in.jsonl, line 2: ", "32 MiB");
        } else {
            PSK_TEST_OK(psk_prepare(&r.options, &r.result));
            assert_int_equal(r.result.train_tokens, length + 2 + 3);
            PSK_TEST_OK(psk_remove_tree(r.output));
        }
    }
    free(text);
}

/* Changes a compressed file: cut off at `size`, one byte other, or more behind it. */
typedef enum { CUT_OFF, CHANGED, APPENDED } damage;

static void damage_file(const char *from, const char *to, damage kind) {
    char *bytes;
    size_t size;
    PSK_TEST_OK(psk_read_file(in_folder(from), FILE_LIMIT, &bytes, &size));
    FILE *const file = fopen(in_folder(to), "wb");
    assert_non_null(file);
    if (kind == CHANGED)
        bytes[size / 2] ^= 0x10;
    fwrite(bytes, 1, kind == CUT_OFF ? size / 2 : size, file);
    if (kind == APPENDED)
        fputs("something else", file);
    assert_int_equal(fclose(file), 0);
    psk_free(bytes);
}

static void damaged_compression(void **state) {
    (void)state;
    const struct {
        const char *whole, *bad;
        int built;
        const char *words[3];
    } kinds[] = {{"a.txt.gz", "bad.txt.gz", PSK_WITH_ZLIB, {"is cut off", "damaged", "damaged"}},
                 {"a.txt.zst", "bad.txt.zst", PSK_WITH_ZSTD, {"is cut off", "damaged", "damaged"}}};
    write_numbered_lines("a.txt", 0, 1, 20000);
    for (int i = 0; i < 2; i++) {
        recipe r;
        make_one(&r, kinds[i].bad);
        if (!kinds[i].built) {
            write_text(kinds[i].bad, i ? "\x28\xb5\x2f\xfd" : "\x1f\x8b");
            EXPECT_FAILURE(&r, PSK_ERROR_UNSUPPORTED, kinds[i].bad, "built without");
            continue;
        }
        compress_file("a.txt", kinds[i].whole, false);
        for (int kind = CUT_OFF; kind <= APPENDED; kind++) {
            damage_file(kinds[i].whole, kinds[i].bad, (damage)kind);
            PSK_TEST_FAILS(psk_prepare(&r.options, &r.result), PSK_ERROR_FORMAT, kinds[i].bad, kinds[i].words[kind]);
            PSK_TEST_OK(psk_remove_tree(r.output));
        }
        write_text(kinds[i].bad, "<html>not found</html>");
        EXPECT_FAILURE(&r, PSK_ERROR_FORMAT, kinds[i].bad, "though its name says so");
    }
}

/* Beginnings by which a file is something else, also inside gzip and under a name of JSON lines; what only resembles
 * one is text, and as text they are taken where it is asked for. */
static void what_is_no_text(void **state) {
    (void)state;
    static const struct {
        const char *name, *words;
        int at, size;
        const char *bytes;
    } kinds[] = {{"bzip2", "decompress", 0, 10, "BZh91AY&SY"},
                 {"xz", "decompress", 0, 6, "\xFD\x37zXZ\0"},
                 {"7-Zip", "unpack", 0, 6, "7z\xBC\xAF\x27\x1C"},
                 {"zip", "unpack", 0, 4, "PK\3\4"},
                 {"tar", "unpack", 257, 5, "ustar"},
                 {"Parquet", "JSON lines", 0, 5, "PAR1\x15"},
                 {"PNG", "text", 0, 8, "\x89PNG\r\n\x1A\n"},
                 {"PDF", "pdftotext", 0, 5, "%PDF-"},
                 {"UTF-16", "iconv", 0, 2, "\xFF\xFE"},
                 {"UTF-16", "iconv", 0, 2, "\xFE\xFF"},
                 {"UTF-32", "iconv", 0, 4, "\xFF\xFE\0\0"},
                 {"UTF-32", "iconv", 0, 4, "\0\0\xFE\xFF"}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        char text[300];
        recipe r;
        memset(text, 'a', sizeof text);
        memcpy(text + kinds[i].at, kinds[i].bytes, (size_t)kinds[i].size);
        PSK_TEST_OK(psk_write_file(in_folder("in.txt"), text, sizeof text));
        PSK_TEST_OK(psk_write_file(in_folder("in.jsonl"), text, sizeof text));
        make_one(&r, "in.txt");
        EXPECT_FAILURE(&r, PSK_ERROR_FORMAT, "in.txt", kinds[i].name, kinds[i].words, "--format text");
        make_one(&r, "in.jsonl");
        r.options.skip_bad_lines = 1;
        EXPECT_FAILURE(&r, PSK_ERROR_FORMAT, "in.jsonl", kinds[i].name);
        if (PSK_WITH_ZLIB) {
            compress_file("in.txt", "in.txt.gz", false);
            make_one(&r, "in.txt.gz");
            EXPECT_FAILURE(&r, PSK_ERROR_FORMAT, "in.txt.gz", kinds[i].name);
        }
        make_one(&r, "in.txt");
        r.options.format = PSK_FORMAT_TEXT;
        PSK_TEST_OK(psk_prepare(&r.options, &r.result));
        assert_int_equal(r.result.train_tokens, sizeof text + 1);
        PSK_TEST_OK(psk_remove_tree(r.output));
        PSK_TEST_OK(psk_write_file(in_folder("in.txt"), text, (size_t)kinds[i].at + 1));
        make_one(&r, "in.txt");
        PSK_TEST_OK(psk_prepare(&r.options, &r.result));
        PSK_TEST_OK(psk_remove_tree(r.output));
    }
}

static void check_finds_missing_shards(void **state) {
    (void)state;
    recipe r;
    write_text("in.txt", "a text of some length");
    make_one(&r, "in.txt");
    r.options.shard_tokens = 10;
    PSK_TEST_OK(psk_prepare(&r.options, &r.result));
    PSK_TEST_OK(psk_prepare_check(r.output, &r.result));
    assert_int_equal(r.result.shards, 3);
    assert_int_equal(remove(in_folder("out/train-00002.psk")), 0);
    PSK_TEST_FAILS(psk_prepare_check(r.output, &r.result), PSK_ERROR_FORMAT, "20 tokens", "says 22");
    write_text("out/train-00001.psk", "PSKSHARD");
    PSK_TEST_FAILS(psk_prepare_check(r.output, &r.result), PSK_ERROR_FORMAT, "train-00001.psk", "truncated");
    PSK_TEST_FAILS(psk_prepare_check(in_folder("none"), &r.result), PSK_ERROR_FILE, "none");
    PSK_TEST_FAILS(psk_prepare_check(NULL, &r.result), PSK_ERROR_ARGUMENT, "NULL");
}

/* ------------------------------------------------------------------------------------------------------------ memory
 */

/* What an allocation that fails leaves behind is gone on with, or removed; in the end all is as it should be. */
static psk_status prepare_once(void *argument) {
    recipe *const r = argument;
    psk_dataset dataset;
    PSK_TRY(psk_prepare(&r->options, &r->result));
    const psk_status status = psk_dataset_open(r->output, "train", &dataset);
    if (status == PSK_OK)
        psk_dataset_close(&dataset);
    return status != PSK_OK && psk_remove_tree(r->output) != PSK_OK ? PSK_ERROR_INTERNAL : status;
}

static void out_of_memory(void **state) {
    (void)state;
    recipe r;
    write_text("in.txt", "a small text\nof two lines\n");
    write_text("lines.jsonl", lines);
    write_text("wiki.txt", " \n" FIRST_ARTICLE SECOND_ARTICLE);
    write_text("more.jsonl", "{\"text\": \"more\"}\n{\"text\": \"and\"}\n");
    if (PSK_WITH_ZLIB)
        compress_file("lines.jsonl", "lines.jsonl.gz", false);
    if (PSK_WITH_ZSTD)
        compress_file("more.jsonl", "more.jsonl.zst", false);
    make_recipe(&r, "out",
                (const char *const[]){"in.txt", PSK_WITH_ZLIB ? "lines.jsonl.gz" : "lines.jsonl", "wiki.txt",
                                      PSK_WITH_ZSTD ? "more.jsonl.zst" : "more.jsonl"},
                4);
    r.options.valid_fraction = 0.4;
    r.options.threads = 1;
    assert_true(psk_test_allocation_failures(prepare_once, &r) > 20);
    assert_string_equal(split_text(r.output, "train"), "a small text\n|on|d\xc3\xa9|e| = First = \n \n Text of it . \n|"
                                                       " = Second ( 2 ) = |mo|a|");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(files_and_folders),
        TEST(cuts_between_characters),
        TEST(long_texts),
#if PSK_WITH_PCRE2
        TEST(pieces_do_not_change_tokens),
        TEST(a_text_has_the_tokens_of_its_json_line),
#endif
        TEST(json_lines),
        TEST(json_lines_are_cut_as_texts),
        TEST(wikitext),
        TEST(compressed),
        TEST(standard_input),
        TEST(split_by_hash),
        TEST(split_by_inputs),
        TEST(refuses),
        TEST(bad_lines),
        TEST(long_lines),
        TEST(damaged_compression),
        TEST(what_is_no_text),
        TEST(check_finds_missing_shards),
        TEST(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
