/* polysketch generate as people use it: prompts, states, stop strings, log-probabilities, the dialogue, Ctrl-C. */
#include "program_support.h"

#include "polysketch.h"

#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#define GREEDY "generate --model run --temperature 0 --threads 1 "

/* A model that has learnt to repeat a story. */
static int set_up(void **state) {
    (void)state;
    folder = psk_test_folder();
    char story[8000] = "";
    for (int i = 0; strlen(story) + 64 < sizeof story; i++)
        strcat(story, i % 3 ? "The house was full of people. It rained. " : "She read the letter twice.\n");
    write_text("story.txt", story);
    expect_run("prepare story.txt --output tokens --valid 0.1", 0);
    expect_run("train --data tokens --output run --preset tiny --width 16 --heads 2 --layers 1 --context 32 "
               "--block-size 8 --sketch-size 4 --threads 1 --steps 120 --batch-size 8 --warmup-steps 5 "
               "--learning-rate 2e-2",
               0);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    psk_test_remove_folder(folder);
    return 0;
}

/* What a run writes, its line end cut off; to be freed. */
static char *output_of(const char *arguments) {
    expect_run(arguments, 0);
    char *const text = read_text("out");
    const size_t size = strlen(text);
    assert_true(size > 0 && text[size - 1] == '\n');
    text[size - 1] = '\0';
    return text;
}

static void expect_output(const char *arguments, const char *want) {
    char *const got = output_of(arguments);
    assert_string_equal(got, want);
    psk_free(got);
}

/* ----------------------------------------------------------------------------------------------------------- prompts
 */

static void test_prompts(void **state) {
    (void)state;
    char *const first = output_of("generate --model run --prompt 'The caf\xC3\xA9' --max-tokens 40 --temperature 2 "
                                  "--logit-bias 256:-100 --seed 5");
    EXPECT_IN("out", "The caf\xC3\xA9");
    EXPECT_IN("err", "prompt: 9 tokens (", "/s); text: 40 tokens (", "/s); context: 48 tokens, state: ");
    char command[600];
    snprintf(command, sizeof command, "iconv -f UTF-8 -t UTF-8 '%s/out' >/dev/null", folder);
    assert_int_equal(system(command), 0);
    expect_output("generate --model run --prompt 'The caf\xC3\xA9' --max-tokens 40 --temperature 2 --logit-bias "
                  "256:-100 --seed 5",
                  first);
    char *const other = output_of("generate --model run --prompt 'The caf\xC3\xA9' --max-tokens 40 --temperature 2 "
                                  "--logit-bias 256:-100 --seed 6");
    assert_string_not_equal(first, other);
    psk_free(first);
    psk_free(other);

    char *const greedy = output_of(GREEDY "--prompt 'It rained.' --max-tokens 30");
    write_text("prompt.txt", "It rained.");
    expect_output(GREEDY "--prompt-file prompt.txt --max-tokens 30", greedy);
    expect_run_with_input("prompt.txt", GREEDY "--prompt-file - --max-tokens 30", 0);
    EXPECT_IN("out", greedy);
    expect_run_with_input("prompt.txt", GREEDY "--max-tokens 30", 0);
    EXPECT_IN("out", greedy);
    expect_output(GREEDY "--prompt-file prompt.txt --no-echo --max-tokens 30", greedy + strlen("It rained."));
    expect_output(GREEDY "--prompt-file prompt.txt --no-echo --max-tokens 0", "");
    psk_free(greedy);
    expect_run(GREEDY "--max-tokens 5", 0); /* an empty standard input: end-of-text is read */
    EXPECT_IN("err", "prompt: 1 tokens");
    expect_run(GREEDY "--prompt '' --max-tokens 5", 0);
    EXPECT_IN("err", "prompt: 1 tokens");
}

/* Bytes that are no text are shown as U+FFFD and read as they are. */
static void test_odd_prompts(void **state) {
    (void)state;
    expect_output(GREEDY "--prompt \"$(printf 'a\\377\\342\\202')\" --max-tokens 0", "a\xEF\xBF\xBD\xEF\xBF\xBD");
    EXPECT_IN("err", "prompt: 4 tokens");
    char *const text = output_of(GREEDY "--prompt '\xE4\xBD\xA0\xE5\xA5\xBD \xF0\x9F\x98\x80' --max-tokens 3");
    assert_int_equal(strncmp(text, "\xE4\xBD\xA0\xE5\xA5\xBD \xF0\x9F\x98\x80", 11), 0);
    psk_free(text);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *arguments, *message;
        int code;
    } cases[] = {
        {"--prompt-file nowhere.txt", "cannot read nowhere.txt: No such file", 1},
        {"--prompt x --prompt-file y", "--prompt and --prompt-file are both given", 2},
        {"--interactive --prompt-file -", "--interactive reads your lines from standard input", 2},
        {"--prompt x --state-in nowhere", "nowhere", 1},
        {"--prompt x --state-out nowhere/at/all", "cannot write nowhere/at/all", 1},
        {"--prompt x --logprobs nowhere/at/all", "cannot write nowhere/at/all", 1},
        {"--prompt x --state-in prompt.txt", "prompt.txt", 1},
        {"--prompt x --logit-bias 3", "--logit-bias: '3' is not TOKEN:X", 2},
        {"--prompt x --logit-bias 3:", "--logit-bias: '3:' is not TOKEN:X", 2},
        {"--prompt x --logit-bias a:1", "--logit-bias: 'a:1' is not TOKEN:X", 2},
        {"--prompt x --logit-bias 3:1x", "--logit-bias: '3:1x' is not TOKEN:X", 2},
        {"--prompt x --logit-bias 257:1", "token 257", 2},
        {"--prompt x --logit-bias 1:nan", "nan", 2},
        {"--prompt x --top-p 0", "--top-p: 0 is outside", 2},
        {"--prompt x --min-p 1.1", "--min-p: 1.1 is outside", 2},
        {"--prompt x --temperature -1", "--temperature: -1 is outside", 2},
        {"--prompt x --repetition-penalty 0", "--repetition-penalty: 0 is outside", 2},
        {"--prompt x --presence-penalty inf", "--presence-penalty: 'inf' is not a number", 2},
        {"--prompt x --penalty-window -1", "--penalty-window: -1 is outside", 2},
        {"--prompt x --stop ''", "stop string 0 is empty", 2},
        {"--prompt x --max-tokens 3000 --no-echo >/dev/full 2>err; exit $?; true", "cannot write the text", 1},
    };
    write_text("prompt.txt", "this is no state");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char arguments[512];
        snprintf(arguments, sizeof arguments, "generate --model run %s", cases[i].arguments);
        expect_run(arguments, cases[i].code);
        EXPECT_IN("err", "polysketch generate: ", cases[i].message);
    }
}

/* A reader that goes away ends the program without a word. */
static void test_closed_pipe(void **state) {
    (void)state;
    expect_run(GREEDY "--prompt abc --max-tokens 1M 2>pipe | head -c 5 >five; true", 0);
    char *const out = read_text("five"), *const err = read_text("pipe");
    assert_int_equal(strlen(out), 5);
    assert_string_equal(err, "");
    psk_free(out);
    psk_free(err);
}

/* ------------------------------------------------------------------------------------------------------------ choice
 */

/* The text ends before the first stop string. */
static void test_stops(void **state) {
    (void)state;
    char *const text = output_of(GREEDY "--prompt 'The ' --no-echo --max-tokens 60");
    const size_t size = strlen(text);
    assert_true(size > 40);
    char stop[8], want[128];
    snprintf(stop, sizeof stop, "%.4s", text + 20);
    const size_t end = (size_t)(strstr(text, stop) - text);
    snprintf(want, sizeof want, "%.*s", (int)end, text);
    json_t *const file = json_pack("{s:[s,s]}", "stop", "never to be found", stop);
    char *const dumped = json_dumps(file, 0);
    write_text("stop.json", dumped);
    expect_output(GREEDY "--prompt 'The ' --no-echo --max-tokens 60 --config stop.json", want);
    free(dumped);
    json_decref(file);
    /* the command line replaces the list of the file */
    expect_output(GREEDY "--prompt 'The ' --no-echo --max-tokens 60 --config stop.json --stop '#1' --stop '#2'", text);
    write_text("bad.json", "{\"stop\": [\"a\", 1]}");
    expect_run(GREEDY "--config bad.json", 2);
    EXPECT_IN("err", "bad.json: --stop: strings are expected");
    write_text("bad.json", "{\"stop\": 1}");
    expect_run(GREEDY "--config bad.json", 2);
    EXPECT_IN("err", "bad.json: --stop: a string or a list of them is expected");
    psk_free(text);
}

static void test_choice(void **state) {
    (void)state;
    expect_output(GREEDY "--prompt x --no-echo --max-tokens 4 --logit-bias 65:1000", "AAAA");
    /* 1000, 990 and 20 a time are far apart, whatever the model says; in a window of 2 there is one of each */
    expect_output(GREEDY "--prompt x --no-echo --max-tokens 5 --logit-bias 65:1e3 --logit-bias 66:990 "
                         "--frequency-penalty 20",
                  "ABABA");
    expect_output(GREEDY "--prompt x --no-echo --max-tokens 5 --logit-bias 65:1e3 --logit-bias 66:990 "
                         "--presence-penalty 20",
                  "ABAAA");
    expect_output(GREEDY "--prompt x --no-echo --max-tokens 5 --logit-bias 65:1e3 --logit-bias 66:990 "
                         "--presence-penalty 20 --penalty-window 1",
                  "ABABA");
    expect_output(GREEDY "--prompt A --no-echo --max-tokens 1 --logit-bias 65:1e3 --logit-bias 66:990 "
                         "--repetition-penalty 1.2",
                  "A"); /* the prompt counts, but bias comes after the penalty */
    expect_output(GREEDY "--prompt x --no-echo --max-tokens 4 --logit-bias 256:1e3", ""); /* end-of-text */
    EXPECT_IN("err", "text: 1 tokens");
    char *const greedy = output_of(GREEDY "--prompt 'The ' --max-tokens 30");
    static const char *const greedy_by[] = {"--top-k 1", "--top-p 1e-6", "--min-p 1", "--temperature 1e-6"};
    for (size_t i = 0; i < sizeof greedy_by / sizeof greedy_by[0]; i++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, "generate --model run --threads 1 --prompt 'The ' --max-tokens 30 %s",
                 greedy_by[i]);
        expect_output(arguments, greedy);
    }
    psk_free(greedy);
}

/* What the library says of the same tokens. */
static void expect_logprobs(const json_t *lines, const char *part, const char *context, size_t known) {
    psk_device *device;
    psk_model *model;
    psk_session *session;
    char path[600];
    float logits[257];
    snprintf(path, sizeof path, "%s/run/last", folder);
    PSK_TEST_OK(psk_device_create("cpu", 1, &device));
    PSK_TEST_OK(psk_model_load(device, path, &model));
    PSK_TEST_OK(psk_session_create(model, &session));
    size_t line = 0;
    for (size_t i = 0; context[i]; i++) {
        const int32_t token = (unsigned char)context[i];
        if (i > 0) {
            const json_t *const object = json_array_get(lines, line++);
            float logprob;
            PSK_TEST_OK(psk_log_probabilities(257, logits, token, 0, &logprob, NULL, NULL));
            assert_string_equal(json_string_value(json_object_get(object, "part")), i < known ? "prompt" : part);
            assert_int_equal(json_integer_value(json_object_get(object, "token")), token);
            assert_int_equal(json_string_value(json_object_get(object, "text"))[0], token);
            PSK_TEST_AT_MOST(fabs(json_number_value(json_object_get(object, "logprob")) - (double)logprob),
                             1e-4 * (1 + fabs((double)logprob)));
        }
        PSK_TEST_OK(psk_session_append(session, &token, 1, logits));
    }
    assert_int_equal(line, json_array_size(lines));
    psk_session_free(session);
    psk_model_free(model);
    psk_device_free(device);
}

static void test_logprobs(void **state) {
    (void)state;
    char *const text = output_of(GREEDY "--prompt 'She read it' --max-tokens 12 --logprobs scores.jsonl");
    json_t *lines = read_json_lines("scores.jsonl");
    assert_int_equal(json_array_size(lines), strlen(text) - 1);
    expect_logprobs(lines, "text", text, strlen("She read it"));
    json_decref(lines);
    psk_free(text);
    /* with a state the first token of the prompt stands behind others, whose logits are not there any more */
    expect_run(GREEDY "--prompt abc --max-tokens 0 --state-out scored.state", 0);
    expect_run(GREEDY "--prompt de --max-tokens 0 --state-in scored.state --logprobs scores.jsonl", 0);
    lines = read_json_lines("scores.jsonl");
    assert_int_equal(json_array_size(lines), 1);
    json_decref(lines);
    expect_run(GREEDY "--prompt x --max-tokens 3 --logprobs /dev/full", 1);
    EXPECT_IN("err", "cannot write /dev/full");
}

/* ------------------------------------------------------------------------------------------------- state and dialogue
 */

/* Read in one go, or in two by two processes: the same text. What was written is in the state too. */
static void test_states(void **state) {
    (void)state;
    char *const whole = output_of(GREEDY "--prompt 'She read the letter' --no-echo --max-tokens 30");
    expect_run(GREEDY "--prompt 'She read' --max-tokens 0 --state-out one.state", 0);
    EXPECT_IN("err", "context: 8 tokens");
    expect_output(GREEDY "--prompt ' the letter' --no-echo --max-tokens 30 --state-in one.state", whole);
    EXPECT_IN("err", "context: 48 tokens"); /* the last token was not read: nothing comes after it */
    expect_output(
        GREEDY "--prompt ' the letter' --no-echo --max-tokens 9 --state-in one.state --state-out two.state",
        (char[]){whole[0], whole[1], whole[2], whole[3], whole[4], whole[5], whole[6], whole[7], whole[8], '\0'});
    EXPECT_IN("err", "context: 28 tokens");
    char arguments[256];
    snprintf(arguments, sizeof arguments, GREEDY "--prompt '%c' --no-echo --max-tokens 20 --state-in two.state",
             whole[9]);
    expect_output(arguments, whole + 10);
    expect_run(GREEDY "--state-in two.state", 2);
    EXPECT_IN("err", "a state alone does not say what comes next");
    psk_free(whole);
}

static void test_dialogue(void **state) {
    (void)state;
    char *const whole = output_of(GREEDY "--prompt 'The' --no-echo --max-tokens 30");
    char want[64];
    write_text("lines", "The\n\n\n");
    expect_run_with_input("lines", GREEDY "--interactive --line-suffix '' --max-tokens 10", 0);
    snprintf(want, sizeof want, "%.10s\n%.10s\n%.10s\n", whole, whole + 10, whole + 20);
    EXPECT_IN("out", want);
    EXPECT_IN("err", "prompt: 3 tokens", "context: 33 tokens");
    psk_free(whole);

    /* --prompt is read first; prefix and suffix frame the lines; a line end is the usual suffix; no line end at last */
    write_text("lines", "b");
    expect_run_with_input("lines",
                          GREEDY "--interactive --prompt a --line-prefix '<' --line-suffix '>' --max-tokens 5 "
                                 "--logprobs framed.jsonl",
                          0);
    expect_run(GREEDY "--prompt 'a<b>' --max-tokens 5 --logprobs plain.jsonl", 0);
    json_t *const framed = read_json_lines("framed.jsonl"), *const plain = read_json_lines("plain.jsonl");
    assert_int_equal(json_array_size(framed), 8);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(json_integer_value(json_object_get(json_array_get(framed, i), "token")),
                         json_integer_value(json_object_get(json_array_get(plain, i), "token")));
    json_decref(framed);
    json_decref(plain);
    expect_run_with_input("lines", GREEDY "--interactive --max-tokens 5", 0);
    EXPECT_IN("err", "prompt: 2 tokens");
}

/* Outputs of one line each, to be told apart. */
#define NO_LINES "--logit-bias 10:-100 "

static void test_dialogue_commands(void **state) {
    (void)state;
    write_text("lines",
               "The house\n/save talk.state\nIt\n/load talk.state\n\nIt\n/reset\n/help\n//x\n/nonsense\n/save\n"
               "/reset now\n/load nowhere\n/quit\nnever read\n");
    expect_run_with_input("lines",
                          GREEDY NO_LINES "--interactive --line-suffix '' --max-tokens 10 --state-out end.state", 0);
    EXPECT_IN("err", "context: 19 tokens, state: ", "context: 31 tokens", "a state alone does not say what comes next",
              "context: 0 tokens, state: ", "/save  FILE  writes the state to a file", "prompt: 2 tokens",
              "no command '/nonsense'; there are /save /load /reset /help /quit", "/save takes a file",
              "/reset takes nothing", "nowhere");
    char *const out = read_text("out"), *rest = NULL;
    strtok_r(out, "\n", &rest);
    const char *const before = strtok_r(NULL, "\n", &rest), *const after = strtok_r(NULL, "\n", &rest);
    const char *const last = strtok_r(NULL, "\n", &rest);
    assert_string_equal(before, after); /* after /load the same as after /save */
    expect_output(GREEDY NO_LINES "--no-echo --prompt It --state-in talk.state --max-tokens 10", before);
    expect_output(GREEDY NO_LINES "--no-echo --prompt /x --max-tokens 10", last);
    assert_null(strtok_r(NULL, "\n", &rest));
    psk_free(out);
    expect_run(GREEDY "--prompt x --state-in end.state --max-tokens 0", 0);
    EXPECT_IN("err", "context: 13 tokens");
}

/* ------------------------------------------------------------------------------------------------------------ Ctrl-C
 */

static void pause_milliseconds(long milliseconds) {
    const struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static bool file_holds(const char *name, const char *part) {
    char *const text = read_text(name);
    const bool holds = strstr(text, part) != NULL;
    psk_free(text);
    return holds;
}

/* Waits until the file holds the text, or has `bytes` bytes; 60 seconds at most. */
static void wait_for(const char *name, const char *part, size_t bytes) {
    for (int i = 0; i < 12000; i++) {
        char *const text = read_text(name);
        const bool enough = part ? strstr(text, part) != NULL : strlen(text) >= bytes;
        psk_free(text);
        if (enough)
            return;
        pause_milliseconds(5);
    }
    print_error("%s did not come to hold \"%s\"\n", name, part ? part : "enough");
    fail();
}

/* Starts the program with a pipe to its standard input. */
static pid_t start(const char *arguments, int *input) {
    char command[2048];
    int ends[2];
    write_text("out", "");
    write_text("err", "");
    snprintf(command, sizeof command, "cd '%s' && exec '%s' %s >out 2>err", folder, PSK_PROGRAM, arguments);
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[0], STDIN_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(ends[0]);
    *input = ends[1];
    return child;
}

static void type(int input, const char *text) {
    assert_int_equal(write(input, text, strlen(text)), strlen(text));
}

static int exit_code_of(pid_t child, int input) {
    int status;
    close(input);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* It stops the answer, not the dialogue; between answers it stops nothing. */
static void test_interrupted_dialogue(void **state) {
    (void)state;
    int input;
    const pid_t child = start(GREEDY "--interactive --max-tokens 1G --logit-bias 256:-100", &input);
    type(input, "The house\n");
    wait_for("out", NULL, 100);
    kill(child, SIGINT);
    wait_for("err", "text: ", 0);
    assert_false(file_holds("err", "Ctrl-D"));
    kill(child, SIGINT);
    wait_for("err", "(Ctrl-D ends)", 0);
    type(input, "It\n");
    char *const out = read_text("out");
    wait_for("out", NULL, strlen(out) + 100);
    psk_free(out);
    kill(child, SIGINT);
    wait_for("err", "prompt: 3 tokens", 0);
    type(input, "/save stopped.state\n");
    assert_int_equal(exit_code_of(child, input), 0);
    expect_run(GREEDY "--prompt x --state-in stopped.state --max-tokens 3", 0);
}

/* A single text stops too; what was written is in the state. */
static void test_interrupted_text(void **state) {
    (void)state;
    int input;
    const pid_t child =
        start(GREEDY "--prompt The --max-tokens 1G --logit-bias 256:-100 --state-out cut.state", &input);
    wait_for("out", NULL, 100);
    kill(child, SIGINT);
    assert_int_equal(exit_code_of(child, input), 1);
    EXPECT_IN("err", "stopped after", "of 1000000000 tokens: cut.state goes so far");
    char *const out = read_text("out");
    char context[64];
    snprintf(context, sizeof context, "context: %zu tokens", strlen(out) - 1 + 1); /* no line end, one more */
    psk_free(out);
    expect_run(GREEDY "--prompt x --max-tokens 0 --state-in cut.state", 0);
    EXPECT_IN("err", context);
}

/* The state of half a prompt would be taken for that of the whole: none is written, an old one stays. */
static void test_interrupted_prompt(void **state) {
    (void)state;
    int input;
    char command[700];
    snprintf(command, sizeof command, "yes 'The house was full of people.' | head -c 20M >'%s/long.txt'", folder);
    assert_int_equal(system(command), 0);
    write_text("half.state", "old");
    write_text("half.jsonl", "");
    const pid_t child =
        start(GREEDY "--prompt-file long.txt --no-echo --state-out half.state --logprobs half.jsonl", &input);
    wait_for("half.jsonl", NULL, 100);
    kill(child, SIGINT);
    assert_int_equal(exit_code_of(child, input), 1);
    EXPECT_IN("err", "tokens of the prompt, no state was written to half.state");
    char *const old = read_text("half.state");
    assert_string_equal(old, "old");
    psk_free(old);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_odd_prompts),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_closed_pipe),
        cmocka_unit_test(test_stops),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_dialogue),
        cmocka_unit_test(test_dialogue_commands),
        cmocka_unit_test(test_interrupted_dialogue),
        cmocka_unit_test(test_interrupted_text),
        cmocka_unit_test(test_interrupted_prompt),
    };
    return cmocka_run_group_tests_name("generate", tests, set_up, tear_down);
}
