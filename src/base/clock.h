/* The clock that only goes forward, in seconds from some moment. */
#ifndef PSK_CLOCK_H
#define PSK_CLOCK_H

#include <time.h>

static inline double psk_clock_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#endif
