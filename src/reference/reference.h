/* The reference device: the executable definition of every entry of device/ops.h, as plain loops that sum in double.
 * Slow on purpose, and never optimised: its worth is that it can be read against the contract line by line. */
#ifndef PSK_REFERENCE_H
#define PSK_REFERENCE_H

#include "device/device.h"

#define PSK_OP(name) psk_status psk_reference_##name(psk_device *device, const psk_##name##_args *args);
#include "device/ops.def"
#undef PSK_OP

#endif
