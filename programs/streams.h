/* Whole streams in memory. */
#ifndef STREAMS_H
#define STREAMS_H

#include <stddef.h>

/* All bytes of the file `path`, or of standard input if it is "-", to be freed. NULL with an error said. */
char *read_stream(const char *command, const char *path, size_t *size);

#endif
