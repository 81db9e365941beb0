/* The standard streams of the program, and whole streams in memory. */
#ifndef STREAMS_H
#define STREAMS_H

#include "command.h"

#include <stddef.h>

/* Before any file is opened: no file gets the number of a standard stream that was closed. Using such a stream fails as
 * before. */
void streams_begin(void);

/* At the end: `code`, or EXIT_FAILED with an error said where something written to standard output was lost. */
exit_code streams_end(exit_code code);

/* Standard output is another stream's from now on: what is lost of it is no failure. */
void streams_lend_output(void);

/* All bytes of the file `path`, or of standard input if it is "-", to be freed. NULL with an error said. */
char *read_stream(const char *command, const char *path, size_t *size);

#endif
