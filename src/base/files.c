#include "base/files.h"

#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

psk_status psk_file_error(const char *path, const char *action) {
    const int error = errno;
    const char *hint = error == ENOSPC || error == EDQUOT ? "; free some space and try again" : "";
    return psk_fail(PSK_ERROR_FILE, "%s: cannot %s: %s%s", path, action, strerror(error), hint);
}

/* The folder part of a path, as dirname gives it: "." for a plain name. */
static psk_status folder_of(const char *path, char **out) {
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    while (length > 0 && path[length - 1] != '/')
        length--;
    if (length == 0)
        return psk_strdup(".", out);
    PSK_TRY(psk_strdup(path, out));
    (*out)[length] = 0;
    return PSK_OK;
}

static bool has_mode(const char *path, mode_t kind) {
    struct stat info;
    return stat(path, &info) == 0 && (info.st_mode & S_IFMT) == kind;
}

bool psk_is_folder(const char *path) {
    return has_mode(path, S_IFDIR);
}

bool psk_is_file(const char *path) {
    return has_mode(path, S_IFREG);
}

static psk_status open_for_reading(const char *path, int *fd, struct stat *info) {
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0)
        return psk_file_error(path, "open");
    if (fstat(*fd, info) == 0 && !S_ISDIR(info->st_mode))
        return PSK_OK;
    const psk_status status = S_ISDIR(info->st_mode) ? psk_fail(PSK_ERROR_FILE, "%s: is a folder, not a file", path)
                                                     : psk_file_error(path, "inspect");
    close(*fd);
    return status;
}

psk_status psk_map_file(const char *path, psk_mapping *out) {
    *out = (psk_mapping){NULL, 0};
    int fd;
    struct stat info;
    PSK_TRY(open_for_reading(path, &fd, &info));
    psk_status status = PSK_OK;
    if (!S_ISREG(info.st_mode)) {
        status = psk_fail(PSK_ERROR_FILE, "%s: cannot be mapped: not a regular file", path);
    } else if (info.st_size > 0) {
        void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
            status = psk_file_error(path, "map");
        else
            *out = (psk_mapping){data, (size_t)info.st_size};
    }
    close(fd);
    return status;
}

void psk_unmap_file(psk_mapping *mapping) {
    if (mapping->data)
        munmap((void *)(uintptr_t)mapping->data, mapping->size);
    *mapping = (psk_mapping){NULL, 0};
}

psk_status psk_refuse_pointer(const char *path, const void *bytes, size_t size) {
    static const char begin[] = "version https://git-lfs";
    if (size < sizeof begin - 1 || memcmp(bytes, begin, sizeof begin - 1) != 0)
        return PSK_OK;
    return psk_fail(PSK_ERROR_FORMAT,
                    "%s: is a Git LFS pointer, not the file itself; fetch the contents with: git lfs pull", path);
}

/* Doubles a buffer of which `used` bytes are in use. */
static psk_status enlarge(char **buffer, size_t used, size_t *capacity) {
    void *larger;
    PSK_TRY(psk_alloc(2 * *capacity, "the contents of a file", &larger));
    memcpy(larger, *buffer, used);
    psk_free(*buffer);
    *buffer = larger;
    *capacity *= 2;
    return PSK_OK;
}

/* Reads to the end of the file, which may be a pipe: its size is only a first guess. */
static psk_status read_to_end(int fd, const char *path, size_t limit, size_t capacity, char **buffer, size_t *size) {
    void *block;
    PSK_TRY(psk_alloc(capacity, "the contents of a file", &block));
    *buffer = block;
    *size = 0;
    for (;;) {
        if (*size + 1 == capacity)
            PSK_TRY(enlarge(buffer, *size, &capacity));
        const ssize_t got = read(fd, *buffer + *size, capacity - 1 - *size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return psk_file_error(path, "read");
        if (got == 0)
            break;
        *size += (size_t)got;
        if (*size > limit)
            return psk_fail(PSK_ERROR_FORMAT, "%s: larger than %zu bytes, the limit for such a file", path, limit);
    }
    (*buffer)[*size] = 0;
    return PSK_OK;
}

psk_status psk_read_file(const char *path, size_t limit, char **out, size_t *size) {
    const size_t smallest = 4096;
    int fd;
    struct stat info;
    *out = NULL;
    *size = 0;
    PSK_TRY(open_for_reading(path, &fd, &info));
    const size_t expected = (size_t)info.st_size < limit ? (size_t)info.st_size : limit;
    char *buffer = NULL;
    size_t used = 0;
    /* 2 more: the 0 byte, and one to notice the end (or a byte too many) without enlarging. */
    const psk_status status =
        read_to_end(fd, path, limit, expected > smallest ? expected + 2 : smallest, &buffer, &used);
    close(fd);
    if (status != PSK_OK) {
        psk_free(buffer);
        return status;
    }
    *out = buffer;
    *size = used;
    return PSK_OK;
}

struct psk_atomic_file {
    FILE *stream;
    char *path, *temporary;
};

/* Creates path.tmp.<process>.<number>: a name that no writer, of this process or a dead one, has used. */
static psk_status open_temporary(psk_atomic_file *file) {
    static atomic_uint number;
    const size_t bytes = strlen(file->path) + 48;
    void *name;
    PSK_TRY(psk_alloc(bytes, "a file name", &name));
    file->temporary = name;
    int fd;
    do {
        snprintf(name, bytes, "%s.tmp.%ld.%u", file->path, (long)getpid(), atomic_fetch_add(&number, 1));
        fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (fd < 0 && errno == EEXIST);
    file->stream = fd < 0 ? NULL : fdopen(fd, "wb");
    if (file->stream)
        return PSK_OK;
    const psk_status status = psk_file_error(file->path, "create a file beside it");
    if (fd >= 0) {
        close(fd);
        unlink(name);
    }
    return status;
}

static void release_atomic(psk_atomic_file *file) {
    psk_free(file->path);
    psk_free(file->temporary);
    psk_free(file);
}

psk_status psk_atomic_open(const char *path, psk_atomic_file **out) {
    *out = NULL;
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) /* a rename would replace /dev/null and the like */
        return psk_fail(PSK_ERROR_FILE, "%s: is there already and is not a regular file; give another name", path);
    void *block;
    PSK_TRY(psk_alloc_zero(sizeof(psk_atomic_file), "a file to write", &block));
    psk_atomic_file *file = block;
    psk_status status = psk_strdup(path, &file->path);
    if (status == PSK_OK)
        status = open_temporary(file);
    if (status != PSK_OK)
        release_atomic(file);
    else
        *out = file;
    return status;
}

psk_status psk_atomic_write(psk_atomic_file *file, const void *data, size_t bytes) {
    if (bytes > 0 && fwrite(data, 1, bytes, file->stream) != bytes)
        return psk_file_error(file->path, "write");
    return PSK_OK;
}

psk_status psk_atomic_commit(psk_atomic_file *file) {
    psk_status status = PSK_OK;
    if (fflush(file->stream) != 0 || fsync(fileno(file->stream)) != 0)
        status = psk_file_error(file->path, "write");
    if (fclose(file->stream) != 0 && status == PSK_OK)
        status = psk_file_error(file->path, "write");
    if (status == PSK_OK)
        status = psk_rename(file->temporary, file->path);
    if (status != PSK_OK)
        unlink(file->temporary); /* not there any more if only the folder could not be synced */
    release_atomic(file);
    return status;
}

void psk_atomic_abandon(psk_atomic_file *file) {
    if (!file)
        return;
    fclose(file->stream);
    unlink(file->temporary);
    release_atomic(file);
}

psk_status psk_write_file(const char *path, const void *data, size_t bytes) {
    psk_atomic_file *file;
    PSK_TRY(psk_atomic_open(path, &file));
    const psk_status status = psk_atomic_write(file, data, bytes);
    if (status == PSK_OK)
        return psk_atomic_commit(file);
    psk_atomic_abandon(file);
    return status;
}

static psk_status sync_folder(const char *path) {
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) /* EACCES: one that may be written but not read, which nobody but its owner can sync */
        return errno == EACCES ? PSK_OK : psk_file_error(path, "open the folder");
    psk_status status = PSK_OK;
    if (fsync(fd) != 0 && errno != EINVAL) /* EINVAL: a file system that has no such thing */
        status = psk_file_error(path, "sync the folder");
    close(fd);
    return status;
}

psk_status psk_rename(const char *from, const char *to) {
    char *folder;
    PSK_TRY(folder_of(to, &folder));
    psk_status status;
    if (rename(from, to) == 0)
        status = sync_folder(folder);
    else
        status = psk_fail(PSK_ERROR_FILE, "%s: cannot be renamed to %s: %s", from, to, strerror(errno));
    psk_free(folder);
    return status;
}

/* mkdir, and fsync of the folder that the new one is in: else all that is synced in it may be lost with its name. */
static psk_status make_folder(const char *path) {
    char *parent;
    if (mkdir(path, 0777) != 0)
        return errno == EEXIST && psk_is_folder(path) ? PSK_OK : psk_file_error(path, "create the folder");
    PSK_TRY(folder_of(path, &parent));
    const psk_status status = sync_folder(parent);
    psk_free(parent);
    return status;
}

psk_status psk_claim_folder(const char *path, int *claim) {
    *claim = -1;
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return psk_file_error(path, "open the folder");
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        close(fd);
        return psk_fail(PSK_ERROR_FILE,
                        "%s is being written by another process: wait until it has ended, or choose another folder",
                        path);
    }
    *claim = fd;
    return PSK_OK;
}

void psk_release_folder(int claim) {
    if (claim < 0)
        return;
    flock(claim, LOCK_UN); /* a child that was forked meanwhile has the descriptor too */
    close(claim);
}

psk_status psk_make_folders(const char *path) {
    char *part;
    PSK_TRY(psk_strdup(path, &part));
    psk_status status = PSK_OK;
    for (size_t i = 1, length = strlen(path); status == PSK_OK && i <= length; i++) {
        if (part[i] != '/' && part[i] != 0)
            continue;
        part[i] = 0;
        status = make_folder(part);
        part[i] = path[i];
    }
    psk_free(part);
    return status;
}

static psk_status remove_entries(const char *folder) {
    char **names;
    int64_t count;
    PSK_TRY(psk_list_folder(folder, &names, &count));
    psk_status status = PSK_OK;
    for (int64_t i = 0; status == PSK_OK && i < count; i++) {
        char *path;
        status = psk_join_path(folder, names[i], &path);
        if (status == PSK_OK)
            status = psk_remove_tree(path);
        psk_free(path);
    }
    psk_free_names(names, count);
    return status;
}

psk_status psk_remove_tree(const char *path) {
    struct stat info;
    if (lstat(path, &info) != 0)
        return errno == ENOENT ? PSK_OK : psk_file_error(path, "inspect");
    if (!S_ISDIR(info.st_mode))
        return unlink(path) == 0 ? PSK_OK : psk_file_error(path, "remove");
    PSK_TRY(remove_entries(path));
    return rmdir(path) == 0 ? PSK_OK : psk_file_error(path, "remove the folder");
}

psk_status psk_free_space(const char *path, uint64_t *bytes) {
    struct statvfs info;
    if (statvfs(path, &info) != 0)
        return psk_file_error(path, "ask for the free space");
    *bytes = (uint64_t)info.f_bavail * info.f_frsize;
    return PSK_OK;
}

typedef struct {
    char **names;
    int64_t count, capacity;
} name_list;

static psk_status add_name(name_list *list, const char *name) {
    if (list->count == list->capacity) {
        const int64_t larger = list->capacity ? 2 * list->capacity : 32;
        void *moved;
        PSK_TRY(psk_alloc((size_t)larger * sizeof(char *), "the names of a folder", &moved));
        if (list->count)
            memcpy(moved, list->names, (size_t)list->count * sizeof(char *));
        psk_free(list->names);
        list->names = moved;
        list->capacity = larger;
    }
    PSK_TRY(psk_strdup(name, &list->names[list->count]));
    list->count++;
    return PSK_OK;
}

static psk_status read_names(DIR *folder, const char *path, name_list *list) {
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (!entry)
            return errno == 0 ? PSK_OK : psk_file_error(path, "list the folder");
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            PSK_TRY(add_name(list, entry->d_name));
    }
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

psk_status psk_list_folder(const char *path, char ***names, int64_t *count) {
    *names = NULL;
    *count = 0;
    DIR *folder = opendir(path);
    if (!folder)
        return psk_file_error(path, "open the folder");
    name_list list = {NULL, 0, 0};
    const psk_status status = read_names(folder, path, &list);
    closedir(folder);
    if (status != PSK_OK) {
        psk_free_names(list.names, list.count);
        return status;
    }
    if (list.count)
        qsort(list.names, (size_t)list.count, sizeof(char *), compare_names);
    *names = list.names;
    *count = list.count;
    return PSK_OK;
}

void psk_free_names(char **names, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        psk_free(names[i]);
    psk_free(names);
}

psk_status psk_join_path(const char *folder, const char *name, char **out) {
    const size_t length = strlen(folder);
    const char *separator = length == 0 || folder[length - 1] == '/' ? "" : "/";
    const size_t bytes = length + strlen(name) + 2;
    void *path;
    *out = NULL;
    PSK_TRY(psk_alloc(bytes, "a path", &path));
    snprintf(path, bytes, "%s%s%s", folder, separator, name);
    *out = path;
    return PSK_OK;
}

psk_status psk_refuse_entries(const char *folder, bool (*refused)(const char *name)) {
    psk_status status = PSK_OK;
    char **names;
    int64_t count;
    PSK_TRY(psk_list_folder(folder, &names, &count));
    for (int64_t i = 0; i < count && status == PSK_OK; i++)
        if (refused(names[i]))
            status = psk_fail(PSK_ERROR_ARGUMENT, "%s holds %s already: remove it or choose another folder", folder,
                              names[i]);
    psk_free_names(names, count);
    return status;
}
