/* The commands of the program, once: COMMAND(name, what it does). main.c makes its table from this list. */
#ifndef COMMAND_H
#define COMMAND_H

#include "polysketch.h"

#define COMMANDS(COMMAND)                                                                                              \
    COMMAND(prepare, "text files and folders -> token shards")                                                         \
    COMMAND(tokenizer, "text <-> tokens; a new vocabulary from text")                                                  \
    COMMAND(train, "shards -> a trained model in a run folder")                                                        \
    COMMAND(eval, "perplexity of a model on a text, accuracy on multiple-choice questions")                            \
    COMMAND(generate, "a model and a prompt -> text")                                                                  \
    COMMAND(serve, "a model behind HTTP: OpenAI's completions, and a page to talk to it")                              \
    COMMAND(task, "synthetic tasks: selective copying, induction heads")                                               \
    COMMAND(bench, "speed of this machine: matmul, attention, training step, decoding")                                \
    COMMAND(plot, "loss curves of runs as a picture")                                                                  \
    COMMAND(info, "what is in a model, a run, a shard, or this machine")

/* What the process returns. Stopped by Ctrl-C counts as failed: the work is not done. */
typedef enum exit_code { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 } exit_code;

/* argv[0] is the command's own name. */
#define COMMAND(name, summary) exit_code command_##name(int argc, char **argv);
COMMANDS(COMMAND)
#undef COMMAND

/* The subjects of `bench`. */
exit_code bench_matmul(int argc, char **argv);
exit_code bench_attention(int argc, char **argv);
exit_code bench_step(int argc, char **argv);
exit_code bench_decode(int argc, char **argv);

#endif
