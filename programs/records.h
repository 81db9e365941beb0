/* Figures for programs: JSON objects in files, and numbers as JSON knows them. */
#ifndef RECORDS_H
#define RECORDS_H

#include <jansson.h>
#include <stdbool.h>

/* json_real, or null for a number that is not finite. */
json_t *json_number(double value);

/* Before long work: whether records can be written to `path`, said if not; NULL, no records, is well. With "-" records
 * have standard output for themselves: what else is printed goes to standard error from here on. */
bool record_begin(const char *command, const char *path);

/* Appends `record` as one line to `path`; takes the reference. False with an error said. */
bool record_append(const char *command, const char *path, json_t *record);

/* Writes `record` as the whole of `path`; takes the reference. False with an error said. */
bool record_write(const char *command, const char *path, json_t *record);

#endif
