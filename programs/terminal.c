#include "terminal.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define TERMINAL_PERIOD 0.1 /* seconds between two states of the line in progress: quick, and still readable */
#define LOG_PERIOD      10.0

void say_error(const char *command, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "polysketch %s: ", command);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

bool can_write(const char *command, const char *path) {
    const bool existed = access(path, F_OK) == 0;
    FILE *const file = fopen(path, "ab");
    if (!file) {
        say_error(command, "cannot write %s: %s", path, strerror(errno));
        return false;
    }
    fclose(file);
    char made[PATH_MAX]; /* not the link that led to it */
    if (!existed && realpath(path, made))
        remove(made);
    return true;
}

exit_code say_status(const char *command, psk_status status) {
    if (status == PSK_OK)
        return EXIT_DONE;
    say_error(command, "%s", psk_error_message());
    return status == PSK_ERROR_ARGUMENT ? EXIT_USAGE : EXIT_FAILED;
}

double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* value in the largest unit that leaves at least 1, with three digits. */
static const char *format_scaled(char *text, double value, double step, const char *const *units, int count) {
    int unit = 0;
    while (fabs(value) >= step * 0.9995 && unit + 1 < count) {
        value /= step;
        unit++;
    }
    const int decimals = unit == 0 || fabs(value) >= 99.95 ? 0 : fabs(value) >= 9.995 ? 1 : 2;
    snprintf(text, FORMAT_CAPACITY, "%.*f%s%s", decimals, value, *units[unit] ? " " : "", units[unit]);
    return text;
}

const char *format_bytes(char *text, int64_t bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    return format_scaled(text, (double)bytes, 1024, units, 6);
}

const char *format_count(char *text, double count) {
    static const char *const units[] = {"", "k", "M", "G", "T"};
    return format_scaled(text, count, 1000, units, 5);
}

const char *format_duration(char *text, double seconds) {
    if (!(seconds >= 0 && seconds < 1e9)) {
        snprintf(text, FORMAT_CAPACITY, "?");
        return text;
    }
    const long long s = llround(seconds);
    if (s < 60)
        snprintf(text, FORMAT_CAPACITY, "%lld s", s);
    else if (s < 3600)
        snprintf(text, FORMAT_CAPACITY, "%lld:%02lld min", s / 60, s % 60);
    else
        snprintf(text, FORMAT_CAPACITY, "%lld:%02lld:%02lld h", s / 3600, s / 60 % 60, s % 60);
    return text;
}

const char *format_length(char *text, int64_t length) {
    if (length >= 1024 && length % 1024 == 0)
        snprintf(text, FORMAT_CAPACITY, "%lldk", (long long)length / 1024);
    else
        snprintf(text, FORMAT_CAPACITY, "%lld", (long long)length);
    return text;
}

const char *format_time_short(char *text, double seconds) {
    static const char *const units[] = {"ns", "us", "ms", "s"};
    double value = seconds * 1e9;
    int unit = 0;
    for (; unit < 3 && value >= 999.5; unit++)
        value /= 1000;
    snprintf(text, FORMAT_CAPACITY, "%.3g %s", value, units[unit]);
    return text;
}

const char *format_quoted(char text[QUOTED_CAPACITY], const char *word) {
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-+=:,./@%";
    size_t used = 0;
    if (*word && !word[strspn(word, plain)]) {
        snprintf(text, QUOTED_CAPACITY, "%s", word);
        return text;
    }
    text[used++] = '\'';
    for (; *word && used + 6 < QUOTED_CAPACITY; word++)
        used += (size_t)snprintf(text + used, 5, *word == '\'' ? "'\\''" : "%c", *word);
    snprintf(text + used, 2, "'");
    return text;
}

progress_line progress_start(void) {
    const double now = seconds_now();
    const bool terminal = isatty(STDERR_FILENO) != 0;
    return (progress_line){.terminal = terminal, .started = now, .last = terminal ? -INFINITY : now};
}

bool progress_due(progress_line *line, bool important) {
    const double now = seconds_now();
    if (!important && now - line->last < (line->terminal ? TERMINAL_PERIOD : LOG_PERIOD))
        return false;
    line->last = now;
    return true;
}

static size_t terminal_columns(void) {
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return 80;
    return size.ws_col;
}

/* The first `kept` parts and the last one. */
static void join_parts(char *text, size_t size, const char *const *parts, int kept, int count) {
    size_t used = 0;
    for (int i = 0; i < count; i++)
        if (i < kept || i + 1 == count)
            used += (size_t)snprintf(text + used, used < size ? size - used : 0, "%s", parts[i]);
}

void progress_show(progress_line *line, const char *const *parts, int count) {
    char text[512];
    const size_t columns = line->terminal ? terminal_columns() : sizeof text;
    int kept = count - 1;
    join_parts(text, sizeof text, parts, kept, count);
    while (kept > 1 && strlen(text) >= columns)
        join_parts(text, sizeof text, parts, --kept, count);
    if (line->terminal) /* one column stays free, or the line would wrap and could not be rewritten */
        fprintf(stderr, "\r\033[K%.*s", (int)columns - 1, text);
    else
        fprintf(stderr, "%s\n", text);
    line->shown = true;
    fflush(stderr);
}

void progress_note(progress_line *line, const char *text) {
    fprintf(stderr, line->terminal ? "\r\033[K%s\n" : "%s\n", text);
}

void progress_end(progress_line *line) {
    if (line->terminal && line->shown)
        fputc('\n', stderr);
    line->shown = false;
}

int meter_progress(void *user, int64_t done, int64_t total) {
    progress_meter *const meter = user;
    const bool known = total > 0, last = known && done >= total;
    if (progress_due(&meter->line, last && meter->line.shown)) {
        const double elapsed = seconds_now() - meter->line.started;
        const double rate = elapsed > 0 ? (double)(done - meter->before) / elapsed : 0;
        char verb[160], count[96], speed[64], left[64] = "", text[FORMAT_CAPACITY];
        snprintf(verb, sizeof verb, known ? "%s: %3.0f %%, " : "%s: ", meter->verb,
                 100.0 * (double)done / (double)total);
        snprintf(count, sizeof count, "%s %s, ", format_count(text, (double)done), meter->unit);
        snprintf(speed, sizeof speed, "%s/s%s", format_count(text, rate), known ? ", " : "");
        if (known)
            snprintf(left, sizeof left, "%s left",
                     format_duration(text, rate > 0 ? (double)(total - done) / rate : -1));
        progress_show(&meter->line, (const char *const[]){verb, count, speed, left}, known ? 4 : 3);
    }
    return stop_requested();
}

static volatile sig_atomic_t stop_flag;
static char notice[256]; /* as it is written */

/* Only what a handler may do. */
static void on_signal(int number) {
    const int error = errno;
    const ssize_t written = stop_flag ? 0 : write(STDERR_FILENO, notice, strlen(notice));
    (void)written; /* nobody could be told */
    (void)number;
    stop_flag = 1;
    errno = error;
}

void stop_notice(const char *text) {
    snprintf(notice, sizeof notice, isatty(STDERR_FILENO) ? "\r\033[K%s\n" : "%s\n", text);
}

static void handle_signal(int number, void (*handler)(int), int flags) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = flags;
    sigaction(number, &action, NULL);
}

/* Closing a terminal may send it twice, from the system and from the shell: the second one changes nothing. */
static void handle_hangup(void (*handler)(int)) {
    struct sigaction before;
    if (sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler != SIG_IGN)
        handle_signal(SIGHUP, handler, SA_RESTART);
}

/* What comes next finds the default action: the end. */
static void on_first_signal(int number) {
    on_signal(number);
    handle_signal(SIGINT, SIG_DFL, 0);
    handle_signal(SIGTERM, SIG_DFL, 0);
}

void stop_on_signals(void) {
    handle_signal(SIGINT, on_first_signal, SA_RESTART);
    handle_signal(SIGTERM, on_first_signal, SA_RESTART);
    handle_hangup(on_first_signal);
}

void end_on_signals(void) {
    handle_signal(SIGINT, SIG_DFL, 0);
    handle_signal(SIGTERM, SIG_DFL, 0);
    handle_hangup(SIG_DFL);
}

void stop_on_every_interrupt(void) {
    handle_signal(SIGINT, on_signal, SA_RESTART);
    handle_signal(SIGTERM, SIG_DFL, 0);
    handle_hangup(SIG_DFL);
}

void stop_forget(void) {
    stop_flag = 0;
}

bool stop_requested(void) {
    return stop_flag != 0;
}
