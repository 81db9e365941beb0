/* Files: read whole or mapped, write atomically. Every message names the path. */
#ifndef PSK_FILES_H
#define PSK_FILES_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* FILE: "path: cannot <action>: <errno in words>", and what to do where the disk is full. */
psk_status psk_file_error(const char *path, const char *action);

/* A file mapped read-only. A file of 0 bytes has data == NULL, size == 0 and is no error. */
typedef struct psk_mapping {
    const unsigned char *data;
    size_t size;
} psk_mapping;

psk_status psk_map_file(const char *path, psk_mapping *out);
void psk_unmap_file(psk_mapping *mapping); /* accepts an empty one */

/* FORMAT if a file that begins with these bytes is a Git LFS pointer: what lies there until the file is fetched. */
psk_status psk_refuse_pointer(const char *path, const void *bytes, size_t size);

/* The whole file, one 0 byte after it; *out is released by psk_free. PSK_ERROR_FORMAT above `limit` bytes. */
psk_status psk_read_file(const char *path, size_t limit, char **out, size_t *size);

/* Atomic writing (buffered): temporary file beside `path`, fsync, rename, fsync of the folder. Until commit `path`
 * keeps its old contents; after abandon, or after an error in commit, nothing is left behind. */
typedef struct psk_atomic_file psk_atomic_file;
psk_status psk_atomic_open(const char *path, psk_atomic_file **out);
psk_status psk_atomic_write(psk_atomic_file *file, const void *data, size_t bytes);
psk_status psk_atomic_commit(psk_atomic_file *file);                         /* frees file, whatever the outcome */
void psk_atomic_abandon(psk_atomic_file *file);                              /* accepts NULL */
psk_status psk_write_file(const char *path, const void *data, size_t bytes); /* the four in one */

psk_status psk_make_folders(const char *path);           /* mkdir -p, and fsync of where they are made */
psk_status psk_remove_tree(const char *path);            /* a folder and its contents; symbolic links are not followed;
                                                          * a path that is not there is no error */
psk_status psk_rename(const char *from, const char *to); /* and fsync of the folder */

/* *claim: this folder is ours alone until psk_release_folder. FILE if another process, or another call of this one, has
 * it. The system keeps the claim until the process and what it forked have ended; on a file system that has no such
 * locks everybody gets one. */
psk_status psk_claim_folder(const char *path, int *claim);
void psk_release_folder(int claim); /* accepts -1: none */

/* ARGUMENT naming the first entry (by name) that is refused; one that would be spoilt by what is to be written there.
 */
psk_status psk_refuse_entries(const char *folder, bool (*refused)(const char *name));

bool psk_is_folder(const char *path);
bool psk_is_file(const char *path);
psk_status psk_free_space(const char *path, uint64_t *bytes);

/* Names of the entries of a folder, sorted bytewise, without "." and "..". Released by psk_free_names. */
psk_status psk_list_folder(const char *path, char ***names, int64_t *count);
void psk_free_names(char **names, int64_t count);

/* *out = "folder/name", released by psk_free. */
psk_status psk_join_path(const char *folder, const char *name, char **out);

#endif
