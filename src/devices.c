/* Devices by name: the one place that knows which back ends there are. */
#include "base/memory.h"
#include "device/device.h"

#include <omp.h>
#include <string.h>

#define MAX_THREADS 1024 /* more is a typing error, and would take a stack each */

/* Best first: "auto" takes the first. */
static const struct {
    const char *name;
    psk_status (*init)(psk_device *device, int threads);
} back_ends[] = {
    {"cpu", psk_cpu_device_init},
    {"reference", psk_reference_device_init},
};

static psk_status find_back_end(const char *name, size_t *index) {
    const size_t count = sizeof back_ends / sizeof back_ends[0];
    *index = 0;
    if (strcmp(name, "auto") == 0)
        return PSK_OK;
    for (; *index < count; (*index)++)
        if (strcmp(name, back_ends[*index].name) == 0)
            return PSK_OK;
    char known[128] = "auto";
    for (size_t i = 0; i < count; i++) {
        strncat(known, ", ", sizeof known - strlen(known) - 1);
        strncat(known, back_ends[i].name, sizeof known - strlen(known) - 1);
    }
    return psk_fail(PSK_ERROR_ARGUMENT, "device \"%s\" is unknown; choose one of: %s", name, known);
}

psk_status psk_device_create(const char *name, int threads, psk_device **out) {
    *out = NULL;
    size_t index;
    PSK_TRY(find_back_end(name, &index));
    if (threads < 0 || threads > MAX_THREADS)
        return psk_fail(PSK_ERROR_ARGUMENT, "%d threads: give 1 to %d, or 0 for as many as this process may use",
                        threads, MAX_THREADS);
    if (threads == 0)
        threads = omp_get_max_threads(); /* OMP_NUM_THREADS, else the CPU mask */

    psk_device *device;
    PSK_TRY(psk_alloc_zero(sizeof *device, "device", (void **)&device));
    device->threads = threads;
    psk_status status = back_ends[index].init(device, threads);
    if (status == PSK_OK)
        status = psk_ops_check(device->ops, back_ends[index].name);
    if (status != PSK_OK) {
        psk_device_free(device);
        return status;
    }
    *out = device;
    return PSK_OK;
}

void psk_device_free(psk_device *device) {
    if (device == NULL)
        return;
    if (device->destroy != NULL)
        device->destroy(device);
    psk_free(device);
}

const char *psk_device_name(const psk_device *device) {
    return device->name;
}

const char *psk_device_description(const psk_device *device) {
    return device->description;
}

int psk_device_threads(const psk_device *device) {
    return device->threads;
}

const char *psk_precision_name(psk_precision precision) {
    switch (precision) {
    case PSK_PRECISION_F32:
        return "float32";
    case PSK_PRECISION_BF16:
        return "bfloat16";
    }
    return NULL;
}

psk_status psk_device_set_precision(psk_device *device, psk_precision precision) {
    if (psk_precision_name(precision) == NULL)
        return psk_fail(PSK_ERROR_ARGUMENT, "precision %d: choose PSK_PRECISION_F32 or PSK_PRECISION_BF16",
                        (int)precision);
    if (precision == PSK_PRECISION_BF16 && !device->has_bf16)
        return psk_fail(PSK_ERROR_UNSUPPORTED,
                        "device \"%s\" (%s) has no instructions for bfloat16; compute in float32 there", device->name,
                        device->description);
    device->precision = precision;
    return PSK_OK;
}

psk_precision psk_device_precision(const psk_device *device) {
    return device->precision;
}
