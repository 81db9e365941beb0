/* Multiple choice: which continuation of a prompt does the model find likeliest? */
#include "base/memory.h"
#include "data/tokenizer.h"
#include "infer/questions.h"
#include "model/model.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH_STEP 64 /* batches are padded to multiples of it, so that one pass serves many of them */

/* One choice of one question. */
typedef struct choice_row {
    int64_t question, choice;
    int64_t length; /* tokens that the model reads */
    double score;   /* log-probability of the choice */
} choice_row;

typedef struct choice_run {
    psk_model *model;
    const psk_choice_options *options;
    psk_tokenizer *bytes;
    const psk_tokenizer *tokenizer;
    psk_questions questions, others; /* others: to draw shots from, if not from the questions */
    int64_t asked;                   /* how many of the questions */
    choice_row *rows;                /* choices of all of them */
    int64_t count;
    int64_t limit; /* tokens a row */
    psk_pass *pass;
    int64_t B, N;              /* of the pass */
    int32_t *tokens, *targets; /* B x N, with room for the longest N */
    float *losses;             /* B x N */
    psk_choice_result result;
} choice_run;

psk_choice_options psk_choice_options_default(void) {
    return (psk_choice_options){.batch_size = 16, .seed = 1};
}

/* -------------------------------------------------------------------------------------------------------------- rows
 */

/* The tokens of prompt and choice, *count of them, and which of them is the choice's first (-1 if there are none).
 * White space at the end of the prompt counts as the choice's, an empty prompt is end-of-text. */
static psk_status encode_row(const choice_run *run, const choice_row *row, int32_t **tokens, int64_t *count,
                             int64_t *first) {
    const psk_questions *const from = run->others.count ? &run->others : &run->questions;
    const psk_choice *const choice = &run->questions.list[row->question].choices[row->choice];
    psk_status status;
    char *prompt, *whole = NULL;
    int32_t *before = NULL;
    *tokens = NULL;
    PSK_TRY(
        psk_questions_prompt(&run->questions, row->question, from, run->options->shots, run->options->seed, &prompt));
    size_t size = strlen(prompt);
    PSK_TRY_GOTO(status, psk_alloc(size + strlen(choice->text) + 1, "a question", (void **)&whole), done);
    stpcpy(stpcpy(whole, prompt), choice->text);
    while (size > 0 && isspace((unsigned char)prompt[size - 1]))
        size--;
    PSK_TRY_GOTO(status, psk_tokenizer_encode(run->tokenizer, prompt, size, &before, first), done);
    PSK_TRY_GOTO(status, psk_tokenizer_encode(run->tokenizer, whole, strlen(whole), tokens, count), done);
    if (*first >= *count) /* the choice melted into the prompt's last token */
        *first = *count - 1;
done:
    psk_free(prompt);
    psk_free(whole);
    psk_buffer_free(before);
    return status;
}

/* What the model reads of a row: all but the last token, from the end as much as `limit` allows; where the prompt is
 * empty end-of-text stands for it. Returns the number of tokens. */
static int64_t row_length(int64_t count, int64_t first, int64_t limit) {
    const int64_t length = count - 1 + (first == 0);
    return length < limit ? length : limit;
}

static psk_status measure_row(choice_run *run, choice_row *row) {
    int32_t *tokens;
    int64_t count, first;
    PSK_TRY(encode_row(run, row, &tokens, &count, &first));
    psk_buffer_free(tokens);
    if (count == 0)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "question %" PRId64 " of %s has no context, and choice %" PRId64
                        " is white space, of which tokenizer \"%s\" makes no token: leave the question out",
                        row->question + 1, run->options->questions, row->choice + 1,
                        psk_tokenizer_name(run->tokenizer));
    if (first == 0 && psk_tokenizer_end_of_text(run->tokenizer) < 0)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "question %" PRId64 " of %s has no context, and tokenizer \"%s\" no end-of-text to begin with",
                        row->question + 1, run->options->questions, psk_tokenizer_name(run->tokenizer));
    row->length = row_length(count, first, run->limit);
    run->result.truncated += count - 1 + (first == 0) > run->limit;
    run->result.tokens += row->length;
    return PSK_OK;
}

/* Longest first, so that want of memory shows at once; equal ones in the order of the file. */
static int longest_first(const void *a, const void *b) {
    const choice_row *const x = a, *const y = b;
    if (x->length != y->length)
        return x->length < y->length ? 1 : -1;
    if (x->question != y->question)
        return x->question < y->question ? -1 : 1;
    return x->choice < y->choice ? -1 : 1;
}

/* Number i of the questions that are asked: all, or max_questions spread evenly over the file. */
static int64_t asked_question(const choice_run *run, int64_t i) {
    const int64_t all = run->questions.count;
    return i * (all / run->asked) + i * (all % run->asked) / run->asked;
}

static psk_status list_rows(choice_run *run) {
    const int64_t wanted = run->options->max_questions;
    run->asked = wanted > 0 && wanted < run->questions.count ? wanted : run->questions.count;
    for (int64_t i = 0; i < run->asked; i++)
        run->count += run->questions.list[asked_question(run, i)].count;
    PSK_TRY(psk_alloc_zero((size_t)run->count * sizeof *run->rows, "choices", (void **)&run->rows));
    choice_row *row = run->rows;
    for (int64_t i = 0; i < run->asked; i++)
        for (int64_t c = 0; c < run->questions.list[asked_question(run, i)].count; c++)
            *row++ = (choice_row){.question = asked_question(run, i), .choice = c};
    for (int64_t i = 0; i < run->count; i++)
        PSK_TRY(measure_row(run, &run->rows[i]));
    qsort(run->rows, (size_t)run->count, sizeof *run->rows, longest_first);
    return PSK_OK;
}

/* ----------------------------------------------------------------------------------------------------------- scoring
 */

/* tokens and targets (N each) of a row, targets -1 outside the choice. */
static psk_status fill_row(const choice_run *run, const choice_row *row, int32_t *tokens, int32_t *targets) {
    int32_t *text;
    int64_t count, first;
    PSK_TRY(encode_row(run, row, &text, &count, &first));
    const int64_t begin = count - 1 - row->length; /* -1: end-of-text comes before the text */
    for (int64_t n = 0; n < run->N; n++) {
        const int64_t i = begin + n;
        const bool inside = n < row->length;
        tokens[n] = !inside ? 0 : i < 0 ? psk_tokenizer_end_of_text(run->tokenizer) : text[i];
        targets[n] = inside && i + 1 >= first ? text[i + 1] : -1;
    }
    psk_buffer_free(text);
    return PSK_OK;
}

/* A pass for rows of at most `length` tokens. */
static psk_status prepare_pass(choice_run *run, int64_t length) {
    const int64_t N = (length + LENGTH_STEP - 1) / LENGTH_STEP * LENGTH_STEP;
    if (run->pass && run->N == N)
        return PSK_OK;
    psk_pass_free(run->pass);
    run->pass = NULL;
    run->N = N;
    return psk_pass_create(run->model, &(psk_pass_options){.B = run->B, .N = N}, &run->pass);
}

static psk_status score_batch(choice_run *run, choice_row *rows, int64_t count) {
    PSK_TRY(prepare_pass(run, rows[0].length));
    for (int64_t i = 0; i < run->B; i++) {
        int32_t *const tokens = run->tokens + i * run->N, *const targets = run->targets + i * run->N;
        if (i < count)
            PSK_TRY(fill_row(run, &rows[i], tokens, targets));
        for (int64_t n = 0; i >= count && n < run->N; n++) {
            tokens[n] = 0;
            targets[n] = -1;
        }
    }
    const psk_batch batch = {.tokens = run->tokens, .targets = run->targets};
    PSK_TRY(psk_pass_loss(run->pass, run->model, &batch, run->losses));
    for (int64_t i = 0; i < count; i++) {
        double sum = 0;
        for (int64_t n = 0; n < run->N; n++)
            sum += (double)run->losses[i * run->N + n];
        if (!isfinite(sum))
            return psk_fail(PSK_ERROR_NUMERIC, "the loss of question %" PRId64 " of %s is %g: the model is damaged",
                            rows[i].question + 1, run->options->questions, sum);
        rows[i].score = -sum;
    }
    return PSK_OK;
}

static psk_status score_rows(choice_run *run) {
    const psk_choice_options *const options = run->options;
    int64_t done = 0;
    for (int64_t i = 0; i < run->count; i += run->B) {
        const int64_t count = run->count - i < run->B ? run->count - i : run->B;
        PSK_TRY(score_batch(run, run->rows + i, count));
        for (int64_t j = i; j < i + count; j++)
            done += run->rows[j].length;
        if (options->progress && options->progress(options->user, done, run->result.tokens))
            return psk_fail(PSK_ERROR_INTERRUPTED, "evaluation was stopped after %" PRId64 " of %" PRId64 " tokens",
                            done, run->result.tokens);
    }
    return PSK_OK;
}

/* ----------------------------------------------------------------------------------------------------------- results
 */

static int in_order(const void *a, const void *b) {
    const choice_row *const x = a, *const y = b;
    return x->question != y->question ? (x->question < y->question ? -1 : 1) : x->choice < y->choice ? -1 : 1;
}

/* sqrt(p (1 - p) / (n - 1)): of the mean of n zeros and ones. */
static double standard_error(double p, int64_t n) {
    return n > 1 ? sqrt(p * (1 - p) / (double)(n - 1)) : NAN;
}

/* The largest score wins, the first of equal ones; normalised: the largest score a character. */
static void count_answers(choice_run *run) {
    int64_t right = 0, right_norm = 0;
    qsort(run->rows, (size_t)run->count, sizeof *run->rows, in_order);
    for (int64_t i = 0; i < run->count;) {
        const psk_question *const question = &run->questions.list[run->rows[i].question];
        const choice_row *const rows = run->rows + i;
        int64_t best = 0, best_norm = 0;
        for (int64_t c = 1; c < question->count; c++) {
            const double here = rows[c].score / (double)question->choices[c].characters;
            if (rows[c].score > rows[best].score)
                best = c;
            if (here > rows[best_norm].score / (double)question->choices[best_norm].characters)
                best_norm = c;
        }
        right += best == question->answer;
        right_norm += best_norm == question->answer;
        i += question->count;
    }
    psk_choice_result *const result = &run->result;
    result->questions = run->asked;
    result->choices = run->count;
    result->accuracy = (double)right / (double)run->asked;
    result->accuracy_norm = (double)right_norm / (double)run->asked;
    result->standard_error = standard_error(result->accuracy, run->asked);
    result->standard_error_norm = standard_error(result->accuracy_norm, run->asked);
}

/* --------------------------------------------------------------------------------------------------------------- run
 */

static psk_status check_options(const choice_run *run) {
    const psk_choice_options *const options = run->options;
    if (!options->questions)
        return psk_fail(PSK_ERROR_ARGUMENT, "no questions: a file with one JSON object a line is needed");
    if (options->context < 0 || options->context > INT32_MAX - LENGTH_STEP)
        return psk_fail(PSK_ERROR_ARGUMENT, "context %" PRId64 " is outside 0 ... 2^31 - %d (0: the model's)",
                        options->context, LENGTH_STEP + 1);
    if (options->batch_size < 1 || options->max_questions < 0 || options->shots < 0)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "batch_size %" PRId64 " must be >= 1, max_questions %" PRId64 " and shots %" PRId64 " >= 0",
                        options->batch_size, options->max_questions, options->shots);
    return PSK_OK;
}

static psk_status choice_begin(choice_run *run) {
    const psk_choice_options *const options = run->options;
    int64_t tokens, bytes;
    PSK_TRY(check_options(run));
    run->tokenizer = options->tokenizer;
    if (!run->tokenizer)
        PSK_TRY(psk_tokenizer_load("bytes", &run->bytes));
    if (!run->tokenizer)
        run->tokenizer = run->bytes;
    PSK_TRY(psk_tokenizer_check(run->tokenizer, run->model->config.vocab_size));
    PSK_TRY(psk_questions_read(options->questions, options->labels, &run->questions));
    if (options->shots > 0 && options->shot_questions)
        PSK_TRY(psk_questions_read(options->shot_questions, NULL, &run->others));
    run->limit = options->context > 0 ? options->context : run->model->config.n_positions;
    PSK_TRY(list_rows(run));
    run->B = options->batch_size < run->count ? options->batch_size : run->count;
    PSK_TRY(psk_size_mul(run->B, run->rows[0].length + LENGTH_STEP, &tokens));
    PSK_TRY(psk_size_mul(tokens, (int64_t)sizeof(int32_t), &bytes));
    PSK_TRY(psk_alloc((size_t)bytes, "tokens", (void **)&run->tokens));
    PSK_TRY(psk_alloc((size_t)bytes, "targets", (void **)&run->targets));
    return psk_alloc((size_t)bytes, "losses", (void **)&run->losses);
}

static void choice_end(choice_run *run) {
    psk_pass_free(run->pass);
    psk_free(run->tokens);
    psk_free(run->targets);
    psk_free(run->losses);
    psk_free(run->rows);
    psk_questions_free(&run->questions);
    psk_questions_free(&run->others);
    psk_tokenizer_free(run->bytes);
}

psk_status psk_evaluate_choices(psk_model *model, const psk_choice_options *options, psk_choice_result *result) {
    psk_status status;
    choice_run run = {.model = model, .options = options};
    PSK_TRY_GOTO(status, choice_begin(&run), done);
    PSK_TRY_GOTO(status, score_rows(&run), done);
    count_answers(&run);
    *result = run.result;
done:
    choice_end(&run);
    return status;
}
