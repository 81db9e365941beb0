#include "plot.h"

#include "terminal.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define NOT_FOUND 127 /* what a shell returns for a command that does not exist */

/* Okabe and Ito's palette, without the yellow that is faint on white. */
static const char *const colours[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"};
#define COLOUR_COUNT (int)(sizeof colours / sizeof colours[0])

bool plot_add(plot_series *series, double x, double y) {
    if (series->count == series->capacity) {
        const size_t capacity = series->capacity ? 2 * series->capacity : 64;
        double *const xs = realloc(series->x, capacity * sizeof *xs);
        if (xs)
            series->x = xs;
        double *const ys = realloc(series->y, capacity * sizeof *ys);
        if (ys)
            series->y = ys;
        if (!xs || !ys)
            return false;
        series->capacity = capacity;
    }
    series->x[series->count] = x;
    series->y[series->count++] = y;
    return true;
}

void plot_release(plot_series *series) {
    free(series->x);
    free(series->y);
    *series = (plot_series){.x = NULL};
}

/* In single quotes, as gnuplot reads them. */
static void put_quoted(FILE *script, const char *text) {
    fputc('\'', script);
    for (; *text; text++) {
        if (*text == '\'')
            fputc('\'', script);
        if ((unsigned char)*text >= ' ')
            fputc(*text, script);
    }
    fputc('\'', script);
}

static void put_lengths_axis(FILE *script, const plot_series *series, size_t count) {
    double low = INFINITY, high = 0;
    for (size_t s = 0; s < count; s++)
        for (size_t i = 0; i < series[s].count; i++) {
            low = fmin(low, series[s].x[i]);
            high = fmax(high, series[s].x[i]);
        }
    fprintf(script, "set logscale x 2\nset xrange [%g:%g]\nset xtics (", low / 1.2, high * 1.2);
    const char *separator = "";
    for (double x = exp2(floor(log2(low))); x <= high * 1.2; x *= 2) {
        char label[FORMAT_CAPACITY];
        fprintf(script, "%s'%s' %.0f", separator, format_length(label, (int64_t)x), x);
        separator = ", ";
    }
    fputs(")\n", script);
}

static void put_script(FILE *script, const char *path, const plot_axes *axes, const plot_series *series, size_t count) {
    fputs("set terminal pngcairo noenhanced size 1000,640 font 'sans,12'\nset output ", script);
    put_quoted(script, path);
    fputs("\nset title ", script);
    put_quoted(script, axes->title);
    fputs("\nset xlabel ", script);
    put_quoted(script, axes->x_label);
    fputs("\nset ylabel ", script);
    put_quoted(script, axes->y_label);
    fprintf(script, "\nset grid lt 1 lw 1 lc rgb '#dddddd'\nset border 3\nset tics nomirror\nset key %s\n",
            axes->log_lengths ? "top left reverse Left"
            : axes->x_lengths ? "below"
                              : "top right");
    if (axes->log_lengths)
        fputs("set logscale y 10\nset format y '%g'\n", script);
    if (axes->log_lengths || axes->x_lengths)
        put_lengths_axis(script, series, count);
    for (size_t s = 0; s < count; s++) {
        fprintf(script, "$series%zu << END\n", s);
        for (size_t i = 0; i < series[s].count; i++)
            fprintf(script, "%.9g %.9g\n", series[s].x[i], series[s].y[i]);
        fputs("END\n", script);
    }
    for (size_t s = 0; s < count; s++) {
        const int colour = series[s].colour % COLOUR_COUNT;
        fprintf(script, "%s $series%zu with %s lw 2 dt %d lc rgb '%s'", s ? "," : "plot", s,
                series[s].points ? "linespoints" : "lines", series[s].dashed ? 2 : 1, colours[colour]);
        if (series[s].points)
            fprintf(script, " pt %d", 4 + colour);
        fputs(" title ", script);
        put_quoted(script, series[s].label);
    }
    fputc('\n', script);
}

bool plot_draw(const char *command, const char *path, const plot_axes *axes, const plot_series *series, size_t count) {
    bool any = false;
    for (size_t s = 0; s < count; s++)
        any = any || series[s].count > 0;
    if (!any) {
        say_error(command, "there is nothing to draw in %s", path);
        return false;
    }
    if (!can_write(command, path)) /* gnuplot would draw on the terminal */
        return false;
    fflush(NULL);
    void (*const before)(int) = signal(SIGPIPE, SIG_IGN); /* gnuplot may end before it has read everything */
    FILE *const script = popen("command -v gnuplot >/dev/null 2>&1 || exit 127; exec gnuplot", "w");
    int result = -1;
    if (script) {
        put_script(script, path, axes, series, count);
        result = pclose(script);
    }
    signal(SIGPIPE, before);
    if (result == 0)
        return true;
    if (script && WIFEXITED(result) && WEXITSTATUS(result) == NOT_FOUND)
        say_error(command, "%s was not drawn: gnuplot is not installed (Debian, Ubuntu: apt install gnuplot-nox)",
                  path);
    else
        say_error(command, "%s was not drawn: gnuplot failed%s%s", path, script ? "" : ": ",
                  script ? "" : strerror(errno));
    return false;
}
