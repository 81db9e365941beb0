/* Multiple choice: reading the three forms of question files, and scores against psk_model_logits. */
#include "evaluate_fixture.h"

#include "base/files.h"
#include "base/memory.h"
#include "data/tokenizer.h"
#include "infer/questions.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A new model hardly cares what it reads: here its embeddings are ten times larger. The context fits every question. */
static int set_up(void **state) {
    psk_model_tensor tensor;
    fixture_enter(state);
    const fixture *const f = *state;
    for (int64_t i = 0; psk_model_tensor_at(f->model, i, &tensor); i++)
        if (strcmp(tensor.name, "wte.weight") == 0)
            for (int64_t j = 0; j < tensor.shape[0] * tensor.shape[1]; j++)
                tensor.data[j] *= 10;
    return 0;
}

/* FOLDER/name.jsonl with these lines, and name-labels.lst where there are labels. */
static void write_files(fixture *f, const char *name, const char *lines, const char *labels) {
    snprintf(f->path, sizeof f->path, "%s/%s.jsonl", f->folder, name);
    PSK_TEST_OK(psk_write_file(f->path, lines, strlen(lines)));
    if (labels) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s-labels.lst", f->folder, name);
        PSK_TEST_OK(psk_write_file(path, labels, strlen(labels)));
    }
}

static void expect_question(const psk_question *question, const char *prompt, const char *const *choices, int64_t count,
                            int64_t answer) {
    assert_string_equal(question->prompt, prompt);
    assert_int_equal(question->count, count);
    assert_int_equal(question->answer, answer);
    for (int64_t c = 0; c < count; c++)
        assert_string_equal(question->choices[c].text, choices[c]);
}
#define EXPECT_QUESTION(question, prompt, answer, ...)                                                                 \
    expect_question(question, prompt, (const char *const[]){__VA_ARGS__},                                              \
                    sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *), answer)

/* ------------------------------------------------------------------------------------------------------------- forms
 */

/* What the harness makes of its own fields, of one text, of a label as text; marks are removed, and no more than them.
 */
static void test_hellaswag(void **state) {
    fixture *const f = *state;
    psk_questions questions;
    write_files(
        f, "hellaswag",
        "{\"activity_label\": \"Baking\", \"ctx_a\": \"A woman bakes.  She\", \"ctx_b\": \"the Old Oven\", "
        "\"ctx\": \"unused\", \"endings\": [\"opens.\", \" [title] shuts [step] it \"], \"label\": \"1\"}\n"
        "\n"
        "{\"activity_label\": \"X\", \"ctx_a\": \"How to [header] sit [title] Do it.\", \"ctx_b\": \"\", "
        "\"endings\": [\"a [ b\", \"c ] d\", \"e\"], \"label\": 2}\r\n"
        "{\"ind\": 7, \"ctx\": \" Roofs: a man. he \", \"endings\": [\"\xC3\xA9t\xC3\xA9\", \"b\"], \"label\": 0}",
        NULL);
    PSK_TEST_OK(psk_questions_read(f->path, NULL, &questions));
    assert_int_equal(questions.count, 3);
    EXPECT_QUESTION(&questions.list[0], "Baking: A woman bakes. She The old oven", 1, " opens.", "  shuts it");
    EXPECT_QUESTION(&questions.list[1], "X: How to sit. Do it.", 2, " a [ b", " c ] d", " e");
    EXPECT_QUESTION(&questions.list[2], "Roofs: a man. he", 0, " \xC3\xA9t\xC3\xA9", " b");
    assert_int_equal(questions.list[2].choices[0].characters, 3);
    psk_questions_free(&questions);
}

#define PIQA(goal) "{\"goal\": \"" goal "\", \"sol1\": \"cut\", \"sol2\": \"glue \""

static void test_piqa(void **state) {
    fixture *const f = *state;
    psk_questions questions;
    write_files(f, "piqa", PIQA("A?") "}\n" PIQA("B?") "}\n", "1\n0\n");
    PSK_TEST_OK(psk_questions_read(f->path, NULL, &questions)); /* the labels lie beside it */
    assert_int_equal(questions.count, 2);
    EXPECT_QUESTION(&questions.list[0], "Question: A?\nAnswer:", 1, " cut", " glue ");
    EXPECT_QUESTION(&questions.list[1], "Question: B?\nAnswer:", 0, " cut", " glue ");
    assert_int_equal(questions.list[0].choices[1].characters, 5);
    psk_questions_free(&questions);
    write_files(f, "within", PIQA("A?") ", \"label\": 1}", NULL);
    PSK_TEST_OK(psk_questions_read(f->path, NULL, &questions));
    assert_int_equal(questions.list[0].answer, 1);
    psk_questions_free(&questions);
    write_files(f, "elsewhere", "0", NULL);
    char labels[512];
    memcpy(labels, f->path, sizeof labels);
    write_files(f, "alone", PIQA("A?") "}", NULL);
    PSK_TEST_OK(psk_questions_read(f->path, labels, &questions));
    assert_int_equal(questions.list[0].answer, 0);
    psk_questions_free(&questions);
}

/* The given file's labels go before the object's, and these before those of the file beside, in which every question
 * has its line all the same. */
static void test_labels_in_two_places(void **state) {
    fixture *const f = *state;
    const char *const lines = PIQA("A?") ", \"label\": 0}\n" PIQA("B?") "}\n" PIQA("C?") ", \"label\": 1}\n";
    psk_questions questions;
    char given[512];
    write_files(f, "given", "", NULL);
    memcpy(given, f->path, sizeof given);
    PSK_TEST_OK(psk_write_file(given, "1\n0\n0\n", 6));
    write_files(f, "both", lines, "1\n1\n0\n");
    for (int i = 0; i < 2; i++) {
        PSK_TEST_OK(psk_questions_read(f->path, i ? given : NULL, &questions));
        for (int64_t q = 0; q < 3; q++)
            assert_int_equal(questions.list[q].answer, i ? q == 0 : q > 0);
        psk_questions_free(&questions);
    }
}

static void test_given_labels_may_not_be_empty(void **state) {
    fixture *const f = *state;
    psk_questions questions;
    char given[512];
    write_files(f, "given", "", NULL);
    memcpy(given, f->path, sizeof given);
    write_files(f, "within", PIQA("A?") ", \"label\": 1}", NULL);
    PSK_TEST_FAILS(psk_questions_read(f->path, given, &questions), PSK_ERROR_FORMAT, given, "ends before", "line 1");
}

static void test_plain(void **state) {
    fixture *const f = *state;
    psk_questions questions;
    write_files(f, "plain",
                "{\"context\": \"2 + 2 =\", \"choices\": [\"4\", \" 5\"], \"answer\": 0}\n"
                "{\"context\": \"Q: \", \"choices\": [\"a\", \"b\", \"c\"], \"answer\": 2}\n"
                "{\"context\": \"\", \"choices\": [\"a\", \"b\"], \"answer\": 1}\n",
                NULL);
    PSK_TEST_OK(psk_questions_read(f->path, NULL, &questions));
    EXPECT_QUESTION(&questions.list[0], "2 + 2 =", 0, " 4", " 5");
    EXPECT_QUESTION(&questions.list[1], "Q: ", 2, "a", "b", "c");
    EXPECT_QUESTION(&questions.list[2], "", 1, "a", "b");
    psk_questions_free(&questions);
}

/* Two shots and the question; drawn from others or from the rest, by seed and index. */
static void test_shots(void **state) {
    fixture *const f = *state;
    psk_questions questions, others;
    char *first, *again, lines[1000] = "";
    for (int i = 0; i < 8; i++)
        snprintf(lines + strlen(lines), sizeof lines - strlen(lines),
                 "{\"context\": \"Q%d\", \"choices\": [\"no\", \"yes\"], \"answer\": %d}\n", i, i % 2);
    write_files(f, "shots", lines, NULL);
    PSK_TEST_OK(psk_questions_read(f->path, NULL, &questions));
    for (int64_t q = 0; q < 8; q++) {
        PSK_TEST_OK(psk_questions_prompt(&questions, q, &questions, 7, 5, &first));
        PSK_TEST_OK(psk_questions_prompt(&questions, q, &questions, 7, 5, &again));
        assert_string_equal(first, again);
        for (int64_t i = 0; i < 8; i++) { /* each other question once with its answer, itself at the end without */
            char part[32];
            snprintf(part, sizeof part, i == q ? "Q%d" : "Q%d %s\n\n", (int)i, i % 2 ? "yes" : "no");
            const char *const place = strstr(first, part);
            assert_non_null(place);
            assert_null(strstr(place + 1, part));
            assert_true((i == q) == (place[strlen(part)] == '\0'));
        }
        psk_free(first);
        psk_free(again);
    }
    PSK_TEST_OK(psk_questions_prompt(&questions, 3, &questions, 3, 5, &first));
    PSK_TEST_OK(psk_questions_prompt(&questions, 3, &questions, 3, 6, &again));
    assert_string_not_equal(first, again);
    psk_free(first);
    psk_free(again);
    PSK_TEST_FAILS(psk_questions_prompt(&questions, 0, &questions, 8, 5, &first), PSK_ERROR_ARGUMENT, "shots is 8",
                   "0 ... 7");
    write_files(f, "other", "{\"context\": \"Z\", \"choices\": [\"z\", \"y\"], \"answer\": 0}", NULL);
    PSK_TEST_OK(psk_questions_read(f->path, NULL, &others));
    PSK_TEST_OK(psk_questions_prompt(&questions, 0, &others, 1, 5, &first));
    assert_string_equal(first, "Z z\n\nQ0");
    psk_free(first);
    PSK_TEST_OK(psk_questions_prompt(&questions, 0, &questions, 0, 5, &first));
    assert_string_equal(first, "Q0");
    psk_free(first);
    psk_questions_free(&others);
    psk_questions_free(&questions);
}

/* ----------------------------------------------------------------------------------------------------------- refused
 */

/* lines, labels (NULL: none), what the message says beside the file's name */
static const struct {
    const char *lines, *labels, *parts[3];
} refused[] = {
    {"", NULL, {"holds no question", "", ""}},
    {"\n\n{\"a\": 1}", NULL, {"line 3", "\"endings\"", "\"goal\""}},
    {"{\"ctx\"", NULL, {"line 1", "not valid JSON", ""}},
    {"[1]", NULL, {"line 1", "not an object", ""}},
    {"{\"endings\": [\"a\", \"b\"], \"ctx\": \"c\"}", NULL, {"line 1", "\"label\"", "missing"}},
    {"{\"endings\": [\"a\", \"b\"], \"ctx\": \"c\", \"label\": \"\"}", NULL, {"line 1", "\"label\"", "empty"}},
    {"{\"endings\": [\"a\", \"b\"], \"ctx\": \"c\", \"label\": 2}", NULL, {"\"label\" is 2", "0 to 1", ""}},
    {"{\"endings\": [\"a\", \"b\"], \"ctx\": \"c\", \"label\": \"2\"}", NULL, {"\"label\"", "0 to 1", ""}},
    {"{\"endings\": [\"a\", \"b\"], \"label\": 1}", NULL, {"line 1", "\"ctx\"", "missing"}},
    {"{\"endings\": [\"a\"], \"ctx\": \"c\", \"label\": 0}", NULL, {"\"endings\"", "two or more", ""}},
    {"{\"endings\": [\"a\", 5], \"ctx\": \"c\", \"label\": 0}", NULL, {"entry 1", "\"endings\"", ""}},
    {"{\"goal\": \"a\", \"sol1\": \"b\"}", NULL, {"line 1", "\"sol2\"", "missing"}},
    {PIQA("a") "}", NULL, {"line 1", "\"label\"", "missing"}},
    {PIQA("a") "}\n" PIQA("b") "}", "1\n", {"-labels.lst", "ends before", "line 2"}},
    {PIQA("a") "}", "", {"-labels.lst", "ends before", "line 1"}},
    {PIQA("a") "}", "1\n0\n", {"-labels.lst, line 2", "without a question", "has 1"}},
    {PIQA("a") "}", "2\n", {"-labels.lst, line 1", "0 or 1", "\"2\""}},
    {"{\"choices\": [\"a\", \"b\"], \"answer\": 1}", NULL, {"line 1", "\"context\"", "missing"}},
    {"{\"context\": \"a\", \"choices\": [\"a\", \"\"], \"answer\": 1}", NULL, {"entry 1", "\"choices\"", "empty"}},
    {"{\"context\": \"a\", \"choices\": [\"a\", \"b\"], \"answer\": -1}", NULL, {"\"answer\" is -1", "0 to 1", ""}},
    {"{\"context\": \"a\", \"choices\": \"ab\", \"answer\": 1}", NULL, {"\"choices\"", "two or more", ""}},
    {"{\"context\": 3, \"choices\": [\"a\", \"b\"], \"answer\": 1}", NULL, {"\"context\" is 3", "a string", ""}},
};

static void test_refused_files(void **state) {
    fixture *const f = *state;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        psk_questions questions;
        char name[32];
        snprintf(name, sizeof name, "refused%zu", i);
        write_files(f, name, refused[i].lines, refused[i].labels);
        PSK_TEST_FAILS(psk_questions_read(f->path, NULL, &questions), PSK_ERROR_FORMAT, name, refused[i].parts[0],
                       refused[i].parts[1], refused[i].parts[2]);
        assert_null(questions.list);
    }
    psk_questions questions;
    PSK_TEST_FAILS(psk_questions_read("/nowhere.jsonl", NULL, &questions), PSK_ERROR_FILE, "/nowhere.jsonl");
    PSK_TEST_FAILS(psk_questions_read(f->path, "/nowhere.lst", &questions), PSK_ERROR_FILE, "/nowhere.lst");
}

/* ----------------------------------------------------------------------------------------------------------- scoring
 */

/* log p(text after the first `given` bytes), bytes as tokens, by its definition; given 0: after end-of-text. */
static double log_probability(const fixture *f, const char *text, int64_t given) {
    int32_t tokens[512];
    int64_t count = 0;
    double sum = 0;
    if (given == 0)
        tokens[count++] = 256;
    const int64_t shift = count;
    for (const char *c = text; *c; c++)
        tokens[count++] = (unsigned char)*c;
    float *const logits = psk_test_buffer(count * VOCABULARY);
    PSK_TEST_OK(psk_model_logits(f->model, 1, count, tokens, logits));
    for (int64_t i = given + shift; i < count; i++)
        sum -= token_loss(logits + (i - 1) * VOCABULARY, tokens[i]);
    psk_test_free(logits);
    return sum;
}

typedef struct plain_question {
    const char *context, *choices[3];
    const char *prompt; /* as scored: the context without white space at its end */
    const char *joint;  /* between prompt and choice */
    int count;
} plain_question;

static const plain_question plain[] = {
    {"The cat", {"sat", "ate a very long meal", "z"}, "The cat", " ", 3},
    {"", {"nothing before", "it", ""}, "", "", 2},
    {"Q: is it?\n", {"yes, it is", "no", ""}, "Q: is it?", "\n", 2},
    {"one two three four five six seven eight nine ten eleven twelve thirteen",
     {"fourteen", "x", "yy"},
     "one two three four five six seven eight nine ten eleven twelve thirteen",
     " ",
     3},
    {"", {"q", "V", "7"}, "", "", 3},
    {"", {"e", "K", "%"}, "", "", 3},
    {"", {"m", "Z", "("}, "", "", 3},
};
#define PLAIN_COUNT 7

/* The choices that win, plainly and per character, by definition. */
static void expected_winners(const fixture *f, const plain_question *q, int *best, int *best_norm) {
    double largest = -INFINITY, largest_norm = -INFINITY;
    for (int c = 0; c < q->count; c++) {
        char text[512];
        snprintf(text, sizeof text, "%s%s%s", q->prompt, q->joint, q->choices[c]);
        const double score = log_probability(f, text, (int64_t)strlen(q->prompt));
        if (score > largest) {
            largest = score;
            *best = c;
        }
        if (score / (double)strlen(q->choices[c]) > largest_norm) {
            largest_norm = score / (double)strlen(q->choices[c]);
            *best_norm = c;
        }
    }
}

/* answers: of each question. Returns the text of the file. */
static void write_plain(fixture *f, const char *name, const int answers[PLAIN_COUNT]) {
    char lines[4000] = "";
    for (int i = 0; i < PLAIN_COUNT; i++) {
        const char *const end = i == 2 ? "\\n" : "";
        snprintf(lines + strlen(lines), sizeof lines - strlen(lines), "{\"context\": \"%.*s%s\", \"choices\": [",
                 (int)strlen(plain[i].prompt), plain[i].context, end);
        for (int c = 0; c < plain[i].count; c++)
            snprintf(lines + strlen(lines), sizeof lines - strlen(lines), "%s\"%s\"", c ? ", " : "",
                     plain[i].choices[c]);
        snprintf(lines + strlen(lines), sizeof lines - strlen(lines), "], \"answer\": %d}\n", answers[i]);
    }
    write_files(f, name, lines, NULL);
}

static psk_choice_options choice_options(const fixture *f) {
    psk_choice_options options = psk_choice_options_default();
    options.questions = f->path;
    options.context = 400;
    return options;
}

static psk_choice_result evaluate(fixture *f, const psk_choice_options *options) {
    psk_choice_result result;
    PSK_TEST_OK(psk_evaluate_choices(f->model, options, &result));
    return result;
}

/* With the winners as answers the accuracy is 1, with others 0: so each score is right enough to win. Whatever the
 * batch. */
static void test_scores(void **state) {
    fixture *const f = *state;
    int best[PLAIN_COUNT], best_norm[PLAIN_COUNT], wrong[PLAIN_COUNT], differ = 0;
    for (int i = 0; i < PLAIN_COUNT; i++) {
        expected_winners(f, &plain[i], &best[i], &best_norm[i]);
        wrong[i] = (best[i] + 1) % plain[i].count;
        differ += best[i] != best_norm[i];
    }
    assert_true(differ > 0); /* or normalising would not be seen */
    psk_choice_options options = choice_options(f);
    for (options.batch_size = 1; options.batch_size < 13; options.batch_size += 3) {
        write_plain(f, "best", best);
        psk_choice_result result = evaluate(f, &options);
        assert_int_equal(result.questions, PLAIN_COUNT);
        assert_int_equal(result.choices, 19);
        assert_int_equal(result.truncated, 0);
        assert_true(result.accuracy == 1 && result.standard_error == 0);
        PSK_TEST_AT_MOST(fabs(result.accuracy_norm - (1 - differ / (double)PLAIN_COUNT)), 1e-15);
        PSK_TEST_AT_MOST(fabs(result.standard_error_norm -
                              sqrt(result.accuracy_norm * (1 - result.accuracy_norm) / (PLAIN_COUNT - 1))),
                         1e-15);
        write_plain(f, "norm", best_norm);
        assert_true(evaluate(f, &options).accuracy_norm == 1);
        write_plain(f, "wrong", wrong);
        assert_true(evaluate(f, &options).accuracy == 0);
    }
}

/* A prompt that is too long loses its beginning: the same as the file with only its end. */
static void test_truncated(void **state) {
    fixture *const f = *state;
    static const int answers[PLAIN_COUNT] = {0};
    psk_choice_options options = choice_options(f);
    write_plain(f, "truncated", answers);
    options.context = 20;
    const psk_choice_result result = evaluate(f, &options);
    assert_int_equal(result.truncated, 4); /* "ate a very long meal", and all of the last question */
    assert_true(result.tokens <= 19 * 20);
}

static void test_fewer(void **state) {
    fixture *const f = *state;
    static const int answers[PLAIN_COUNT] = {0};
    psk_choice_options options = choice_options(f);
    write_plain(f, "fewer", answers);
    options.max_questions = 2; /* the first and the fourth */
    psk_choice_result result = evaluate(f, &options);
    assert_int_equal(result.questions, 2);
    assert_int_equal(result.choices, 6);
    options.shots = 3;
    const psk_choice_result with_shots = evaluate(f, &options);
    assert_true(with_shots.tokens > result.tokens + 6 * 9);
    options.max_questions = 1;
    result = evaluate(f, &options);
    assert_true(isnan(result.standard_error));
}

static int stop_at_once(void *user, int64_t done, int64_t total) {
    (void)user;
    assert_true(done > 0 && done <= total);
    return 1;
}

static void test_refused_options(void **state) {
    fixture *const f = *state;
    static const int answers[PLAIN_COUNT] = {0};
    psk_choice_result result;
    psk_choice_options options = choice_options(f);
    options.questions = NULL;
    PSK_TEST_FAILS(psk_evaluate_choices(f->model, &options, &result), PSK_ERROR_ARGUMENT, "no questions");
    options.questions = f->path;
    write_plain(f, "options", answers);
    options.batch_size = 0;
    PSK_TEST_FAILS(psk_evaluate_choices(f->model, &options, &result), PSK_ERROR_ARGUMENT, "batch_size 0");
    options.batch_size = 1;
    options.context = -1;
    PSK_TEST_FAILS(psk_evaluate_choices(f->model, &options, &result), PSK_ERROR_ARGUMENT, "context -1");
    options.context = 0;
    options.shots = 7;
    PSK_TEST_FAILS(psk_evaluate_choices(f->model, &options, &result), PSK_ERROR_ARGUMENT, "shots is 7", "0 ... 6");
    options.shots = 0;
    options.progress = stop_at_once;
    PSK_TEST_FAILS(psk_evaluate_choices(f->model, &options, &result), PSK_ERROR_INTERRUPTED, "stopped");
}

/* Bytes without the spaces, as SentencePiece's models that remove white space have them. */
static psk_status append_stripped(const psk_tokenizer *tokenizer, const char *text, size_t size, psk_tokens *tokens) {
    (void)tokenizer;
    PSK_TRY(psk_tokens_reserve(tokens, (int64_t)size));
    for (size_t i = 0; i < size; i++)
        if (text[i] != ' ')
            tokens->ids[tokens->count++] = (unsigned char)text[i];
    return PSK_OK;
}

static void test_a_choice_without_tokens(void **state) {
    fixture *const f = *state;
    const psk_tokenizer_kind kind = {.append = append_stripped};
    const psk_tokenizer stripping = {
        .kind = &kind, .name = "stripping", .vocab_size = VOCABULARY, .end_of_text = END_OF_TEXT};
    psk_choice_result result;
    psk_choice_options options = choice_options(f);
    options.tokenizer = &stripping;
    options.questions = f->path;
    write_files(f, "blank", "{\"context\": \"\", \"choices\": [\"a\", \" \"], \"answer\": 0}", NULL);
    PSK_TEST_FAILS(psk_evaluate_choices(f->model, &options, &result), PSK_ERROR_ARGUMENT, f->path, "question 1",
                   "choice 2", "\"stripping\"");
}

static psk_status evaluate_once(void *state) {
    fixture *const f = state;
    psk_choice_result result;
    psk_choice_options options = choice_options(f);
    options.shots = 1;
    options.max_questions = 2;
    return psk_evaluate_choices(f->model, &options, &result);
}

static void test_out_of_memory(void **state) {
    fixture *const f = *state;
    static const int answers[PLAIN_COUNT] = {0};
    write_plain(f, "memory", answers);
    assert_true(psk_test_allocation_failures(evaluate_once, f) >= 40);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hellaswag),
        cmocka_unit_test(test_piqa),
        cmocka_unit_test(test_labels_in_two_places),
        cmocka_unit_test(test_given_labels_may_not_be_empty),
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_shots),
        cmocka_unit_test(test_refused_files),
        cmocka_unit_test(test_scores),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_fewer),
        cmocka_unit_test(test_refused_options),
        cmocka_unit_test(test_a_choice_without_tokens),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests_name("choices", tests, set_up, fixture_leave);
}
