/* polysketch plot: loss curves of runs. */
#include "model_options.h"
#include "plot.h"
#include "records.h"
#include "terminal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MOST_RUNS   16
#define MOST_POINTS 500 /* of a curve: steps in between are averaged, or the noise of single batches would hide it */
#define LINE_SIZE   4096

/* key in metrics.jsonl, label of the axis */
static const struct {
    const char *key, *label;
} against[] = {{"step", "step"}, {"tokens", "tokens"}, {"seconds", "seconds of training"}};
static const char *const against_names[] = {"steps", "tokens", "seconds", NULL};

typedef struct plot_settings {
    const char *output;
    int against;
} plot_settings;

/* Both curves from metrics.jsonl of a run folder, or the file itself. */
static bool read_curves(const char *run, int x_index, plot_series *train, plot_series *valid) {
    char path[PATH_CAPACITY], line[LINE_SIZE];
    struct stat facts;
    const bool folder = stat(run, &facts) == 0 && S_ISDIR(facts.st_mode);
    if (!path_join(path, run, "metrics.jsonl"))
        path[0] = '\0';
    FILE *const file = fopen(folder ? path : run, "r");
    if (!file) {
        say_error("plot", "cannot read %s: %s", folder ? path : run, strerror(errno));
        return false;
    }
    bool good = true;
    while (good && fgets(line, sizeof line, file)) {
        json_t *const record = json_loads(line, 0, NULL); /* a line cut off by a crash is no object: skipped */
        const json_t *const x = json_object_get(record, against[x_index].key);
        const json_t *const loss = json_object_get(record, "loss"), *const held_out =
                                                                        json_object_get(record, "valid_loss");
        if (json_is_number(x) && json_is_number(loss))
            good = plot_add(train, json_number_value(x), json_number_value(loss));
        if (good && json_is_number(x) && json_is_number(held_out))
            good = plot_add(valid, json_number_value(x), json_number_value(held_out));
        json_decref(record);
    }
    fclose(file);
    if (!good)
        say_error("plot", "out of memory");
    else if (train->count == 0)
        say_error("plot", "%s has no step yet", folder ? path : run);
    return good && train->count > 0;
}

/* Means of as many neighbours as bring the curve down to MOST_POINTS; returns how many that is. */
static size_t thin_out(plot_series *series) {
    const size_t group = (series->count + MOST_POINTS - 1) / MOST_POINTS;
    size_t kept = 0;
    for (size_t first = 0; first < series->count; first += group, kept++) {
        const size_t end = first + group < series->count ? first + group : series->count;
        double x = 0, y = 0;
        for (size_t i = first; i < end; i++) {
            x += series->x[i];
            y += series->y[i];
        }
        series->x[kept] = x / (double)(end - first);
        series->y[kept] = y / (double)(end - first);
    }
    series->count = kept;
    return group;
}

static exit_code draw(const plot_settings *settings, const char *const *runs, size_t count) {
    plot_series series[2 * MOST_RUNS];
    exit_code code = EXIT_DONE;
    memset(series, 0, sizeof series);
    for (size_t i = 0; i < count && code == EXIT_DONE; i++) {
        plot_series *const train = &series[2 * i], *const valid = &series[2 * i + 1];
        train->colour = valid->colour = (int)i;
        train->dashed = true;
        valid->points = true;
        if (!read_curves(runs[i], settings->against, train, valid)) {
            code = EXIT_FAILED;
            break;
        }
        const size_t group = thin_out(train);
        if (group > 1)
            snprintf(train->label, sizeof train->label, "%.80s: training, means of %zu steps", runs[i], group);
        else
            snprintf(train->label, sizeof train->label, "%.80s: training", runs[i]);
        snprintf(valid->label, sizeof valid->label, "%.80s: held out", runs[i]);
    }
    const plot_axes axes = {
        .title = "Loss", .x_label = against[settings->against].label, .y_label = "loss [nats per token]"};
    if (code == EXIT_DONE && !plot_draw("plot", settings->output, &axes, series, 2 * count))
        code = EXIT_FAILED;
    for (size_t i = 0; i < 2 * count; i++)
        plot_release(&series[i]);
    if (code == EXIT_DONE)
        printf("the picture is %s\n", settings->output);
    return code;
}

exit_code command_plot(int argc, char **argv) {
    plot_settings settings = {.against = 0};
    const command_option table[] = {
        {"output", OPTION_PICTURE, NULL, "the picture", .target = &settings.output, .required = true},
        {"against", OPTION_CHOICE, NULL, "the axis", .target = &settings.against, .names = against_names},
    };
    const option_group groups[] = {OPTION_GROUP("Options", table)};
    const command_usage usage = {
        .command = "plot",
        .synopsis = "RUN... --output FILE.png [options]",
        .summary = "Loss curves, on the training text and on the held-out text, of one or more runs (needs gnuplot).",
        .examples = "  polysketch plot run --output loss.png\n"
                    "  polysketch plot run-softmax run-polysketch --output both.png --against seconds",
        .groups = groups,
        .group_count = 1,
        .operand = "RUN (run folders, or metrics.jsonl files)",
        .operand_least = 1,
        .operand_most = MOST_RUNS,
    };
    command_line line = {0};
    exit_code code;
    if (options_read(&usage, argc, argv, &line, &code))
        code = draw(&settings, line.operands, line.operand_count);
    options_free(&line);
    return code;
}
