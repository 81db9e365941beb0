#include "serve_metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const double bounds[SERVE_BOUNDS] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60};

void serve_histogram_add(serve_histogram *histogram, double seconds) {
    int i = 0;
    while (i < SERVE_BOUNDS && !(seconds <= bounds[i]))
        i++;
    atomic_fetch_add(&histogram->counts[i], 1);
    atomic_fetch_add(&histogram->microseconds, (int64_t)(seconds * 1e6));
}

static void print_head(FILE *page, const char *name, const char *type, const char *help) {
    fprintf(page, "# HELP polysketch_%s %s\n# TYPE polysketch_%s %s\n", name, help, name, type);
}

static void print_histogram(FILE *page, const char *name, const char *help, const serve_histogram *histogram) {
    int64_t sum = 0;
    print_head(page, name, "histogram", help);
    for (int i = 0; i < SERVE_BOUNDS; i++) {
        sum += histogram->counts[i];
        fprintf(page, "polysketch_%s_bucket{le=\"%g\"} %lld\n", name, bounds[i], (long long)sum);
    }
    sum += histogram->counts[SERVE_BOUNDS];
    fprintf(page, "polysketch_%s_bucket{le=\"+Inf\"} %lld\n", name, (long long)sum);
    fprintf(page, "polysketch_%s_sum %.6f\npolysketch_%s_count %lld\n", name, 1e-6 * (double)histogram->microseconds,
            name, (long long)sum);
}

static void print_all(FILE *page, const serve_metrics *metrics) {
#define METRIC(name, type, help)                                                                                       \
    print_head(page, #name, #type, help);                                                                              \
    fprintf(page, "polysketch_" #name " %lld\n", (long long)metrics->name);
    SERVE_METRICS(METRIC)
#undef METRIC
#define HISTOGRAM(name, help) print_histogram(page, #name, help, &metrics->name);
    SERVE_HISTOGRAMS(HISTOGRAM)
#undef HISTOGRAM
    print_head(page, "responses_total", "counter", "HTTP responses by status");
    for (int i = 0; i < SERVE_HTTP_CODES; i++)
        if (metrics->responses[i])
            fprintf(page, "polysketch_responses_total{status=\"%d\"} %lld\n", i, (long long)metrics->responses[i]);
}

char *serve_metrics_text(const serve_metrics *metrics, size_t *size) {
    char *text = NULL;
    FILE *const page = open_memstream(&text, size);
    if (!page)
        return NULL;
    print_all(page, metrics);
    if (fclose(page) == 0)
        return text;
    free(text);
    return NULL;
}

int64_t serve_resident_bytes(void) {
    long long total = 0, resident = 0;
    FILE *const file = fopen("/proc/self/statm", "r");
    if (!file)
        return 0;
    if (fscanf(file, "%lld %lld", &total, &resident) != 2)
        resident = 0;
    fclose(file);
    return resident * sysconf(_SC_PAGESIZE);
}
