/* How well a model predicts a text: every token but the first, in windows of N that do not overlap. */
#include "base/memory.h"
#include "data/dataset.h"
#include "model/model.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* The tokens to be predicted: a split of shards, or the bytes of a text file and end-of-text after them. */
typedef struct eval_source {
    psk_dataset dataset;
    psk_mapping text;
    psk_tokenizer *bytes; /* of a text */
    const psk_tokenizer *tokenizer;
    int64_t tokens;
    bool is_text;
} eval_source;

/* Working set of one evaluation. */
typedef struct eval_run {
    psk_model *model;
    const psk_eval_options *options;
    eval_source source;
    psk_pass *pass;
    int64_t B, N;
    int64_t counted;           /* targets to be counted */
    int32_t *tokens, *targets; /* B x N */
    float *losses;             /* B x N */
    double sum;                /* of losses */
    int64_t bytes;             /* of targets */
} eval_run;

psk_eval_options psk_eval_options_default(void) {
    return (psk_eval_options){.split = "valid", .batch_size = 4};
}

static psk_status source_open(const psk_eval_options *options, eval_source *source) {
    if (!psk_is_folder(options->data)) {
        source->is_text = true;
        PSK_TRY(psk_map_file(options->data, &source->text));
        PSK_TRY(psk_tokenizer_load("bytes", &source->bytes));
        source->tokenizer = source->bytes;
        source->tokens = (int64_t)source->text.size + 1;
        return PSK_OK;
    }
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
    psk_unmap_file(&source->text);
    psk_tokenizer_free(source->bytes);
    psk_dataset_close(&source->dataset);
}

static psk_status source_read(const eval_source *source, int64_t first, int64_t count, int32_t *tokens) {
    if (!source->is_text)
        return psk_dataset_read(&source->dataset, first, count, tokens);
    for (int64_t i = 0; i < count; i++)
        tokens[i] =
            first + i < (int64_t)source->text.size ? source->text.data[first + i] : source->tokenizer->end_of_text;
    return PSK_OK;
}

static psk_status check_sizes(const eval_run *run) {
    const psk_model_config *const config = &run->model->config;
    const psk_eval_options *const options = run->options;
    if (options->context < 0 || options->context > INT32_MAX)
        return psk_fail(PSK_ERROR_ARGUMENT, "context %" PRId64 " is outside 0 ... 2^31 - 1 (0: the model's)",
                        options->context);
    if (options->batch_size < 1)
        return psk_fail(PSK_ERROR_ARGUMENT, "batch_size %" PRId64 ": it must be >= 1", options->batch_size);
    if (options->max_tokens < 0)
        return psk_fail(PSK_ERROR_ARGUMENT, "max_tokens %" PRId64 ": it must be >= 0 (0: all)", options->max_tokens);
    if (run->source.tokenizer->vocab_size > config->vocab_size)
        return psk_fail(
            PSK_ERROR_ARGUMENT, "%s has tokens of \"%s\" (vocab_size %" PRId64 "), the model has vocab_size %" PRId64,
            options->data, run->source.tokenizer->name, run->source.tokenizer->vocab_size, config->vocab_size);
    if (run->source.tokens < 2)
        return psk_fail(PSK_ERROR_ARGUMENT,
                        "%s holds too little text: at least 2 tokens are needed, it has %" PRId64 " with end-of-text",
                        options->data, run->source.tokens);
    return PSK_OK;
}

/* N and B no larger than what there is to predict, then the memory of all batches. */
static psk_status run_begin(eval_run *run) {
    const psk_eval_options *const options = run->options;
    PSK_TRY(check_sizes(run));
    run->counted = run->source.tokens - 1;
    if (options->max_tokens > 0 && options->max_tokens < run->counted)
        run->counted = options->max_tokens;
    run->N = options->context > 0 ? options->context : run->model->config.n_positions;
    if (run->N > run->counted)
        run->N = run->counted;
    const int64_t windows = (run->counted + run->N - 1) / run->N;
    run->B = options->batch_size < windows ? options->batch_size : windows;

    int64_t size, bytes;
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

/* B windows from token `first` on; what is beyond the counted targets has target -1. */
static psk_status read_batch(eval_run *run, int64_t first) {
    const int64_t size = run->B * run->N;
    const int64_t left = run->counted - first;
    const int64_t used = left < size ? left : size;
    PSK_TRY(source_read(&run->source, first, used, run->tokens));
    PSK_TRY(source_read(&run->source, first + 1, used, run->targets));
    for (int64_t i = used; i < size; i++) {
        run->tokens[i] = 0;
        run->targets[i] = -1;
    }
    return PSK_OK;
}

/* Adds a batch in the order of its tokens, so the sum does not depend on the batch size. */
static psk_status count_batch(eval_run *run, int64_t first) {
    for (int64_t i = 0; i < run->B * run->N && run->targets[i] >= 0; i++) {
        const char *text;
        size_t size;
        if (!isfinite(run->losses[i]))
            return psk_fail(PSK_ERROR_NUMERIC, "the loss of token %" PRId64 " of %s is %g: the model is damaged",
                            first + i + 1, run->options->data, (double)run->losses[i]);
        run->sum += (double)run->losses[i];
        PSK_TRY(psk_tokenizer_token_text(run->source.tokenizer, run->targets[i], &text, &size));
        run->bytes += (int64_t)size;
    }
    return PSK_OK;
}

static psk_status run_batches(eval_run *run) {
    const psk_eval_options *const options = run->options;
    for (int64_t first = 0; first < run->counted; first += run->B * run->N) {
        const psk_batch batch = {.tokens = run->tokens, .targets = run->targets};
        PSK_TRY(read_batch(run, first));
        PSK_TRY(psk_pass_loss(run->pass, run->model, &batch, run->losses));
        PSK_TRY(count_batch(run, first));
        const int64_t done = first + run->B * run->N < run->counted ? first + run->B * run->N : run->counted;
        if (options->progress && options->progress(options->user, done, run->counted))
            return psk_fail(PSK_ERROR_INTERRUPTED, "evaluation was stopped after %" PRId64 " of %" PRId64 " tokens",
                            done, run->counted);
    }
    return PSK_OK;
}

psk_status psk_evaluate(psk_model *model, const psk_eval_options *options, psk_eval_result *result) {
    psk_status status;
    eval_run run = {.model = model, .options = options};
    if (!options->data)
        return psk_fail(PSK_ERROR_ARGUMENT, "no data: a folder made by psk_prepare or a text file is needed");
    PSK_TRY_GOTO(status, source_open(options, &run.source), done);
    PSK_TRY_GOTO(status, run_begin(&run), done);
    PSK_TRY_GOTO(status, run_batches(&run), done);
    const double loss = run.sum / (double)run.counted;
    *result = (psk_eval_result){.tokens = run.counted,
                                .bytes = run.bytes,
                                .loss = loss,
                                .perplexity = exp(loss),
                                .bits_per_byte = run.bytes > 0 ? run.sum / log(2.0) / (double)run.bytes : NAN};
done:
    run_end(&run);
    return status;
}
