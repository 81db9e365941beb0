/* A device: one const table of operations and the state behind it. The list of devices is in src/devices.c, the one
 * place that knows the back ends. */
#ifndef PSK_DEVICE_H
#define PSK_DEVICE_H

#include "device/ops.h"

#include <stdbool.h>

struct psk_device {
    const psk_ops *ops;
    const char *name;      /* "cpu", "reference" */
    char description[128]; /* for people: instruction set, libraries, threads */
    int threads;
    bool has_bf16;                       /* set by the back end: instructions for bfloat16 */
    psk_precision precision;             /* of products; BF16 only where has_bf16 */
    void *state;                         /* the back end's own */
    void (*destroy)(psk_device *device); /* releases state; the device itself is released by psk_device_free */
};

/* Calls one operation: PSK_RUN(device, matmul, .batch = 1, .m = ...), all fields not named are 0. Returns its status
 * from the caller. */
#define PSK_RUN(device, name, ...) PSK_TRY((device)->ops->name((device), &(psk_##name##_args){__VA_ARGS__}))

/* PSK_ERROR_INTERNAL naming the first missing entry, for a back end under construction. */
psk_status psk_ops_check(const psk_ops *ops, const char *device_name);

/* The back ends, each filling in a zeroed device. threads >= 1. */
psk_status psk_reference_device_init(psk_device *device, int threads);
psk_status psk_cpu_device_init(psk_device *device, int threads);

#endif
