#include "device/device.h"

psk_status psk_ops_check(const psk_ops *ops, const char *device_name) {
#define PSK_OP(name)                                                                                                   \
    if (ops->name == NULL)                                                                                             \
        return psk_fail(PSK_ERROR_INTERNAL,                                                                            \
                        "device \"%s\" lacks the operation \"" #name "\": its table must be complete", device_name);
#include "device/ops.def"
#undef PSK_OP
    return PSK_OK;
}
