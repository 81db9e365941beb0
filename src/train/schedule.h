/* The learning rate of a step. */
#ifndef PSK_SCHEDULE_H
#define PSK_SCHEDULE_H

#include "base/status.h"

/* Step s counts from 1. Warm-up: peak s / warmup_steps for s <= warmup_steps. Then, with the progress
 *     x = (s - warmup) / (steps - warmup), or, with a time limit, max(x, elapsed / seconds), at most 1,
 * cosine: min + (peak - min) (1 + cos(pi x)) / 2;  linear: peak + (min - peak) x;  constant: peak. */
double psk_schedule_rate(const psk_train_options *options, int64_t step, double elapsed);

#endif
