/* Base64 (RFC 4648, section 4): states inside JSON. */
#ifndef SERVE_BASE64_H
#define SERVE_BASE64_H

#include <stdbool.h>
#include <stddef.h>

/* To be freed; 0-terminated. NULL without memory. */
char *serve_base64_encode(const void *data, size_t size);

/* *data is to be freed. False (and *data NULL) for text that is not base64 with its padding, or without memory. */
bool serve_base64_decode(const char *text, size_t length, void **data, size_t *size);

#endif
