#include "generate.h"

#include "terminal.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>

/* A float as it was meant: 0.8f is 0.800000012 in double. */
static double as_written(float value) {
    return round((double)value * 1e6) / 1e6;
}

sampling_options sampling_options_default(void) {
    const psk_sampling s = psk_sampling_default();
    return (sampling_options){.temperature = as_written(s.temperature),
                              .top_p = as_written(s.top_p),
                              .min_p = as_written(s.min_p),
                              .repetition_penalty = as_written(s.repetition_penalty),
                              .presence_penalty = as_written(s.presence_penalty),
                              .frequency_penalty = as_written(s.frequency_penalty),
                              .top_k = s.top_k,
                              .penalty_window = s.penalty_window,
                              .seed = s.seed};
}

option_group sampling_option_group(sampling_options *options, command_option table[SAMPLING_OPTION_CAPACITY]) {
    const command_option made[SAMPLING_OPTION_CAPACITY] = {
        {"repetition-penalty", OPTION_REAL, NULL, "divides what speaks for a token that was there (1: off)",
         .target = &options->repetition_penalty, .low = 0.01, .high = 100},
        {"presence-penalty", OPTION_REAL, NULL, "taken from the logit of a token that was there",
         .target = &options->presence_penalty, .low = -100, .high = 100},
        {"frequency-penalty", OPTION_REAL, NULL, "the same for each time that it was there",
         .target = &options->frequency_penalty, .low = -100, .high = 100},
        {"penalty-window", OPTION_COUNT, "N", "these three look at the last N tokens (0: all)",
         .target = &options->penalty_window, .low = 0, .high = 1e12},
        {"logit-bias", OPTION_TEXTS, "TOKEN:X", "adds X to the logit of a token (by id); may be repeated",
         .target = &options->biases},
        {"temperature", OPTION_REAL, NULL, "below 1: safer, above: wilder; 0: always the likeliest token",
         .target = &options->temperature, .low = 0, .high = 100},
        {"top-k", OPTION_COUNT, "N", "only the N likeliest (0: all)", .target = &options->top_k, .low = 0, .high = 1e9},
        {"top-p", OPTION_REAL, NULL, "then only the likeliest that make up this part (1: all)",
         .target = &options->top_p, .low = 1e-6, .high = 1},
        {"min-p", OPTION_REAL, NULL, "then only those at least this part as likely as the likeliest (0: all)",
         .target = &options->min_p, .low = 0, .high = 1},
        {"seed", OPTION_SEED, NULL, "the same seed gives the same text", .target = &options->seed},
    };
    for (int i = 0; i < SAMPLING_OPTION_CAPACITY; i++)
        table[i] = made[i];
    return (option_group){"Choice of tokens, applied in this order", table, SAMPLING_OPTION_CAPACITY};
}

/* "17:-2.5" */
static bool read_bias(const char *text, psk_logit_bias *bias) {
    char *end;
    errno = 0;
    const long token = strtol(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end != ':' || errno || token > INT32_MAX)
        return false;
    const char *const number = end + 1;
    bias->token = (int32_t)token;
    bias->bias = strtof(number, &end);
    return end != number && *end == '\0' && !isspace((unsigned char)*number);
}

bool sampling_options_take(const sampling_options *options, psk_logit_bias *biases, psk_sampling *sampling) {
    for (int i = 0; i < options->biases.count; i++)
        if (!read_bias(options->biases.values[i], &biases[i])) {
            say_error("generate", "--logit-bias: '%s' is not TOKEN:X, a token's id and a number",
                      options->biases.values[i]);
            return false;
        }
    *sampling = (psk_sampling){.temperature = (float)options->temperature,
                               .top_k = options->top_k,
                               .top_p = (float)options->top_p,
                               .min_p = (float)options->min_p,
                               .repetition_penalty = (float)options->repetition_penalty,
                               .presence_penalty = (float)options->presence_penalty,
                               .frequency_penalty = (float)options->frequency_penalty,
                               .penalty_window = options->penalty_window,
                               .bias = biases,
                               .bias_count = options->biases.count,
                               .seed = options->seed};
    return true;
}
