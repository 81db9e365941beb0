#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PSK_MESSAGE_SIZE 1024 /* with the 0 at its end */

static _Thread_local char message[PSK_MESSAGE_SIZE];

const char *psk_version(void) {
    return PSK_VERSION_STRING;
}

const char *psk_status_name(psk_status status) {
    switch (status) {
#define PSK_CASE(name)                                                                                                 \
    case name:                                                                                                         \
        return #name;
        PSK_CASE(PSK_OK)
        PSK_CASE(PSK_ERROR_ARGUMENT)
        PSK_CASE(PSK_ERROR_MEMORY)
        PSK_CASE(PSK_ERROR_FILE)
        PSK_CASE(PSK_ERROR_FORMAT)
        PSK_CASE(PSK_ERROR_UNSUPPORTED)
        PSK_CASE(PSK_ERROR_NUMERIC)
        PSK_CASE(PSK_ERROR_INTERRUPTED)
        PSK_CASE(PSK_ERROR_INTERNAL)
#undef PSK_CASE
    }
    return "unknown psk_status";
}

const char *psk_error_message(void) {
    return message;
}

/* Both functions format into a buffer of their own first: an argument may be the present message. */
psk_status psk_fail(psk_status status, const char *format, ...) {
    char text[PSK_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    memcpy(message, text, sizeof message);
    return status;
}

psk_status psk_fail_within(psk_status status, const char *format, ...) {
    char text[2 * PSK_MESSAGE_SIZE + 2];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, PSK_MESSAGE_SIZE, format, arguments);
    va_end(arguments);
    strcat(strcat(text, ": "), message); /* two messages and ": " always fit */
    memcpy(message, text, sizeof message);
    message[sizeof message - 1] = 0;
    return status;
}
