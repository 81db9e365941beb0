/* The program polysketch as people use it: messages and exit codes, and a whole chain from text to text. */
#include "program_support.h"

#include <signal.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

static bool same_files(const char *a, const char *b) {
    char command[2048];
    snprintf(command, sizeof command, "cd '%s' && cmp -s '%s' '%s'", folder, a, b);
    return system(command) == 0;
}

/* ------------------------------------------------------------------------------------------------------------ usage
 */

/* arguments, the first line on stderr */
static const char *const wrong_usage[][2] = {
    {"trian", "polysketch: no command 'trian' (did you mean 'train'?); 'polysketch --help' lists them"},
    {"zzzzzz", "polysketch: no command 'zzzzzz'; 'polysketch --help' lists them"},
    {"train", "polysketch train: --output RUN is missing"},
    {"train --output r", "polysketch train: --data DIR is missing"},
    {"train --resume", "polysketch train: --output RUN is missing"},
    {"train --steps 12x", "polysketch train: --steps: '12x' is not a whole number"},
    {"train --steps 1.5", "polysketch train: --steps: '1.5' is not a whole number"},
    {"train --steps 0x10", "polysketch train: --steps: '0x10' is not a whole number"},
    {"train --steps ''", "polysketch train: --steps: '' is not a whole number"},
    {"train --steps 1e300", "polysketch train: --steps: '1e300' is not a whole number"},
    {"train --steps 0", "polysketch train: --steps: 0 is outside 1 ... 1e12"},
    {"train --steps -3", "polysketch train: --steps: -3 is outside 1 ... 1e12"},
    {"train --steps 2G --steps 2000G", "polysketch train: --steps: 2000G is outside 1 ... 1e12"},
    {"train --steps", "polysketch train: --steps needs a value (one that begins with -- is given as --steps=VALUE)"},
    {"train --data --output r",
     "polysketch train: --data needs a value (one that begins with -- is given as --data=VALUE)"},
    {"train --step 5", "polysketch train: no option '--step' (did you mean '--steps'?)"},
    {"train --learningrate=1", "polysketch train: no option '--learningrate' (did you mean '--learning-rate'?)"},
    {"train --data d --output r --learning-rate 1e-5",
     "polysketch train: --min-learning-rate is 0.0001, above --learning-rate, 1e-05: lower it too"},
    {"train --frobnicate", "polysketch train: no option '--frobnicate'"},
    {"train --no-steps", "polysketch train: no option '--no-steps'"},
    {"train -x", "polysketch train: no option '-x': options begin with two dashes"},
    {"train novel.txt", "polysketch train: 'novel.txt' is not an option, and there is nothing else to give"},
    {"train --learning-rate fast", "polysketch train: --learning-rate: 'fast' is not a number"},
    {"train --learning-rate nan", "polysketch train: --learning-rate: 'nan' is not a number"},
    {"train --dropout 1", "polysketch train: --dropout: 1 is outside 0 ... 0.99"},
    {"train --attention softmx",
     "polysketch train: --attention: 'softmx' is none of softmax, polynomial, polysketch, performer"},
    {"train --resume=maybe", "polysketch train: --resume: 'maybe' is neither true nor false"},
    {"train --seed -1", "polysketch train: --seed: '-1' is not a whole number from 0 to 2^64 - 1"},
    {"train --preset huge --dry-run",
     "polysketch train: preset \"huge\" does not exist; there are: tiny mini small gpt2-small gpt2-medium gpt2-large"},
    {"train --attention softmax --far-gain --dry-run",
     "polysketch train: far_gain is true, but attention is softmax: only polysketch has sketched weights"},
    {"prepare --output x", "polysketch prepare: INPUT (text files or folders) is missing"},
    {"prepare novel.txt", "polysketch prepare: --output DIR is missing"},
    {"prepare a --output x --valid 1", "polysketch prepare: --valid: 1 is outside 0 ... 0.99"},
    {"eval --model m", "polysketch eval: --data PATH or --questions FILE is missing"},
    {"eval --model m --data a --questions b",
     "polysketch eval: --data and --questions are both given: one of them, please"},
    {"eval --model m --questions b --plot x.png", "polysketch eval: --plot draws the loss by position of --data"},
    {"task", "polysketch task: TASK (selective_copying or induction_heads) is missing"},
    {"task copying", "polysketch task: no task 'copying'; there are selective_copying and induction_heads"},
    {"task induction_heads --length 2", "polysketch task: --length: 2 is outside 3 ... 1073741824"},
    {"generate --model m --prompt a --prompt-file b",
     "polysketch generate: --prompt and --prompt-file are both given: one of them, please"},
    {"bench", "polysketch bench: a subject is missing; there are matmul, attention, step, decode"},
    {"bench atention", "polysketch bench: no subject 'atention'; there are matmul, attention, step, decode"},
    {"bench matmul --sizes 1,2,x", "polysketch bench matmul: --sizes: 'x' is not a whole number"},
    {"bench attention --mechanisms softmax,", "polysketch bench attention: --mechanisms: '' is none of softmax, "
                                              "polynomial, polysketch, performer"},
    {"plot --output x.png", "polysketch plot: RUN (run folders, or metrics.jsonl files) is missing"},
    {"info a b", "polysketch info: 'b': at most 1 PATH"},
};

static void test_wrong_usage(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof wrong_usage / sizeof wrong_usage[0]; i++) {
        expect_run(wrong_usage[i][0], 2);
        char *const err = read_text("err"), *const out = read_text("out");
        err[strcspn(err, "\n")] = '\0';
        assert_string_equal(err, wrong_usage[i][1]);
        assert_string_equal(out, "");
        psk_free(err);
        psk_free(out);
    }
    expect_run("", 2);
    EXPECT_IN("err", "usage: polysketch COMMAND");
}

static void test_failures(void **state) {
    (void)state;
    expect_run("prepare nowhere.txt --output tokens", 1);
    EXPECT_IN("err", "polysketch prepare: ", "nowhere.txt");
    expect_run("train --data nowhere --output r", 1);
    EXPECT_IN("err", "nowhere has no train-00000.psk", "polysketch prepare");
    expect_run("train --output nowhere --resume", 1);
    EXPECT_IN("err", "--resume: nowhere holds no run, for it has no options.json");
    expect_run("eval --model nowhere --data nowhere", 1);
    EXPECT_IN("err", "polysketch eval: ", "nowhere");
    expect_run("generate --model nowhere --prompt x", 1);
    EXPECT_IN("err", "polysketch generate: --model: nowhere is not there");
    expect_run("generate --model . --prompt x", 1);
    EXPECT_IN("err", "polysketch generate: --model: . is not a model folder, for it has no config.json");
    expect_run("eval --model err --data x", 1);
    EXPECT_IN("err", "polysketch eval: --model: err is a file: give the folder of a model, or that of a run");
    expect_run("plot nowhere --output x.png", 1);
    EXPECT_IN("err", "polysketch plot: ", "nowhere");
    expect_run("info nowhere", 1);
    EXPECT_IN("err", "polysketch info: nowhere: No such file or directory");
    write_text("noise.psk", "this is no shard");
    expect_run("info noise.psk", 1);
    EXPECT_IN("err", "noise.psk");
}

static void test_help(void **state) {
    (void)state;
    static const char *const commands[] = {"prepare",      "train", "eval",         "generate",        "plot",
                                           "info",         "task",  "bench matmul", "bench attention", "bench step",
                                           "bench decode", "bench"};
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        char arguments[64], usage[64];
        snprintf(arguments, sizeof arguments, "%s --nonsense --help", commands[i]);
        snprintf(usage, sizeof usage, "usage: polysketch %s ", commands[i]);
        expect_run(strcmp(commands[i], "bench") == 0 ? "bench --help" : arguments, 0);
        EXPECT_IN("out", usage, "Examples", "--config FILE");
        char *const err = read_text("err");
        assert_string_equal(err, "");
        psk_free(err);
    }
    expect_run("--help", 0);
    EXPECT_IN("out", "prepare", "train", "eval", "generate", "bench", "plot", "info");
    expect_run("--version", 0);
    EXPECT_IN("out", "polysketch " PSK_VERSION_STRING "\n");
}

/* ----------------------------------------------------------------------------------------------------------- config
 */

static void test_config(void **state) {
    (void)state;
    write_text("good.json", "{\"preset\": \"tiny\", \"batch_size\": 3, \"context\": \"1k\", \"recompute\": true, "
                            "\"learning-rate\": 0.5, \"steps\": 7, \"dry-run\": true}");
    expect_run("train --config good.json", 0);
    EXPECT_IN("out", "a step of 3 x 1024 tokens", "activations", "in all");
    expect_run("train --batch-size 2 --config good.json --context 64", 0);
    EXPECT_IN("out", "a step of 2 x 64 tokens");
    write_text("later.json", "{\"context\": 128}");
    expect_run("train --config good.json --config later.json", 0);
    EXPECT_IN("out", "a step of 3 x 128 tokens");
    expect_run("train --config later.json --config good.json", 0);
    EXPECT_IN("out", "a step of 3 x 1024 tokens");
    expect_run("train --config good.json --no-dry-run", 2);
    EXPECT_IN("err", "--output RUN is missing");

    static const char *const wrong[][2] = {
        {"{\"stepz\": 1}", "config.json: no option 'stepz' (did you mean 'steps'?)"},
        {"{\"steps\": 0}", "config.json: --steps: 0 is outside 1 ... 1e12"},
        {"{\"steps\": 1.5}", "config.json: --steps: '1.5' is not a whole number"},
        {"{\"steps\": \"many\"}", "config.json: --steps: 'many' is not a whole number"},
        {"{\"steps\": [1]}", "config.json: --steps: one value is expected"},
        {"{\"steps\": null}", "config.json: --steps: one value is expected"},
        {"{\"output\": 5}", "config.json: --output: a string is expected"},
        {"{\"resume\": 1}", "config.json: --resume: '1' is neither true nor false"},
        {"{\"config\": \"more.json\"}", "config.json: --config is no option of a file: give it again on the command"},
        {"{\"help\": true}", "config.json: no option 'help'\n"},
        {"{\"model_type\": \"polysketch\", \"n_layer\": 2}", "--config config.json: this describes a model"},
        {"[1]", "--config config.json: an object { \"name\": value, ... } is expected"},
        {"{\"steps\": 1, \"steps\": 2}", "--config config.json: line 1: duplicate object key near '\"steps\"'"},
        {"{", "--config config.json: line 1: "},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        write_text("config.json", wrong[i][0]);
        expect_run("train --config config.json", 2);
        EXPECT_IN("err", wrong[i][1]);
    }
    expect_run("train --config absent.json", 2);
    EXPECT_IN("err", "absent.json: No such file or directory");
    write_text("config.json", "{\"lengths\": [16, \"1k\"], \"mechanisms\": \"softmax\", \"samples\": 0}");
    expect_run("bench attention --config config.json", 2);
    EXPECT_IN("err", "--samples: 0 is outside 1 ... 1000");
}

/* ------------------------------------------------------------------------------------------------------------ chain
 */

#define SMALL_MODEL                                                                                                    \
    "--preset tiny --width 16 --heads 2 --layers 1 --context 32 --block-size 8 --sketch-size 4 --threads 1 "

static void test_chain(void **state) {
    (void)state;
    write_story("story.txt");
    expect_run("prepare story.txt --output tokens --valid 0.2", 0);
    EXPECT_IN("out", "1 document", "train tokens", "polysketch train --data tokens");
    expect_run("info tokens --check", 0);
    EXPECT_IN("out", "train-00000.psk", "valid-00000.psk", "which holds");

    expect_run("train --data tokens --output run --steps 30 --batch-size 4 --eval-every 10 --warmup-steps 5 "
               "--learning-rate 1e-2 " SMALL_MODEL,
               0);
    EXPECT_IN("err", "step 1/30", "valid ", "tok/s");
    EXPECT_IN("out", "30 steps", "polysketch eval --model run", "polysketch generate --model run",
              "polysketch plot run");

    expect_run("eval --model run --data tokens --json eval.json", 0);
    EXPECT_IN("out", "perplexity", "bits per byte");
    json_t *const figures = read_json("eval.json");
    const double bits = json_number_value(json_object_get(figures, "bits_per_byte"));
    assert_true(bits > 0 && bits < 7.9); /* better than the 8 of bytes that nothing is known of */
    assert_true(json_is_number(json_object_get(figures, "perplexity")));
    assert_true(json_integer_value(json_object_get(figures, "tokens")) > 1000);
    json_decref(figures);
    expect_run("eval --model run --data story.txt --context 16 --stride 4 --positions --json strided.json", 0);
    EXPECT_IN("out", "one every 4", "loss by position");
    json_t *const strided = read_json("strided.json");
    const json_t *const positions = json_object_get(strided, "by_position");
    assert_int_equal(json_array_size(positions), 8); /* 1, 2, 3, 4-5, ..., 16 */
    assert_true(json_number_value(json_object_get(json_array_get(positions, 7), "loss")) > 0);
    json_decref(strided);

    expect_run("info run --context 1k", 0);
    EXPECT_IN("out", "checkpoints", "step-00000030", "attn.sketch", "parameters", "state", "1 x 1024 tokens");
    expect_run("info", 0);
    EXPECT_IN("out", PSK_VERSION_STRING, "CPU", "memory", "device", "reference");
}

/* Of one byte, one window, no second word or one question some figures are not defined: then none is shown, and null
 * for programs. */
static void test_undefined_figures(void **state) {
    (void)state;
    static const char *const keys[] = {"stderr", "word_perplexity", "bits_per_byte"};
    char *text;
    write_text("byte.txt", "a");
    expect_run("eval --model run --data byte.txt --positions --json byte.json", 0);
    EXPECT_IN("out", "nats a token\n", "a token\n", "bits per byte   -\n");
    text = read_text("out");
    assert_null(strstr(text, "nan"));
    psk_free(text);
    json_t *const figures = read_json("byte.json");
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        assert_true(json_is_null(json_object_get(figures, keys[i])));
    json_decref(figures);

    char word[3000];
    memset(word, 'q', sizeof word - 1);
    word[sizeof word - 1] = 0;
    write_text("word.txt", word);
    expect_run("eval --model run --data word.txt --json word.json", 0);
    text = read_text("out");
    assert_null(strstr(text, "inf"));
    assert_null(strstr(text, "a word\n"));
    psk_free(text);
    json_t *const of_word = read_json("word.json");
    assert_true(json_is_null(json_object_get(of_word, "word_perplexity")));
    assert_true(json_is_number(json_object_get(of_word, "bits_per_byte")));
    json_decref(of_word);

    write_text("question.jsonl", "{\"context\": \"It\", \"choices\": [\"rained.\", \"zxqj,\"], \"answer\": 0}\n");
    expect_run("eval --model run --questions question.jsonl", 0);
    text = read_text("out");
    assert_null(strstr(text, "nan"));
    psk_free(text);
}

/* What to type next works for names with spaces too, and is not said of what is not there. */
static void test_next(void **state) {
    (void)state;
    expect_run("prepare story.txt --output 'all tokens' --valid 0", 0);
    EXPECT_IN("out", "next: polysketch train --data 'all tokens' --output run --eval-every 0\n");
    expect_run(
        "train --data 'all tokens' --output 'it'\\''s a run' --eval-every 0 --steps 2 --batch-size 2 " SMALL_MODEL, 0);
    EXPECT_IN("out", "the model (last), ", "polysketch eval --model 'it'\\''s a run' --data 'all tokens'\n");
}

/* How much memory was asked for, here more than there are addresses, and what asks for less. */
static void test_too_large(void **state) {
    (void)state;
    assert_int_equal(setenv("ASAN_OPTIONS", "allocator_may_return_null=1", 1), 0);
    expect_run("train --data tokens --output large --batch-size 1M " SMALL_MODEL "--context 4k --layers 64", 1);
    assert_int_equal(unsetenv("ASAN_OPTIONS"), 0);
    EXPECT_IN("err", " TiB) for ", "a smaller --batch-size", "--recompute", "--dry-run");
}

/* Softmax sees all keys until a local part is named; a run goes on as it began. */
static void test_local_only(void **state) {
    (void)state;
    expect_run("train --data tokens --output all --attention softmax --steps 2 --batch-size 2 " SMALL_MODEL, 0);
    expect_run("info all", 0);
    EXPECT_IN("out", "attention    softmax\n", "a token, ");
    expect_run(
        "train --data tokens --output near --attention softmax --local window --steps 2 --batch-size 2 " SMALL_MODEL,
        0);
    expect_run("info near", 0);
    EXPECT_IN("out", "attention    softmax, window; blocks of 8", "a sequence, whatever its length");
    expect_run("eval --model near --data story.txt", 0);
    EXPECT_IN("out", "bits per byte");
    expect_run("train --data tokens --output near --resume --steps 4", 0);
    expect_run("train --data tokens --output near --resume --steps 5 --local none", 2);
    EXPECT_IN("err", "config.json: local is \"window\" there and \"none\"");
    expect_run("train --data tokens --output near --resume --steps 5 --preset tiny --attention softmax " SMALL_MODEL,
               2);
    EXPECT_IN("err", "config.json: local_only is true there and false");
    expect_run("generate --model near --prompt It --max-tokens 20", 0);
    expect_run("bench attention --mechanisms softmax,polynomial --local-only none,block --lengths 16,40 --heads 2 "
               "--head-size 8 --block-size 8 --samples 1 --threads 1 --json near.jsonl",
               0);
    EXPECT_IN("out", "softmax  ", "softmax, block", "polynomial  ", "polynomial, block");
    json_t *const lines = read_json_lines("near.jsonl");
    assert_int_equal(json_array_size(lines), 2 * 2 * 2 * 2);
    assert_true(json_is_null(json_object_get(json_array_get(lines, 0), "local")));
    assert_string_equal(json_string_value(json_object_get(json_array_get(lines, 4), "local")), "block");
    assert_int_equal(json_integer_value(json_object_get(json_array_get(lines, 4), "block_size")), 8);
    json_decref(lines);
    expect_run(
        "bench decode --mechanisms softmax --local window --block-size 8 --contexts 40,1k --batches 1 --preset tiny "
        "--width 16 --heads 2 --layers 1 --samples 1 --threads 1",
        0);
    EXPECT_IN("out", "softmax, window");
}

/* The weights of a run folder are those of its last checkpoint; a run is evaluated by its best. */
static void test_best(void **state) {
    (void)state;
    char command[1024];
    snprintf(command, sizeof command, "cd '%s' && mkdir two && cp -r run/last/ two/best && cp run/config.json two",
             folder);
    assert_int_equal(system(command), 0);
    write_text("two/model.safetensors", "damaged");
    expect_run("eval --model two --data story.txt", 0);
    EXPECT_IN("out", "bits per byte");
}

static void test_questions(void **state) {
    (void)state;
    write_text("questions.jsonl", "{\"context\": \"It\", \"choices\": [\"rained.\", \"zxqj,\"], \"answer\": 0}\n"
                                  "{\"context\": \"She read the\", \"choices\": [\"QQQQQQ\", \"letter\"], "
                                  "\"answer\": 1}\n");
    expect_run("eval --model run --questions questions.jsonl --json questions.json", 0);
    EXPECT_IN("out", "asked           2, 4 choices", "accuracy        1.0000");
    json_t *const figures = read_json("questions.json");
    assert_true(json_number_value(json_object_get(figures, "accuracy")) == 1);
    assert_true(json_number_value(json_object_get(figures, "accuracy_norm")) == 1);
    assert_true(json_number_value(json_object_get(figures, "stderr")) == 0);
    json_decref(figures);
    expect_run("eval --model run --questions questions.jsonl --shots 1 --context 8", 0);
    EXPECT_IN("out", "1 shots", "cut  ");
    write_text("bad.jsonl",
               "{\"context\": \"It\", \"choices\": [\"a\", \"b\"], \"answer\": 0}\n{\"choices\": [\"a\"]}\n");
    expect_run("eval --model run --questions bad.jsonl", 1);
    EXPECT_IN("err", "bad.jsonl, line 2: the field \"context\" is missing");
}

#define SMALL_TASK "--length 8 --copies 2 --width 8 --heads 1 --layers 1 --block-size 4 --sketch-size 4 --threads 1 "

static void test_task(void **state) {
    (void)state;
    expect_run("task selective_copying --mechanisms softmax,polysketch --steps 3 --batch-size 2 --test-lengths 8,16 "
               "--examples 5 --far-scale 0.25 --json task.jsonl --output models " SMALL_TASK,
               0);
    EXPECT_IN("out", "trained on sequences of 8 tokens", "softmax ", "polysketch, learned_linear, window", "sequences");
    json_t *const lines = read_json_lines("task.jsonl");
    assert_int_equal(json_array_size(lines), 4);
    for (size_t i = 0; i < 4; i++) {
        const json_t *const line = json_array_get(lines, i);
        assert_int_equal(json_integer_value(json_object_get(line, "n")), i % 2 ? 16 : 8);
        assert_int_equal(json_integer_value(json_object_get(line, "examples")), 5);
        assert_true(json_number_value(json_object_get(line, "accuracy")) >=
                    json_number_value(json_object_get(line, "accuracy_all")));
        const json_t *const scale = json_object_get(line, "far_scale"); /* of sketched weights alone */
        assert_true(i < 2 ? json_is_null(scale) : json_number_value(scale) == 0.25);
    }
    json_decref(lines);
    expect_run("info models/polysketch-learned_linear-window", 0);
    EXPECT_IN("out", "far scale 0.25");
    expect_run("task induction_heads --mechanisms softmax --steps 1 --batch-size 1 --test-lengths 2 " SMALL_TASK, 2);
    EXPECT_IN("err", "--test-lengths: 2 is outside");
}

/* Lengths that a task does not have are found before anything is trained. */
static void test_task_lengths(void **state) {
    (void)state;
    expect_run("task selective_copying --mechanisms softmax --steps 1 --test-lengths 8,3 " SMALL_TASK, 2);
    EXPECT_IN("err", "--test-lengths: selective_copying needs sequences of 4");
    char *const err = read_text("err");
    assert_null(strstr(err, "step 1/1"));
    psk_free(err);
    expect_run("task selective_copying --mechanisms polysketch --steps 1 --batch-size 1 --examples 1 " SMALL_TASK
               "--copies 1000 --length 2000",
               0);
    EXPECT_IN("err", "not tested at 64 tokens: ", "not tested at 1k tokens: selective_copying needs sequences of 2000");
    EXPECT_IN("out", " accuracy      2k     4k     8k    16k\n");
    expect_run("task selective_copying --mechanisms softmax --steps 1 " SMALL_TASK "--copies 10k --length 20000", 2);
    EXPECT_IN("err", "none of the usual lengths can be tested: name others with --test-lengths");
}

static void test_bench(void **state) {
    (void)state;
    expect_run("bench matmul --sizes 33 --samples 2 --threads 1 --json bench.jsonl", 0);
    expect_run("bench attention --sketches all --locals all --lengths 16,40 --heads 2 --head-size 8 --sketch-size 8 "
               "--block-size 8 --samples 1 --threads 1 --json bench.jsonl",
               0);
    EXPECT_IN("out", "softmax", "polynomial", "polysketch, random, window", "performer", "forward_backward", "matmul");
    expect_run("bench step --samples 2 --batch-size 2 --json bench.jsonl " SMALL_MODEL, 0);
    EXPECT_IN("out", "tokens/s", "% of matmul");
    expect_run("bench step --samples 1 --attention polynomial --local block " SMALL_MODEL, 0);
    EXPECT_IN("out", "polynomial, block");
    expect_run("bench decode --contexts 40,1k --batches 1,3 --preset tiny --width 16 --heads 2 --layers 1 --samples 1 "
               "--threads 1 --json bench.jsonl",
               0);
    EXPECT_IN("out", "softmax", "polysketch", "memory is read at", "prompt", "tokens/s");

    json_t *const lines = read_json_lines("bench.jsonl");
    assert_int_equal(json_array_size(lines), 1 + (1 + 1 + 4 * 3 + 1) * 2 * 2 + 1 + 2 * (1 + 2 * 2));
    static const char *const keys[] = {"bench",
                                       "mechanism",
                                       "sketch",
                                       "local",
                                       "pass",
                                       "dtype",
                                       "n",
                                       "batch",
                                       "heads",
                                       "head_size",
                                       "sketch_size",
                                       "block_size",
                                       "threads",
                                       "device",
                                       "seconds_min",
                                       "us_per_token",
                                       "seconds_median",
                                       "useful_gflops",
                                       "share_of_matmul",
                                       "peak_rss_bytes"};
    int described = 0;
    for (size_t i = 0; i < json_array_size(lines); i++) {
        const json_t *const line = json_array_get(lines, i);
        for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++)
            assert_non_null(json_object_get(line, keys[k]));
        assert_true(json_number_value(json_object_get(line, "seconds_min")) <=
                    json_number_value(json_object_get(line, "seconds_median")));
        described += json_object_get(line, "machine") && json_object_get(line, "version");
    }
    assert_int_equal(described, 4); /* once a run */
    json_decref(lines);
}

/* gnuplot may be absent: then this is said, and the exit code tells. */
static void test_plot(void **state) {
    (void)state;
    if (system("command -v gnuplot >/dev/null 2>&1") == 0) {
        expect_run("plot run --output loss.png", 0);
        char *const picture = read_text("loss.png");
        assert_memory_equal(picture, "\x89PNG", 4);
        psk_free(picture);
        expect_run("plot run run/metrics.jsonl --against tokens --output 'it''s.png'", 0);
        expect_run("plot run --output nowhere/at/all.png", 1);
        expect_run("eval --model run --data story.txt --plot positions.png", 0);
        expect_run(
            "task induction_heads --mechanisms softmax --steps 1 --test-lengths 8,16 --plot task.png " SMALL_TASK, 0);
        static const char *const pictures[] = {"positions.png", "task.png"};
        for (size_t i = 0; i < 2; i++) {
            char *const drawn = read_text(pictures[i]);
            assert_memory_equal(drawn, "\x89PNG", 4);
            psk_free(drawn);
        }
    }
    char command[1024];
    snprintf(command, sizeof command,
             "cd '%s' && mkdir -p empty && PATH=\"$PWD/empty\" '%s' plot run --output x.png 2>err", folder,
             PSK_PROGRAM);
    const int status = system(command);
    assert_int_equal(WEXITSTATUS(status), 1);
    EXPECT_IN("err", "gnuplot is not installed");
}

/* ---------------------------------------------------------------------------------------------------------- resuming
 */

static void pause_milliseconds(long milliseconds) {
    const struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static int64_t count_lines(const char *name) {
    char path[600], *text;
    size_t size;
    int64_t lines = 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!psk_is_file(path))
        return 0;
    PSK_TEST_OK(psk_read_file(path, FILE_LIMIT, &text, &size));
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    psk_free(text);
    return lines;
}

#define TRAIN_LONG "train --data tokens --steps 600 --batch-size 1 --eval-every 0 --save-every 0 --seed 3 " SMALL_MODEL

/* Starts a run; `before` is what the shell does first. */
static pid_t start_training(const char *before, const char *options) {
    char command[2048];
    snprintf(command, sizeof command, "cd '%s' && %s exec '%s' " TRAIN_LONG "%s >out 2>err", folder, before,
             PSK_PROGRAM, options);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    return child;
}

/* Starts a run, sends `number` when five steps are done (SIGHUP twice, as closing a terminal may); returns the status
 * of the process. */
static int interrupt(const char *before, const char *output, int number) {
    char options[256], metrics[256];
    int status;
    snprintf(metrics, sizeof metrics, "%s/metrics.jsonl", output);
    snprintf(options, sizeof options, "--output %s", output);
    const pid_t child = start_training(before, options);
    while (count_lines(metrics) < 5 && waitpid(child, &status, WNOHANG) == 0)
        pause_milliseconds(2);
    kill(child, number);
    if (number == SIGHUP)
        kill(child, number);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

/* Stopped by Ctrl-C, by SIGTERM and by SIGHUP, and resumed: the same weights, bit for bit, as without a stop. */
static void test_resume(void **state) {
    (void)state;
    expect_run(TRAIN_LONG "--output whole", 0);
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    static const char *const outputs[] = {"interrupted", "terminated", "hung-up"};
    for (int i = 0; i < 3; i++) {
        char command[256], weights[256];
        const int status = interrupt("", outputs[i], signals[i]);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 1);
        EXPECT_IN("err", "stopping: ", "stopped after step", "--resume", outputs[i]);
        snprintf(command, sizeof command, "%s/metrics.jsonl", outputs[i]);
        assert_in_range(count_lines(command), 5, 599);

        snprintf(command, sizeof command, "train --output %s --resume --threads 1", outputs[i]);
        expect_run(command, 0);
        EXPECT_IN("err", "resumed from");
        EXPECT_IN("out", "600 steps");
        snprintf(command, sizeof command, "%s/metrics.jsonl", outputs[i]);
        assert_int_equal(count_lines(command), 600);
        snprintf(weights, sizeof weights, "%s/last/model.safetensors", outputs[i]);
        assert_true(same_files("whole/last/model.safetensors", weights));
    }
}

/* nohup has the signal ignored before the program starts. */
static void test_nohup(void **state) {
    (void)state;
    const int status = interrupt("trap '' HUP &&", "nohup", SIGHUP);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    EXPECT_IN("out", "600 steps");
}

static bool holds(const char *name, const char *part) {
    char *const text = read_text(name);
    const bool found = strstr(text, part) != NULL;
    psk_free(text);
    return found;
}

/* Ctrl-C is answered while a step goes on, and a second one ends it. */
static void test_notice(void **state) {
    (void)state;
    int status;
    write_text("err", "");
    const pid_t child = start_training("", "--accumulate 20k --output slow");
    while (!holds("err", " parameters, ") && waitpid(child, &status, WNOHANG) == 0)
        pause_milliseconds(2);
    kill(child, SIGINT);
    while (!holds("err", "stopping: ") && waitpid(child, &status, WNOHANG) == 0)
        pause_milliseconds(2);
    assert_int_equal(count_lines("slow/metrics.jsonl"), 0);
    kill(child, SIGINT);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGINT);
}

/* A run remembers its precision; a device that lacks it says so. */
static void test_precision(void **state) {
    (void)state;
    write_story("precise.txt");
    expect_run("prepare precise.txt --output precise --valid 0.2", 0);
    expect_run("train --data precise --output on-reference --device reference --precision bfloat16 " SMALL_MODEL, 1);
    EXPECT_IN("err", "no instructions for bfloat16", "float32");
    expect_run("info", 0);
    char *const facts = read_text("out");
    const bool has = strstr(facts, "bfloat16") != NULL;
    psk_free(facts);
    if (!has)
        skip();
    expect_run("train --data precise --output rounded --steps 3 --precision bfloat16 " SMALL_MODEL, 0);
    EXPECT_IN("err", "in bfloat16 on");
    expect_run("train --output rounded --resume --steps 5", 0);
    EXPECT_IN("err", "in bfloat16 on");
    expect_run("eval --model rounded --data precise --precision bfloat16", 0);
    expect_run("bench matmul --sizes 64 --samples 1 --precision bfloat16 --json matmul.json", 0);
    EXPECT_IN("matmul.json", "\"dtype\":\"bfloat16\"");
    /* a gradient here nearly cancels: rounding the inputs alone puts it a tenth off */
    expect_run("bench attention --mechanisms polysketch --sketches random_hadamard --locals none --precision bfloat16 "
               "--passes forward_backward --lengths 128 --heads 2 --samples 1 --threads 1",
               0);
}

/* A gain for each head: trained, shown, resumed without being named, and refused where the run says otherwise. */
static void test_far_gain(void **state) {
    (void)state;
    write_story("gains.txt");
    expect_run("prepare gains.txt --output gains-data --valid 0.2", 0);
    expect_run("train --data gains-data --output gains --steps 5 --far-gain --learning-rate 1e-2 " SMALL_MODEL, 0);
    expect_run("info gains", 0);
    EXPECT_IN("out", "times a gain for each head", "far gains ", "attn.far_gain");
    char *const facts = read_text("out");
    assert_null(strstr(facts, "far gains    1 ... 1\n")); /* as at the start */
    psk_free(facts);
    expect_run("train --output gains --resume --steps 7", 0);
    EXPECT_IN("err", "resumed from");
    expect_run("train --output gains --resume --steps 9 --no-far-gain", 2);
    EXPECT_IN("err", "far_gain is true there and false in the model");
}

/* Options of a model that has neither sketch nor sinusoids unless they are asked for, shown by info. */
static void test_norms_and_positions(void **state) {
    (void)state;
    write_story("norms.txt");
    expect_run("prepare norms.txt --output norms-data --valid 0.2", 0);
    expect_run("train --data norms-data --output plain --steps 1 " SMALL_MODEL, 0);
    expect_run("info plain", 0);
    EXPECT_IN("out", "positions    RoPE\n");
    expect_run("train --data norms-data --output norms --steps 1 " SMALL_MODEL
               " --attention softmax --qk-norm --position-scale 0.5",
               0);
    expect_run("info norms", 0);
    EXPECT_IN("out", "softmax of LayerNormed q and k", "positions    RoPE, and sinusoids times 0.5", "attn.qk_norm ");
    expect_run("train --data norms-data --output refused --steps 1 " SMALL_MODEL " --qk-norm", 2);
    EXPECT_IN("err", "qk_norm is true, but attention is polysketch");
}

static int set_up(void **state) {
    (void)state;
    folder = psk_test_folder();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    psk_test_remove_folder(folder);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_usage),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_undefined_figures),
        cmocka_unit_test(test_next),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_local_only),
        cmocka_unit_test(test_best),
        cmocka_unit_test(test_questions),
        cmocka_unit_test(test_task),
        cmocka_unit_test(test_task_lengths),
        cmocka_unit_test(test_bench),
        cmocka_unit_test(test_plot),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_nohup),
        cmocka_unit_test(test_notice),
        cmocka_unit_test(test_precision),
        cmocka_unit_test(test_far_gain),
        cmocka_unit_test(test_norms_and_positions),
    };
    return cmocka_run_group_tests_name("program", tests, set_up, tear_down);
}
