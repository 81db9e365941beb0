/* The dialogue of `polysketch generate --interactive`: a line is read, the model goes on from there, and the state
 * stays. The text is on standard output, all else on standard error. */
#include "generate.h"

#include "terminal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef enum talk_end { TALK_GOES_ON, TALK_ENDS } talk_end;

typedef struct talk_command {
    const char *name, *argument, *help;
    talk_end (*run)(generation *g, const char *argument);
} talk_command;

static talk_end run_save(generation *g, const char *path) {
    if (say_status("generate", psk_session_save(g->session, path)) == EXIT_DONE)
        generation_say_state(g);
    return TALK_GOES_ON;
}

static talk_end run_load(generation *g, const char *path) {
    if (generation_load_state(g, path) == EXIT_DONE)
        generation_say_state(g);
    return TALK_GOES_ON;
}

static talk_end run_reset(generation *g, const char *argument) {
    (void)argument;
    generation_reset(g);
    generation_say_state(g);
    return TALK_GOES_ON;
}

static talk_end run_quit(generation *g, const char *argument) {
    (void)g;
    (void)argument;
    return TALK_ENDS;
}

static talk_end run_help(generation *g, const char *argument);

static const talk_command talk_commands[] = {
    {"/save", "FILE", "writes the state to a file", run_save}, {"/load", "FILE", "goes on from such a file", run_load},
    {"/reset", NULL, "forgets everything", run_reset},         {"/help", NULL, "this list", run_help},
    {"/quit", NULL, "ends; so does Ctrl-D", run_quit},
};
enum { TALK_COMMANDS = sizeof talk_commands / sizeof talk_commands[0] };

static talk_end run_help(generation *g, const char *argument) {
    (void)argument;
    fputs("The model goes on from what you type, and remembers. Enter alone: it goes on\n"
          "writing. Ctrl-C stops it. A line that is to begin with / begins with //.\n",
          stderr);
    for (int i = 0; i < TALK_COMMANDS; i++)
        fprintf(stderr, "  %-6s %-4s  %s\n", talk_commands[i].name,
                talk_commands[i].argument ? talk_commands[i].argument : "", talk_commands[i].help);
    generation_say_state(g);
    return TALK_GOES_ON;
}

static talk_end run_command(generation *g, char *line) {
    const size_t length = strcspn(line, " \t");
    const char *const argument = line + length + strspn(line + length, " \t");
    for (int i = 0; i < TALK_COMMANDS; i++) {
        const talk_command *const command = &talk_commands[i];
        if (strlen(command->name) != length || strncmp(command->name, line, length) != 0)
            continue;
        if (!command->argument == !*argument)
            return command->run(g, argument);
        fprintf(stderr, "%s takes %s\n", command->name, command->argument ? "a file" : "nothing");
        return TALK_GOES_ON;
    }
    fprintf(stderr, "no command '%.*s'; there are", (int)length, line);
    for (int i = 0; i < TALK_COMMANDS; i++)
        fprintf(stderr, " %s", talk_commands[i].name);
    fprintf(stderr, "\n(a line that is to begin with / begins with //)\n");
    return TALK_GOES_ON;
}

/* ------------------------------------------------------------------------------------------------------------- lines
 */

typedef enum line_kind { LINE_READ, LINE_INTERRUPTED, LINE_END } line_kind;

/* A line without its end. Waits in poll, which a signal ends; a read would go on. Standard input is not buffered: what
 * a buffer held poll would not know of. */
static line_kind read_line(char **line, size_t *capacity) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    if (poll(&input, 1, -1) < 0 && errno == EINTR)
        return LINE_INTERRUPTED;
    ssize_t size = getline(line, capacity, stdin);
    if (size < 0)
        return stop_requested() ? LINE_INTERRUPTED : LINE_END;
    if (size > 0 && (*line)[size - 1] == '\n')
        (*line)[size - 1] = '\0';
    return LINE_READ;
}

/* prefix + line + suffix, to be freed. */
static char *frame_line(const generate_settings *settings, const char *line) {
    const size_t size = strlen(settings->line_prefix) + strlen(line) + strlen(settings->line_suffix) + 1;
    char *const text = malloc(size);
    if (text)
        snprintf(text, size, "%s%s%s", settings->line_prefix, line, settings->line_suffix);
    else
        say_error("generate", "out of memory");
    return text;
}

static exit_code read_turn(generation *g, const char *line) {
    char *const text = frame_line(g->settings, line);
    if (!text)
        return EXIT_FAILED;
    const exit_code code = generation_read(g, text, strlen(text));
    free(text);
    if (stop_requested())
        fprintf(stderr, "stopped: %lld tokens of the line were read\n", (long long)g->read_tokens);
    return code;
}

/* A line of text is read (an empty one: nothing is), then the model writes. */
static exit_code take_turn(generation *g, const char *line) {
    exit_code code = EXIT_DONE;
    g->read_tokens = 0;
    if (*line)
        code = read_turn(g, line);
    else if (!g->has_logits && psk_session_length(g->session) == 0)
        code = generation_read_end_of_text(g);
    if (code == EXIT_DONE && !g->has_logits && !stop_requested())
        fprintf(stderr, "a state alone does not say what comes next: type something\n");
    if (code != EXIT_DONE || !g->has_logits || stop_requested())
        return code;
    code = generation_write(g, true);
    if (code == EXIT_DONE)
        generation_say_speed(g);
    return code;
}

exit_code generation_talk(generation *g) {
    const bool people = isatty(STDIN_FILENO) != 0;
    char *line = NULL;
    size_t capacity = 0;
    exit_code code = EXIT_DONE;
    talk_end end = TALK_GOES_ON;
    setvbuf(stdin, NULL, _IONBF, 0);
    stop_on_every_interrupt();
    if (people)
        fprintf(stderr, "type a line and Enter; /help tells more, Ctrl-D ends\n");
    while (code == EXIT_DONE && end == TALK_GOES_ON) {
        if (people)
            fputs("> ", stderr);
        const line_kind kind = read_line(&line, &capacity);
        stop_forget();
        if (kind == LINE_INTERRUPTED)
            fputs("\n(Ctrl-D ends)\n", stderr);
        else if (kind == LINE_END)
            end = TALK_ENDS;
        else if (line[0] == '/' && line[1] != '/')
            end = run_command(g, line);
        else
            code = take_turn(g, line + (line[0] == '/'));
    }
    if (people && end == TALK_ENDS && feof(stdin))
        fputc('\n', stderr);
    free(line);
    stop_forget();
    return code;
}
