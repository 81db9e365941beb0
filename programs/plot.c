#include "plot.h"

#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEY_INSIDE 8   /* rows of a key that leave room for the curves */
#define NOT_FOUND  127 /* what a shell returns for a command that does not exist */

/* Okabe and Ito's palette, without the yellow that is faint on white. */
static const char *const colours[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"};
#define COLOUR_COUNT (int)(sizeof colours / sizeof colours[0])

/* gnuplot's, for the first COLOUR_COUNT series, the next ones, ...; plain and dashed. */
static const char *const dashes[2][3] = {{"1", "4", "5"}, {"2", "3", "(16,6)"}};
#define DASH_COUNT (int)(sizeof dashes[0] / sizeof dashes[0][0])
#define MARK_COUNT 15
#define FIRST_MARK 3 /* an empty square; numbers from 0 */

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

typedef enum axis { AXIS_X, AXIS_Y } axis;

static void find_range(axis of, const plot_series *series, size_t count, double *low, double *high) {
    *low = INFINITY;
    *high = -INFINITY;
    for (size_t s = 0; s < count; s++)
        for (size_t i = 0; i < series[s].count; i++) {
            const double value = of == AXIS_X ? series[s].x[i] : series[s].y[i];
            *low = fmin(*low, value);
            *high = fmax(*high, value);
        }
}

/* gnuplot warns of a range of one value. */
static void put_range(FILE *script, axis of, const plot_series *series, size_t count) {
    double low, high;
    find_range(of, series, count, &low, &high);
    const double room = low == 0 ? 1 : 0.01 * fabs(low);
    if (low == high)
        fprintf(script, "set %crange [%.9g:%.9g]\n", of == AXIS_X ? 'x' : 'y', low - room, high + room);
}

static void put_lengths_axis(FILE *script, const plot_series *series, size_t count) {
    double low, high;
    find_range(AXIS_X, series, count, &low, &high);
    fprintf(script, "set logscale x 2\nset xrange [%g:%g]\nset xtics (", low / 1.2, high * 1.2);
    const char *separator = "";
    for (double x = exp2(floor(log2(low))); x <= high * 1.2; x *= 2) {
        char label[FORMAT_CAPACITY];
        fprintf(script, "%s'%s' %.0f", separator, format_length(label, (int64_t)x), x);
        separator = ", ";
    }
    fputs(")\n", script);
}

/* Colours come again after COLOUR_COUNT, with other dashes and marks. */
static void put_style(FILE *script, const plot_series *series) {
    const int round = series->colour / COLOUR_COUNT;
    fprintf(script, "%s lw 2 dt %s lc rgb '%s'", series->points ? "linespoints" : "lines",
            dashes[series->dashed][round % DASH_COUNT], colours[series->colour % COLOUR_COUNT]);
    if (series->points)
        fprintf(script, " pt %d", 1 + (FIRST_MARK + series->colour) % MARK_COUNT);
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
            axes->log_lengths                       ? "top left reverse Left"
            : axes->x_lengths || count > KEY_INSIDE ? "below"
                                                    : "top right");
    if (axes->log_lengths)
        fputs("set logscale y 10\nset format y '%g'\n", script);
    if (axes->log_lengths || axes->x_lengths)
        put_lengths_axis(script, series, count);
    else
        put_range(script, AXIS_X, series, count);
    put_range(script, AXIS_Y, series, count);
    for (size_t s = 0; s < count; s++) {
        fprintf(script, "$series%zu << END\n", s);
        for (size_t i = 0; i < series[s].count; i++)
            fprintf(script, "%.9g %.9g\n", series[s].x[i], series[s].y[i]);
        fputs("END\n", script);
    }
    const char *separator = "plot";
    for (size_t s = 0; s < count; s++) {
        if (series[s].count == 0) /* gnuplot would warn of it, and name it in the key */
            continue;
        fprintf(script, "%s $series%zu with ", separator, s);
        put_style(script, &series[s]);
        fputs(" title ", script);
        put_quoted(script, series[s].label);
        separator = ",";
    }
    fputc('\n', script);
}

/* What a shell returned, or -1 with errno set. */
static int run_gnuplot(const char *path, const plot_axes *axes, const plot_series *series, size_t count) {
    fflush(NULL);
    void (*const before)(int) = signal(SIGPIPE, SIG_IGN); /* gnuplot may end before it has read everything */
    FILE *const script = popen("command -v gnuplot >/dev/null 2>&1 || exit 127; exec gnuplot", "w");
    int result = -1;
    if (script) {
        put_script(script, path, axes, series, count);
        result = pclose(script);
    }
    signal(SIGPIPE, before);
    return result;
}

/* gnuplot does not notice a full disk; a PNG ends with the chunk IEND and its checksum. */
static bool is_whole(const char *path) {
    char end[8] = "";
    FILE *const picture = fopen(path, "rb");
    const bool whole = picture && fseek(picture, -(long)sizeof end, SEEK_END) == 0 &&
                       fread(end, 1, sizeof end, picture) == sizeof end && memcmp(end, "IEND", 4) == 0;
    if (picture)
        fclose(picture);
    return whole;
}

/* False with an error said. */
static bool check_picture(const char *command, const char *path, const char *picture, int result) {
    if (result == 0 && is_whole(picture))
        return true;
    if (result == 0)
        say_error(command, "%s was not drawn: gnuplot wrote no whole picture (is the disk full?)", path);
    else if (result > 0 && WIFEXITED(result) && WEXITSTATUS(result) == NOT_FOUND)
        say_error(command, "%s was not drawn: gnuplot is not installed (Debian, Ubuntu: apt install gnuplot-nox)",
                  path);
    else
        say_error(command, "%s was not drawn: gnuplot failed%s%s", path, result < 0 ? ": " : "",
                  result < 0 ? strerror(errno) : "");
    return false;
}

/* target: the file that `path` leads to; picture: a file beside it, to be drawn first, or the same where none can be
 * made. */
static void name_picture(const char *path, char target[PATH_MAX], char picture[PATH_MAX]) {
    const bool there = realpath(path, target), link = !there && readlink(path, picture, 1) >= 0;
    if (!there)
        snprintf(target, PATH_MAX, "%s", path);
    const int length = snprintf(picture, PATH_MAX, "%s.tmp.%ld", target, (long)getpid());
    const bool fits = !link && length < PATH_MAX; /* a link to nothing yet: through it */
    const int file = fits ? open(picture, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666) : -1;
    if (file >= 0)
        close(file);
    else
        snprintf(picture, PATH_MAX, "%s", target);
}

bool plot_draw(const char *command, const char *path, const plot_axes *axes, const plot_series *series, size_t count) {
    char target[PATH_MAX], picture[PATH_MAX];
    bool any = false;
    for (size_t s = 0; s < count; s++)
        any = any || series[s].count > 0;
    if (!any) {
        say_error(command, "there is nothing to draw in %s", path);
        return false;
    }
    if (!can_write(command, path)) /* gnuplot would draw on the terminal */
        return false;
    name_picture(path, target, picture);
    const bool beside = strcmp(target, picture) != 0;
    bool good = check_picture(command, path, picture, run_gnuplot(picture, axes, series, count));
    if (good && beside && rename(picture, target) != 0) {
        say_error(command, "cannot write %s: %s", path, strerror(errno));
        good = false;
    }
    if (!good && beside)
        remove(picture);
    return good;
}
