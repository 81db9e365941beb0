/* The table of the reference device. It has no state and one thread. */
#include "reference/reference.h"

#include <stdio.h>

static const psk_ops reference_ops = {
#define PSK_OP(name) .name = psk_reference_##name,
#include "device/ops.def"
#undef PSK_OP
};

psk_status psk_reference_device_init(psk_device *device, int threads) {
    PSK_ASSERT(threads >= 1);
    (void)threads;
    device->ops = &reference_ops;
    device->name = "reference";
    device->threads = 1;
    snprintf(device->description, sizeof device->description, "plain loops in double precision, 1 thread");
    return PSK_OK;
}
