/* How well a model predicts a text: every token but the first, in windows of N, and the loss by position in them. */
#include "base/memory.h"
#include "data/dataset.h"
#include "data/text_tokens.h"
#include "model/model.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

/* The tokens to be predicted: a split of shards, or those of a text file. */
typedef struct eval_source {
    psk_dataset dataset;
    psk_tokenizer *bytes; /* of a text, where the caller has none */
    const psk_tokenizer *tokenizer;
    psk_tokens text; /* without ids: the dataset's */
    int64_t tokens;
} eval_source;

/* A mean over tokens that come in windows, and its error between windows: of a ratio S / n of sums over windows w,
 *     standard error = sqrt(W / (W - 1) sum_w (s_w - S/n n_w)^2) / n */
typedef struct window_mean {
    int64_t windows, n; /* n: sum of n_w */
    double s, ss, sn, nn;
} window_mean;

/* Working set of one evaluation. */
typedef struct eval_run {
    psk_model *model;
    const psk_eval_options *options;
    eval_source source;
    psk_pass *pass;
    int64_t B, N, stride;
    int64_t counted;           /* targets to be counted */
    int64_t windows;           /* that hold them */
    int32_t *tokens, *targets; /* B x N */
    float *losses;             /* B x N */
    window_mean mean, buckets[PSK_EVAL_BUCKETS];
    int64_t done, bytes, words; /* of the targets counted so far */
    bool in_word;               /* the last byte was no white space */
} eval_run;

psk_eval_options psk_eval_options_default(void) {
    return (psk_eval_options){.split = "valid", .batch_size = 4};
}

/* ------------------------------------------------------------------------------------------------------------ source
 */

static psk_status open_text(const psk_eval_options *options, eval_source *source) {
    source->tokenizer = options->tokenizer;
    if (!source->tokenizer) {
        PSK_TRY(psk_tokenizer_load("bytes", &source->bytes));
        source->tokenizer = source->bytes;
    }
    PSK_TRY(psk_text_tokens(options->data, source->tokenizer, &source->text));
    source->tokens = source->text.count;
    return PSK_OK;
}

static psk_status source_open(const psk_eval_options *options, eval_source *source) {
    if (!psk_is_folder(options->data))
        return open_text(options, source);
    if (strcmp(options->split, "valid") != 0 && strcmp(options->split, "train") != 0)
        return psk_fail(PSK_ERROR_ARGUMENT, "split \"%s\" is neither \"valid\" nor \"train\"", options->split);
    PSK_TRY(psk_dataset_open(options->data, options->split, &source->dataset));
    source->tokenizer = source->dataset.tokenizer;
    source->tokens = source->dataset.tokens;
    if (source->dataset.count == 0)
        return psk_fail(PSK_ERROR_FILE, "%s has no %s shards: prepare it with a part held out, or take the other split",
                        options->data, options->split);
    return PSK_OK;
}

static void source_close(eval_source *source) {
    psk_free(source->text.ids);
    psk_tokenizer_free(source->bytes);
    psk_dataset_close(&source->dataset);
}

static psk_status source_read(const eval_source *source, int64_t first, int64_t count, int32_t *tokens) {
    if (!source->text.ids)
        return psk_dataset_read(&source->dataset, first, count, tokens);
    memcpy(tokens, source->text.ids + first, (size_t)count * sizeof *tokens);
    return PSK_OK;
}

/* ------------------------------------------------------------------------------------------------------------- sizes
 */

static psk_status check_sizes(const eval_run *run) {
    const psk_eval_options *const options = run->options;
    if (options->context < 0 || options->context > INT32_MAX)
        return psk_fail(PSK_ERROR_ARGUMENT, "context %" PRId64 " is outside 0 ... 2^31 - 1 (0: the model's)",
                        options->context);
    if (options->batch_size < 1)
        return psk_fail(PSK_ERROR_ARGUMENT, "batch_size %" PRId64 ": it must be >= 1", options->batch_size);
    if (options->max_tokens < 0)
        return psk_fail(PSK_ERROR_ARGUMENT, "max_tokens %" PRId64 ": it must be >= 0 (0: all)", options->max_tokens);
    if (psk_tokenizer_check(run->source.tokenizer, run->model->config.vocab_size) != PSK_OK)
        return psk_fail_within(PSK_ERROR_ARGUMENT, "%s", options->data);
    if (run->source.tokens < 2)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "%s holds too little text: at least 2 tokens are needed, it has %" PRId64 " with end-of-text",
                        options->data, run->source.tokens);
    return PSK_OK;
}

/* N, stride and B no larger than what there is to predict. */
static psk_status choose_sizes(eval_run *run) {
    const psk_eval_options *const options = run->options;
    const int64_t N = options->context > 0 ? options->context : run->model->config.n_positions;
    if (options->stride < 0 || options->stride > N)
        return psk_fail(PSK_ERROR_ARGUMENT, "stride %" PRId64 " is outside 1 ... %" PRId64 ", the context (0: that)",
                        options->stride, N);
    run->counted = run->source.tokens - 1;
    if (options->max_tokens > 0 && options->max_tokens < run->counted)
        run->counted = options->max_tokens;
    run->N = N < run->counted ? N : run->counted;
    run->stride = options->stride > 0 && options->stride < run->N ? options->stride : run->N;
    run->windows = 1 + (run->counted - run->N + run->stride - 1) / run->stride;
    run->B = options->batch_size < run->windows ? options->batch_size : run->windows;
    return PSK_OK;
}

static psk_status run_begin(eval_run *run) {
    int64_t size, bytes;
    PSK_TRY(check_sizes(run));
    PSK_TRY(choose_sizes(run));
    PSK_TRY(psk_size_mul(run->B, run->N, &size));
    PSK_TRY(psk_size_mul(size, sizeof(int32_t), &bytes));
    PSK_TRY(psk_alloc((size_t)bytes, "tokens", (void **)&run->tokens));
    PSK_TRY(psk_alloc((size_t)bytes, "targets", (void **)&run->targets));
    PSK_TRY(psk_alloc((size_t)bytes, "losses", (void **)&run->losses));
    return psk_pass_create(run->model, &(psk_pass_options){.B = run->B, .N = run->N}, &run->pass);
}

static void run_end(eval_run *run) {
    psk_pass_free(run->pass);
    psk_free(run->tokens);
    psk_free(run->targets);
    psk_free(run->losses);
    source_close(&run->source);
}

/* ---------------------------------------------------------------------------------------------------------- counting
 */

static void add_window(window_mean *mean, double s, int64_t n) {
    if (n == 0)
        return;
    mean->windows++;
    mean->n += n;
    mean->s += s;
    mean->ss += s * s;
    mean->sn += s * (double)n;
    mean->nn += (double)n * (double)n;
}

static double mean_of(const window_mean *mean) {
    return mean->s / (double)mean->n;
}

static double error_of(const window_mean *mean) {
    const double W = (double)mean->windows, m = mean_of(mean);
    if (mean->windows < 2)
        return NAN;
    return sqrt(W / (W - 1) * fmax(0, mean->ss - 2 * m * mean->sn + m * m * mean->nn)) / (double)mean->n;
}

/* The bucket of c >= 1 tokens of context: 2^k ... 3/2 2^k - 1, and from there to 2^(k+1) - 1. */
static int64_t bucket_of(int64_t c) {
    int64_t k = 0;
    while (c >> (k + 1) > 0)
        k++;
    return k == 0 ? 0 : 2 * k - 1 + (c >> (k - 1) & 1);
}

static int64_t bucket_first(int64_t bucket) {
    const int64_t k = (bucket + 1) / 2;
    return bucket == 0 ? 1 : bucket % 2 == 1 ? INT64_C(1) << k : INT64_C(3) << (k - 1);
}

/* Bytes and words of a target. */
static psk_status count_text(eval_run *run, int32_t token) {
    const char *text;
    size_t size;
    PSK_TRY(psk_tokenizer_token_text(run->source.tokenizer, token, &text, &size));
    run->bytes += (int64_t)size;
    for (size_t i = 0; i < size; i++) {
        const bool inside = !isspace((unsigned char)text[i]);
        run->words += inside && !run->in_word;
        run->in_word = inside;
    }
    if (size == 0) /* end-of-text */
        run->in_word = false;
    return PSK_OK;
}

/* B windows from number `window` on; what is beyond the counted targets has target -1. */
static psk_status read_batch(eval_run *run, int64_t window) {
    for (int64_t i = 0; i < run->B; i++) {
        int32_t *const tokens = run->tokens + i * run->N, *const targets = run->targets + i * run->N;
        const int64_t first = window + i < run->windows ? (window + i) * run->stride : 0;
        const int64_t left = window + i < run->windows ? run->counted - first : 0;
        const int64_t used = left < run->N ? left : run->N;
        PSK_TRY(source_read(&run->source, first, used, tokens));
        PSK_TRY(source_read(&run->source, first + 1, used, targets));
        for (int64_t n = used; n < run->N; n++) {
            tokens[n] = 0;
            targets[n] = -1;
        }
    }
    return PSK_OK;
}

/* One window, in the order of its tokens, so that no sum depends on the batch size. */
static psk_status count_window(eval_run *run, int64_t window, const int32_t *targets, const float *losses) {
    const int64_t news = window == 0 ? 0 : run->N - run->stride; /* targets before it were counted before */
    double sum = 0, bucket_sum = 0;
    int64_t n = 0, bucket_begin = 0;
    for (; n < run->N && targets[n] >= 0; n++) {
        if (!isfinite(losses[n]))
            return psk_fail(PSK_ERROR_NUMERIC, "the loss of token %" PRId64 " of %s is %g: the model is damaged",
                            window * run->stride + n + 1, run->options->data, (double)losses[n]);
        if (n > 0 && bucket_of(n + 1) != bucket_of(n)) {
            add_window(&run->buckets[bucket_of(n)], bucket_sum, n - bucket_begin);
            bucket_begin = n;
            bucket_sum = 0;
        }
        bucket_sum += (double)losses[n];
        if (n < news)
            continue;
        sum += (double)losses[n];
        PSK_TRY(count_text(run, targets[n]));
    }
    add_window(&run->buckets[bucket_of(n)], bucket_sum, n - bucket_begin);
    add_window(&run->mean, sum, n - news);
    run->done += n - news;
    return PSK_OK;
}

static psk_status run_batches(eval_run *run) {
    const psk_eval_options *const options = run->options;
    for (int64_t window = 0; window < run->windows; window += run->B) {
        const psk_batch batch = {.tokens = run->tokens, .targets = run->targets};
        PSK_TRY(read_batch(run, window));
        PSK_TRY(psk_pass_loss(run->pass, run->model, &batch, run->losses));
        for (int64_t i = 0; i < run->B && window + i < run->windows; i++)
            PSK_TRY(count_window(run, window + i, run->targets + i * run->N, run->losses + i * run->N));
        if (options->progress && options->progress(options->user, run->done, run->counted))
            return psk_fail(PSK_ERROR_INTERRUPTED, "evaluation was stopped after %" PRId64 " of %" PRId64 " tokens",
                            run->done, run->counted);
    }
    return PSK_OK;
}

/* ------------------------------------------------------------------------------------------------------------ result
 */

static void fill_result(const eval_run *run, psk_eval_result *result) {
    const double nats = run->mean.s, loss = mean_of(&run->mean);
    *result = (psk_eval_result){.tokens = run->counted,
                                .bytes = run->bytes,
                                .words = run->words,
                                .loss = loss,
                                .standard_error = error_of(&run->mean),
                                .perplexity = exp(loss),
                                .bits_per_byte = run->bytes > 0 ? nats / log(2.0) / (double)run->bytes : NAN,
                                .word_perplexity = run->words > 0 ? exp(nats / (double)run->words) : NAN,
                                .bucket_count = bucket_of(run->N) + 1};
    for (int64_t i = 0; i < result->bucket_count; i++) {
        const int64_t end = bucket_first(i + 1) - 1;
        result->buckets[i] = (psk_eval_bucket){.first = bucket_first(i),
                                               .last = end < run->N ? end : run->N,
                                               .tokens = run->buckets[i].n,
                                               .loss = mean_of(&run->buckets[i]),
                                               .standard_error = error_of(&run->buckets[i])};
    }
}

psk_status psk_evaluate(psk_model *model, const psk_eval_options *options, psk_eval_result *result) {
    psk_status status;
    eval_run run = {.model = model, .options = options};
    if (!options->data)
        return psk_fail(PSK_ERROR_ARGUMENT, "no data: a folder made by psk_prepare or a text file is needed");
    PSK_TRY_GOTO(status, source_open(options, &run.source), done);
    PSK_TRY_GOTO(status, run_begin(&run), done);
    PSK_TRY_GOTO(status, run_batches(&run), done);
    fill_result(&run, result);
done:
    run_end(&run);
    return status;
}
