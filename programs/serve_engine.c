#include "serve_engine.h"

#include "serve_sequence.h"
#include "serve_step.h"
#include "terminal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define READ_TOKENS 256       /* of prompts between two steps: what running completions wait at most for new ones */
#define PAUSE       10000000L /* nanoseconds: how often to look whether slow clients have read */

/* A state to be checked; lives in the frame of the thread that waits for it. */
typedef struct state_check {
    const serve_bytes *bytes;
    int64_t *tokens;
    serve_error *error;
    bool good, done;
    struct state_check *next;
} state_check;

struct serve_engine {
    serve_engine_options options;
    serve_context context;
    psk_session *keeper; /* empty: what sessions share stays while no request runs */
    int64_t V;
    serve_sequence **active, **stepped; /* active_count of at most options.sessions; those of one step */
    psk_session **sessions;             /* of the stepped ones */
    int32_t *tokens;
    float *logits;       /* sessions x V */
    serve_error *errors; /* why one of the stepped ones has none */
    int64_t active_count, turn;

    pthread_t thread;
    bool threaded;
    pthread_mutex_t lock; /* for what follows */
    pthread_cond_t changed, checked;
    serve_job *first, *last; /* the queue: jobs with prompts that have not been begun */
    int64_t waiting;         /* of these, the ones with none begun */
    int64_t jobs;            /* not ended */
    state_check *checks;
    bool closed, stopping;
};

/* ------------------------------------------------------------------------------------------------------------ queue
 */

static void enqueue(serve_engine *engine, serve_job *job) {
    job->next = NULL;
    *(engine->first ? &engine->last->next : &engine->first) = job;
    engine->last = job;
}

/* Takes the job out of the queue, if it is in it. */
static void dequeue(serve_engine *engine, serve_job *job) {
    serve_job *before = NULL, *at = engine->first;
    while (at && at != job) {
        before = at;
        at = at->next;
    }
    if (!at)
        return;
    *(before ? &before->next : &engine->first) = job->next;
    if (engine->last == job)
        engine->last = before;
    if (job->next_prompt == 0)
        engine->waiting--;
}

static bool closing(serve_error *error) {
    return serve_fail(error, 503, "shutting_down", NULL, "the server is shutting down");
}

bool serve_engine_submit(serve_engine *engine, serve_job *job, serve_error *error) {
    pthread_mutex_lock(&engine->lock);
    if (engine->closed)
        closing(error);
    else if (engine->waiting >= engine->options.queue)
        serve_fail(error, 429, "queue_full", NULL,
                   "%lld requests are waiting already, as many as this server allows; try again later",
                   (long long)engine->waiting);
    else {
        serve_job_hold(job);
        enqueue(engine, job);
        engine->waiting++;
        engine->jobs++;
        pthread_cond_signal(&engine->changed);
    }
    pthread_mutex_unlock(&engine->lock);
    if (error->http)
        atomic_fetch_add(&engine->options.metrics->rejected_total, 1);
    return error->http == 0;
}

bool serve_engine_drain(serve_engine *engine) {
    pthread_mutex_lock(&engine->lock);
    engine->closed = true;
    const bool idle = engine->jobs == 0;
    pthread_mutex_unlock(&engine->lock);
    return idle;
}

/* ------------------------------------------------------------------------------------------------------- jobs' ends
 */

static void remove_active(serve_engine *engine, int64_t index) {
    serve_sequence_free(&engine->context, engine->active[index]);
    engine->active_count--;
    memmove(engine->active + index, engine->active + index + 1,
            (size_t)(engine->active_count - index) * sizeof *engine->active);
}

static void measure(serve_engine *engine, const serve_job *job) {
    serve_metrics *const metrics = engine->options.metrics;
    serve_histogram_add(&metrics->request_seconds, seconds_now() - job->submitted);
    if (job->first_text > 0)
        serve_histogram_add(&metrics->first_text_seconds, job->first_text - job->submitted);
    atomic_fetch_add(&metrics->prompt_tokens_total, job->usage.prompt_tokens);
    atomic_fetch_add(&metrics->cached_tokens_total, job->usage.cached_tokens);
    atomic_fetch_add(&metrics->completion_tokens_total, job->usage.completion_tokens);
}

/* The end of a job, whatever is left of it. */
static void retire(serve_engine *engine, serve_job *job, const serve_error *error) {
    for (int64_t i = engine->active_count; i-- > 0;)
        if (engine->active[i]->job == job)
            remove_active(engine, i);
    measure(engine, job);
    pthread_mutex_lock(&engine->lock);
    dequeue(engine, job);
    engine->jobs--;
    pthread_mutex_unlock(&engine->lock);
    serve_job_end(job, error);
    serve_job_release(job);
}

static void retire_cancelled(serve_engine *engine, serve_job *job) {
    atomic_fetch_add(&engine->options.metrics->cancelled_total, 1);
    retire(engine, job, NULL);
}

static void retire_late(serve_engine *engine, serve_job *job) {
    serve_error error = {0};
    serve_fail(&error, 503, "time_limit", NULL, "the request's time of %.0f s was over before %s had begun",
               job->deadline - job->submitted, job->request.prompt_count == 1 ? "its text" : "all of its texts");
    retire(engine, job, &error);
}

/* Removes the finished completions, and the jobs of which they were the last. */
static void sweep(serve_engine *engine) {
    for (int64_t i = engine->active_count; i-- > 0;) {
        if (i >= engine->active_count || !engine->active[i]->finished)
            continue;
        serve_job *const job = engine->active[i]->job;
        remove_active(engine, i);
        atomic_fetch_add(&engine->options.metrics->completions_total, 1);
        if (--job->open == 0 && job->next_prompt == job->request.prompt_count)
            retire(engine, job, NULL);
    }
}

/* Completions whose client has gone or whose time is over. */
static void drop_active(serve_engine *engine, double now) {
    for (int64_t i = engine->active_count; i-- > 0;) {
        if (i >= engine->active_count)
            continue;
        serve_sequence *const sequence = engine->active[i];
        serve_job *const job = sequence->job;
        serve_error error = {0};
        if (atomic_load(&job->cancelled))
            retire_cancelled(engine, job);
        else if (now < job->deadline)
            continue;
        else if (!serve_sequence_is_writing(sequence))
            retire_late(engine, job);
        else if (!serve_sequence_finish(sequence, "length", &error))
            retire(engine, job, &error);
    }
}

static serve_job *find_queued(serve_engine *engine, double now) {
    pthread_mutex_lock(&engine->lock);
    serve_job *job = engine->first;
    while (job && !atomic_load(&job->cancelled) && now < job->deadline)
        job = job->next;
    pthread_mutex_unlock(&engine->lock);
    return job;
}

static void drop_queued(serve_engine *engine, double now) {
    for (serve_job *job; (job = find_queued(engine, now));) {
        if (atomic_load(&job->cancelled))
            retire_cancelled(engine, job);
        else
            retire_late(engine, job);
    }
}

/* ------------------------------------------------------------------------------------------------------------- work
 */

/* The job whose turn it is, if there is room for its next prompt. Jobs with several prompts take turns. */
static serve_job *next_job(serve_engine *engine, int64_t *prompt) {
    pthread_mutex_lock(&engine->lock);
    serve_job *const job = engine->first;
    const bool fits = job && engine->active_count + job->request.n <= engine->options.sessions;
    if (fits) {
        dequeue(engine, job);
        *prompt = job->next_prompt++;
        if (job->next_prompt < job->request.prompt_count)
            enqueue(engine, job);
    }
    pthread_mutex_unlock(&engine->lock);
    return fits ? job : NULL;
}

static void admit(serve_engine *engine) {
    int64_t prompt;
    for (serve_job *job; (job = next_job(engine, &prompt));) {
        serve_error error = {0};
        if (prompt == 0)
            serve_histogram_add(&engine->options.metrics->queue_seconds, seconds_now() - job->submitted);
        if (!serve_sequences_begin(&engine->context, job, prompt, engine->active + engine->active_count, &error)) {
            retire(engine, job, &error);
            continue;
        }
        engine->active_count += job->request.n;
        job->open += job->request.n;
    }
}

/* Prompts take turns, a cut each, until READ_TOKENS are read. */
static int64_t read_prompts(serve_engine *engine) {
    int64_t total = 0;
    for (int64_t passed = 0; passed < engine->active_count && total < READ_TOKENS; passed++) {
        serve_sequence *const sequence = engine->active[engine->turn++ % engine->active_count];
        int64_t count = 0;
        serve_error error = {0};
        if (!serve_sequence_is_reading(sequence) || serve_job_is_full(sequence->job))
            continue;
        if (!serve_sequence_read(&engine->context, sequence, &count, &error))
            retire(engine, sequence->job, &error);
        total += count;
        passed = -1;
    }
    return total;
}

static int64_t gather(serve_engine *engine) {
    int64_t count = 0;
    for (int64_t i = 0; i < engine->active_count; i++) {
        serve_sequence *const sequence = engine->active[i];
        if (!serve_sequence_is_writing(sequence) || serve_job_is_full(sequence->job))
            continue;
        engine->stepped[count] = sequence;
        engine->sessions[count] = sequence->session;
        engine->tokens[count++] = sequence->tokens[sequence->read];
    }
    return count;
}

static bool is_active(const serve_engine *engine, const serve_sequence *sequence) {
    for (int64_t i = 0; i < engine->active_count; i++)
        if (engine->active[i] == sequence)
            return true;
    return false;
}

static void write_tokens(serve_engine *engine, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        serve_sequence *const sequence = engine->stepped[i];
        serve_error *const error = &engine->errors[i];
        if (!is_active(engine, sequence)) /* went with another completion of its job */
            continue;
        if (error->http || !serve_sequence_write(&engine->context, sequence, engine->logits + i * engine->V, error))
            retire(engine, sequence->job, error);
    }
}

static int64_t step(serve_engine *engine) {
    const int64_t count = gather(engine);
    if (count == 0)
        return 0;
    const double begin = seconds_now();
    serve_step(engine->sessions, count, engine->tokens, engine->V, engine->logits, engine->errors);
    serve_histogram_add(&engine->options.metrics->step_seconds, seconds_now() - begin);
    atomic_fetch_add(&engine->options.metrics->steps_total, 1);
    write_tokens(engine, count);
    return count;
}

static void publish(serve_engine *engine) {
    serve_metrics *const metrics = engine->options.metrics;
    int64_t bytes = 0;
    for (int64_t i = 0; i < engine->active_count; i++)
        if (engine->active[i]->session)
            bytes += psk_session_bytes(engine->active[i]->session);
    pthread_mutex_lock(&engine->lock);
    const int64_t waiting = engine->waiting, jobs = engine->jobs;
    pthread_mutex_unlock(&engine->lock);
    atomic_store(&metrics->requests_queued, waiting);
    atomic_store(&metrics->requests_running, jobs - waiting);
    atomic_store(&metrics->completions_running, engine->active_count);
    atomic_store(&metrics->session_bytes, bytes);
    atomic_store(&metrics->cache_bytes, serve_cache_bytes(engine->context.cache));
    atomic_store(&metrics->cache_snapshots, serve_cache_count(engine->context.cache));
}

/* ----------------------------------------------------------------------------------------------------------- thread
 */

static void check_state(serve_engine *engine, state_check *check) {
    psk_session *session;
    const psk_status status =
        psk_session_unpack(engine->context.model, check->bytes->data, check->bytes->size, &session);
    check->good = status == PSK_OK || serve_fail_status(check->error, status, NULL);
    if (check->good)
        *check->tokens = psk_session_length(session);
    psk_session_free(session);
}

/* With the lock held, which it gives up meanwhile. */
static void check_states(serve_engine *engine) {
    for (state_check *check; (check = engine->checks);) {
        engine->checks = check->next;
        pthread_mutex_unlock(&engine->lock);
        check_state(engine, check);
        pthread_mutex_lock(&engine->lock);
        check->done = true;
        pthread_cond_broadcast(&engine->checked);
    }
}

bool serve_engine_check_state(serve_engine *engine, const serve_bytes *bytes, int64_t *tokens, serve_error *error) {
    state_check check = {.bytes = bytes, .tokens = tokens, .error = error};
    pthread_mutex_lock(&engine->lock);
    if (engine->stopping)
        check.done = !closing(error);
    else {
        check.next = engine->checks;
        engine->checks = &check;
        pthread_cond_signal(&engine->changed);
    }
    while (!check.done)
        pthread_cond_wait(&engine->checked, &engine->lock);
    pthread_mutex_unlock(&engine->lock);
    return check.good;
}

/* Waits for something to do; false: the end. */
static bool wait_for_work(serve_engine *engine) {
    pthread_mutex_lock(&engine->lock);
    check_states(engine);
    while (!engine->stopping && !engine->first && engine->active_count == 0) {
        pthread_cond_wait(&engine->changed, &engine->lock);
        check_states(engine);
    }
    const bool go_on = !engine->stopping;
    pthread_mutex_unlock(&engine->lock);
    return go_on;
}

static void stop_all(serve_engine *engine) {
    serve_error error = {0};
    closing(&error);
    while (engine->active_count > 0)
        retire(engine, engine->active[0]->job, &error);
    while (engine->first)
        retire(engine, engine->first, &error);
}

static void *run(void *user) {
    serve_engine *const engine = user;
    while (wait_for_work(engine)) {
        const double now = seconds_now();
        drop_queued(engine, now);
        drop_active(engine, now);
        sweep(engine);
        admit(engine);
        const int64_t done = read_prompts(engine) + step(engine);
        sweep(engine);
        publish(engine);
        if (done == 0 && engine->active_count > 0)
            nanosleep(&(struct timespec){.tv_nsec = PAUSE}, NULL);
    }
    stop_all(engine);
    pthread_mutex_lock(&engine->lock);
    check_states(engine);
    pthread_mutex_unlock(&engine->lock);
    return NULL;
}

static bool make_buffers(serve_engine *engine) {
    const size_t n = (size_t)engine->options.sessions;
    engine->active = calloc(n, sizeof *engine->active);
    engine->stepped = calloc(n, sizeof *engine->stepped);
    engine->sessions = calloc(n, sizeof *engine->sessions);
    engine->tokens = calloc(n, sizeof *engine->tokens);
    engine->logits = calloc(n * (size_t)engine->V, sizeof *engine->logits);
    engine->errors = calloc(n, sizeof *engine->errors);
    return engine->active && engine->stepped && engine->sessions && engine->tokens && engine->logits && engine->errors;
}

static bool start(serve_engine *engine, serve_error *error) {
    const psk_model_config *const config = psk_model_get_config(engine->options.model);
    engine->V = config->vocab_size;
    engine->context = (serve_context){
        .model = engine->options.model,
        .tokenizer = engine->options.tokenizer,
        .cache = serve_cache_create(engine->options.cache_bytes, config->attention.block_size),
    };
    if (!engine->context.cache || !make_buffers(engine))
        return serve_fail(error, 503, NULL, NULL, "out of memory");
    const psk_status status = psk_session_create(engine->options.model, &engine->keeper);
    if (status != PSK_OK)
        return serve_fail_status(error, status, NULL);
    atomic_store(&engine->options.metrics->completions_limit, engine->options.sessions);
    engine->threaded = pthread_create(&engine->thread, NULL, run, engine) == 0;
    return engine->threaded || serve_fail(error, 503, NULL, NULL, "the system gives no thread");
}

serve_engine *serve_engine_create(const serve_engine_options *options, serve_error *error) {
    serve_engine *const engine = calloc(1, sizeof *engine);
    if (!engine) {
        serve_fail(error, 503, NULL, NULL, "out of memory");
        return NULL;
    }
    engine->options = *options;
    pthread_mutex_init(&engine->lock, NULL);
    pthread_cond_init(&engine->changed, NULL);
    pthread_cond_init(&engine->checked, NULL);
    if (start(engine, error))
        return engine;
    serve_engine_free(engine);
    return NULL;
}

void serve_engine_stop(serve_engine *engine) {
    pthread_mutex_lock(&engine->lock);
    engine->closed = engine->stopping = true;
    pthread_cond_signal(&engine->changed);
    pthread_mutex_unlock(&engine->lock);
    if (engine->threaded)
        pthread_join(engine->thread, NULL);
    engine->threaded = false;
}

void serve_engine_free(serve_engine *engine) {
    if (!engine)
        return;
    serve_engine_stop(engine);
    psk_session_free(engine->keeper);
    serve_cache_free(engine->context.cache);
    free(engine->active);
    free(engine->stepped);
    free(engine->sessions);
    free(engine->tokens);
    free(engine->logits);
    free(engine->errors);
    pthread_cond_destroy(&engine->checked);
    pthread_cond_destroy(&engine->changed);
    pthread_mutex_destroy(&engine->lock);
    free(engine);
}
