/* polysketch bench: a table of its subjects. */
#include "subjects.h"

static const subject subjects[] = {
    {"matmul", bench_matmul, "rate of matrix products"},
    {"attention", bench_attention, "time per token against context, by mechanism"},
    {"step", bench_step, "a whole training step"},
    {"decode", bench_decode, "time per token of generation against context"},
};

exit_code command_bench(int argc, char **argv) {
    return run_subject("bench", "Speed of this machine.", subjects, sizeof subjects / sizeof subjects[0], argc, argv);
}
