/* What people see: errors, numbers with units, one line of progress on a terminal and plain lines in a log. */
#ifndef TERMINAL_H
#define TERMINAL_H

#include "command.h"

#include <stdbool.h>
#include <stddef.h>

/* "polysketch train: <message>" on stderr. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void say_error(const char *command, const char *format, ...);

/* Whether `path` can be written, said before long work whose result goes there. Leaves no new file. */
bool can_write(const char *command, const char *path);

/* The library's message for `status` on stderr; the exit code that belongs to it: a value that the library refuses is
 * wrong usage. */
exit_code say_status(const char *command, psk_status status);

double seconds_now(void); /* monotonic */

/* Into text, which is returned. FORMAT_CAPACITY bytes are enough. */
#define FORMAT_CAPACITY 48
const char *format_bytes(char *text, int64_t bytes);       /* "134 KiB" */
const char *format_count(char *text, double count);        /* "1.23 M" */
const char *format_duration(char *text, double seconds);   /* "42 s", "3:05 min", "1:02:03 h" */
const char *format_length(char *text, int64_t length);     /* "512", "2k": 1024 is a k */
const char *format_time_short(char *text, double seconds); /* "1.23 ms" */

/* A word as a shell reads it, in quotes where it needs them; cut if it is longer. */
#define QUOTED_CAPACITY 4200
const char *format_quoted(char text[QUOTED_CAPACITY], const char *word);

/* A line of progress on stderr. On a terminal it is rewritten in place, at most some times a second; in a log a plain
 * line comes out now and then. */
typedef struct progress_line {
    bool terminal, shown;
    double started, last;
} progress_line;

progress_line progress_start(void);
/* Is it time to say something? `important`: yes, also in a log. */
bool progress_due(progress_line *line, bool important);
/* The parts make one line. Where a terminal has no room for all of it, those before the last are left out, from the
 * right, but for the first. */
void progress_show(progress_line *line, const char *const *parts, int count);
/* A line that stays, above the one in progress. */
void progress_note(progress_line *line, const char *text);
void progress_end(progress_line *line); /* leaves the last line standing */

/* A psk_progress callback with such a line: user is a progress_meter. Stops on Ctrl-C. A total of 0 is not known. */
typedef struct progress_meter {
    const char *verb, *unit; /* "reading", "bytes" */
    progress_line line;
    int64_t before; /* done by an earlier run, which says nothing about the speed of this one */
} progress_meter;
int meter_progress(void *user, int64_t done, int64_t total);

/* Ctrl-C, SIGTERM and SIGHUP (the terminal is closed) from now on set a flag; a Ctrl-C or SIGTERM after any of them
 * ends the program at once. SIGHUP stays ignored where it was, as under nohup. */
void stop_on_signals(void);
bool stop_requested(void);
/* As if no signal had been asked for: each ends the program, but for a SIGHUP that is ignored. */
void end_on_signals(void);

/* What the first of these signals puts on stderr at once, however long it takes until somebody asks for the flag. */
void stop_notice(const char *text);

/* For a dialogue: every Ctrl-C from now on sets the flag, SIGTERM and SIGHUP end the program; and the flag down
 * again. */
void stop_on_every_interrupt(void);
void stop_forget(void);

#endif
