#include "train/schedule.h"

#include <math.h>

double psk_schedule_rate(const psk_train_options *options, int64_t step, double elapsed) {
    const double pi = 3.14159265358979323846;
    const double peak = options->learning_rate, low = options->min_learning_rate;
    const int64_t warmup = options->warmup_steps;
    if (step <= warmup)
        return peak * (double)step / (double)warmup;
    double progress = options->steps > warmup ? (double)(step - warmup) / (double)(options->steps - warmup) : 1;
    if (options->seconds > 0)
        progress = fmax(progress, elapsed / options->seconds);
    progress = fmin(progress, 1);
    switch (options->schedule) {
    case PSK_SCHEDULE_COSINE:
        return low + (peak - low) * (1 + cos(pi * progress)) / 2;
    case PSK_SCHEDULE_LINEAR:
        return peak + (low - peak) * progress;
    case PSK_SCHEDULE_CONSTANT:
        break;
    }
    return peak;
}
