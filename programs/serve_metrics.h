/* Figures of a running server, in the text format of Prometheus. Any thread may add to them at any time. */
#ifndef SERVE_METRICS_H
#define SERVE_METRICS_H

#include "command.h"

#include <stdatomic.h>

/* METRIC(name, type, help), in the order of the page; the names there begin with polysketch_. */
#define SERVE_METRICS(METRIC)                                                                                          \
    METRIC(prompt_tokens_total, counter, "tokens of prompts")                                                          \
    METRIC(cached_tokens_total, counter, "of these, not computed: in the prefix cache or a state")                     \
    METRIC(completion_tokens_total, counter, "tokens written")                                                         \
    METRIC(steps_total, counter, "decoding steps, each one token for every running completion")                        \
    METRIC(completions_total, counter, "completions that came to their end")                                           \
    METRIC(cancelled_total, counter, "completion requests whose client went away")                                     \
    METRIC(rejected_total, counter, "completion requests that met a full queue or a closing server")                   \
    METRIC(requests_queued, gauge, "completion requests waiting to begin")                                             \
    METRIC(requests_running, gauge, "completion requests that are not finished, without the waiting ones")             \
    METRIC(completions_running, gauge, "completions being computed")                                                   \
    METRIC(completions_limit, gauge, "completions that can be computed at once")                                       \
    METRIC(session_bytes, gauge, "memory of the running completions' states")                                          \
    METRIC(cache_snapshots, gauge, "snapshots in the prefix cache")                                                    \
    METRIC(cache_bytes, gauge, "memory of the prefix cache")                                                           \
    METRIC(states, gauge, "states that clients store here")                                                            \
    METRIC(states_bytes, gauge, "memory of these")                                                                     \
    METRIC(resident_bytes, gauge, "memory of the whole process")                                                       \
    METRIC(uptime_seconds, gauge, "since the start")

/* HISTOGRAM(name, help): of seconds. */
#define SERVE_HISTOGRAMS(HISTOGRAM)                                                                                    \
    HISTOGRAM(queue_seconds, "from a request's arrival to its beginning")                                              \
    HISTOGRAM(first_text_seconds, "from a request's arrival to its first text")                                        \
    HISTOGRAM(request_seconds, "from a completion request's arrival to its end")                                       \
    HISTOGRAM(step_seconds, "one decoding step of all running completions")

#define SERVE_BOUNDS     14
#define SERVE_HTTP_CODES 600

typedef struct serve_histogram {
    _Atomic int64_t counts[SERVE_BOUNDS + 1]; /* the last one: above all bounds */
    _Atomic int64_t microseconds;
} serve_histogram;

typedef struct serve_metrics {
#define METRIC(name, type, help) _Atomic int64_t name;
    SERVE_METRICS(METRIC)
#undef METRIC
#define HISTOGRAM(name, help) serve_histogram name;
    SERVE_HISTOGRAMS(HISTOGRAM)
#undef HISTOGRAM
    _Atomic int64_t responses[SERVE_HTTP_CODES]; /* by status */
} serve_metrics;

void serve_histogram_add(serve_histogram *histogram, double seconds);

/* The page, to be freed; NULL without memory. */
char *serve_metrics_text(const serve_metrics *metrics, size_t *size);

/* Resident memory of this process in bytes, now; 0 where the system does not tell. */
int64_t serve_resident_bytes(void);

#endif
