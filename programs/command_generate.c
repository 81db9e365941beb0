/* polysketch generate: a model and a prompt -> text, streamed; or a dialogue. */
#include "generate.h"

#include "terminal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The prompt of the command line; an empty one becomes end-of-text where nothing stands before. */
static exit_code read_first(generation *g, const char *prompt, size_t size) {
    const generate_settings *const settings = g->settings;
    if (size > 0)
        return generation_read(g, prompt, size);
    if (settings->interactive)
        return EXIT_DONE;
    if (!settings->state_in)
        return generation_read_end_of_text(g);
    say_error("generate", "the prompt is empty, and a state alone does not say what comes next: give it some text");
    return EXIT_USAGE;
}

static exit_code write_once(generation *g, const char *prompt, size_t size) {
    exit_code code = EXIT_DONE;
    if (g->settings->echo)
        code = generation_show(g, prompt, size);
    if (code == EXIT_DONE)
        code = generation_write(g, g->settings->state_out != NULL);
    if (code != EXIT_DONE)
        return code;
    generation_say_speed(g);
    if (!stop_requested())
        return EXIT_DONE;
    const char *const state = g->settings->state_out;
    say_error("generate", "stopped after %lld of %lld tokens%s%s%s", (long long)g->written,
              (long long)g->settings->max_tokens, state ? ": " : "", state ? state : "", state ? " goes so far" : "");
    return EXIT_FAILED;
}

/* The state, unless NULL, and the end of the log-probabilities. */
static exit_code finish_outputs(generation *g, const char *state_out) {
    const generate_settings *const settings = g->settings;
    exit_code code = state_out ? say_status("generate", psk_session_save(g->session, state_out)) : EXIT_DONE;
    if (g->logprobs && (ferror(g->logprobs) || fflush(g->logprobs) != 0)) {
        say_error("generate", "cannot write %s: %s", settings->logprobs, strerror(errno));
        code = EXIT_FAILED;
    }
    return code;
}

static exit_code generate(generation *g, const char *prompt, size_t size) {
    stop_on_signals();
    exit_code code = read_first(g, prompt, size);
    if (code != EXIT_DONE)
        return code;
    const char *state_out = g->settings->state_out;
    if (stop_requested()) { /* the state of half a prompt would be taken for that of the whole */
        say_error("generate", "stopped after %lld tokens of the prompt%s%s", (long long)g->read_tokens,
                  state_out ? ", no state was written to " : "", state_out ? state_out : "");
        code = EXIT_FAILED;
        state_out = NULL;
    } else
        code = g->settings->interactive ? generation_talk(g) : write_once(g, prompt, size);
    const exit_code finished = finish_outputs(g, state_out);
    return code == EXIT_DONE ? finished : code;
}

static bool can_write_outputs(const generate_settings *settings) {
    return (!settings->state_out || can_write("generate", settings->state_out)) &&
           (!settings->logprobs || can_write("generate", settings->logprobs));
}

static exit_code run(const generate_settings *settings) {
    exit_code code = EXIT_FAILED;
    size_t size = 0;
    if (!can_write_outputs(settings))
        return code;
    char *const prompt = read_prompt(settings, &size);
    if (!prompt)
        return code;
    generation g;
    if (generation_open(&g, settings, &code))
        code = generate(&g, prompt, size);
    generation_close(&g);
    free(prompt);
    return code;
}

/* Standard output has the text, and a state is read and written as a whole file. */
static bool names_file(const char *option, const char *path) {
    if (!path || strcmp(path, "-") != 0)
        return true;
    say_error("generate", "--%s: a file is needed, - is none (./- names one called so)", option);
    return false;
}

static bool check_settings(const generate_settings *settings) {
    if (settings->prompt && settings->prompt_file) {
        say_error("generate", "--prompt and --prompt-file are both given: one of them, please");
        return false;
    }
    if (!names_file("logprobs", settings->logprobs) || !names_file("state-in", settings->state_in) ||
        !names_file("state-out", settings->state_out))
        return false;
    if (settings->interactive && settings->prompt_file && strcmp(settings->prompt_file, "-") == 0) {
        say_error("generate", "--interactive reads your lines from standard input: the prompt has to be elsewhere");
        return false;
    }
    return true;
}

exit_code command_generate(int argc, char **argv) {
    generate_settings settings = {.max_tokens = 256,
                                  .echo = 1,
                                  .line_prefix = "",
                                  .line_suffix = "\n",
                                  .sampling = sampling_options_default(),
                                  .device = device_options_default()};
    const command_option text[] = {
        {"model", OPTION_TEXT, "DIR", MODEL_HELP, .target = &settings.model, .required = true},
        {"prompt", OPTION_TEXT, "TEXT", "what the text begins with", .target = &settings.prompt},
        {"prompt-file", OPTION_TEXT, "FILE", "the same from a file; - or nothing at all: from standard input",
         .target = &settings.prompt_file},
        {"max-tokens", OPTION_COUNT, NULL, "tokens to write (at a time); end-of-text ends earlier",
         .target = &settings.max_tokens, .low = 0, .high = 1e12},
        {"stop", OPTION_TEXTS, "TEXT", "end before this text; may be repeated", .target = &settings.stops},
        {"echo", OPTION_FLAG, NULL, "leave the prompt out of the output", .target = &settings.echo},
        {"logprobs", OPTION_TEXT, "FILE", "log-probability of each token, prompt and text, as JSON lines",
         .target = &settings.logprobs},
    };
    const command_option state[] = {
        {"state-in", OPTION_TEXT, "FILE", "go on from this state; the prompt is what comes next",
         .target = &settings.state_in},
        {"state-out", OPTION_TEXT, "FILE", "write the state at the end, not of a prompt that was stopped",
         .target = &settings.state_out},
        {"interactive", OPTION_FLAG, NULL, "a dialogue that keeps the state; /help in it tells more",
         .target = &settings.interactive},
        {"line-prefix", OPTION_TEXT, NULL, "put before each line that you type", .target = &settings.line_prefix},
        {"line-suffix", OPTION_TEXT, NULL, "put behind each line that you type", .target = &settings.line_suffix,
         .fallback = "a line end"},
    };
    command_option choice[SAMPLING_OPTION_CAPACITY], device[DEVICE_OPTION_COUNT];
    const option_group groups[] = {OPTION_GROUP("Text", text), OPTION_GROUP("State and dialogue", state),
                                   sampling_option_group(&settings.sampling, choice),
                                   device_option_group(&settings.device, device)};
    const command_usage usage = {
        .command = "generate",
        .synopsis = "--model DIR [--prompt TEXT] [options]",
        .summary = "Continues a text. The text goes to standard output as it comes, the speed to standard error.",
        .examples = "  polysketch generate --model run --prompt 'It was' --max-tokens 500 --temperature 0.7\n"
                    "  polysketch generate --model run --no-echo < beginning.txt > rest.txt\n"
                    "  polysketch generate --model run --prompt-file book.txt --max-tokens 0 --state-out book.state\n"
                    "  polysketch generate --model run --state-in book.state --interactive",
        .groups = groups,
        .group_count = sizeof groups / sizeof groups[0],
    };
    command_line line = {0};
    exit_code code;
    if (options_read(&usage, argc, argv, &line, &code))
        code = check_settings(&settings) ? run(&settings) : EXIT_USAGE;
    options_free(&line);
    return code;
}
