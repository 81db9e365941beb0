/* Files: reading, mapping, folders, and above all that an atomic write leaves the old file or the new one, nothing
 * else. */
#include "support.h"

#include "base/files.h"
#include "base/memory.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int enter(void **state) {
    return psk_test_place_enter(state, "file");
}

static void expect_contents(const char *path, const char *contents) {
    char *text;
    size_t size;
    PSK_TEST_OK(psk_read_file(path, 1000000, &text, &size));
    assert_int_equal(size, strlen(contents));
    assert_string_equal(text, contents);
    psk_free(text);
}

static void expect_entries(const char *folder, int64_t expected) {
    char **names;
    int64_t count;
    PSK_TEST_OK(psk_list_folder(folder, &names, &count));
    psk_free_names(names, count);
    assert_int_equal(count, expected);
}

static void read_whole(void **state) {
    const psk_test_place *here = *state;
    char *text;
    size_t size;
    PSK_TEST_OK(psk_write_file(here->path, "", 0));
    expect_contents(here->path, "");
    PSK_TEST_OK(psk_write_file(here->path, "abc", 3));
    expect_contents(here->path, "abc");
    PSK_TEST_OK(psk_read_file(here->path, 3, &text, &size));
    psk_free(text);
    PSK_TEST_FAILS(psk_read_file(here->path, 2, &text, &size), PSK_ERROR_FORMAT, here->path, "2 bytes");
    assert_null(text);
    PSK_TEST_FAILS(psk_read_file(here->folder, 9, &text, &size), PSK_ERROR_FILE, here->folder, "folder");
    PSK_TEST_FAILS(psk_read_file("/no/such", 9, &text, &size), PSK_ERROR_FILE, "/no/such", "No such file");
}

/* Larger than the first guess, and from a pipe, whose size says nothing. */
static void read_from_a_pipe(void **state) {
    (void)state;
    int ends[2];
    char written[20000], name[32], *text;
    size_t size;
    memset(written, 'p', sizeof written);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], written, sizeof written), sizeof written);
    close(ends[1]);
    snprintf(name, sizeof name, "/dev/fd/%d", ends[0]);
    PSK_TEST_OK(psk_read_file(name, sizeof written, &text, &size));
    assert_int_equal(size, sizeof written);
    assert_memory_equal(text, written, sizeof written);
    psk_free(text);
    close(ends[0]);
}

static void map(void **state) {
    const psk_test_place *here = *state;
    psk_mapping mapping;
    PSK_TEST_OK(psk_write_file(here->path, "", 0));
    PSK_TEST_OK(psk_map_file(here->path, &mapping));
    assert_null(mapping.data);
    psk_unmap_file(&mapping);
    PSK_TEST_OK(psk_write_file(here->path, "old", 3));
    PSK_TEST_OK(psk_map_file(here->path, &mapping));
    PSK_TEST_OK(psk_write_file(here->path, "newer", 5));
    assert_int_equal(mapping.size, 3);
    assert_memory_equal(mapping.data, "old", 3); /* replaced, not changed */
    psk_unmap_file(&mapping);
    assert_null(mapping.data);
    PSK_TEST_FAILS(psk_map_file("/no/such", &mapping), PSK_ERROR_FILE, "/no/such");
    PSK_TEST_FAILS(psk_map_file(here->folder, &mapping), PSK_ERROR_FILE, here->folder);
    PSK_TEST_FAILS(psk_map_file("/dev/null", &mapping), PSK_ERROR_FILE, "regular");
}

static void atomic_commit_and_abandon(void **state) {
    const psk_test_place *here = *state;
    psk_atomic_file *file, *other;
    PSK_TEST_OK(psk_write_file(here->path, "old", 3));
    PSK_TEST_OK(psk_atomic_open(here->path, &file));
    PSK_TEST_OK(psk_atomic_write(file, "head", 4));
    PSK_TEST_OK(psk_atomic_open(here->path, &other)); /* a second writer has a file of its own */
    PSK_TEST_OK(psk_atomic_write(other, "lost", 4));
    expect_entries(here->folder, 3);
    PSK_TEST_OK(psk_atomic_write(file, "____", 4));
    expect_contents(here->path, "old");
    PSK_TEST_OK(psk_atomic_commit(file));
    expect_contents(here->path, "head____");
    psk_atomic_abandon(other);
    psk_atomic_abandon(NULL);
    expect_contents(here->path, "head____");
    expect_entries(here->folder, 1);
}

static void atomic_refuses_what_is_no_file(void **state) {
    const psk_test_place *here = *state;
    char *inside;
    PSK_TEST_OK(psk_join_path(here->folder, "missing/file", &inside));
    PSK_TEST_FAILS(psk_write_file(inside, "x", 1), PSK_ERROR_FILE, inside, "No such file");
    psk_free(inside);
    PSK_TEST_FAILS(psk_write_file(here->folder, "x", 1), PSK_ERROR_FILE, here->folder, "not a regular file");
    assert_int_equal(mkfifo(here->path, 0600), 0); /* stands for /dev/null, which a rename would destroy */
    PSK_TEST_FAILS(psk_write_file(here->path, "x", 1), PSK_ERROR_FILE, here->path, "not a regular file");
    expect_entries(here->folder, 1);
}

/* No file may grow beyond 64 KiB: what a full disk does, at a chosen place. */
static psk_status write_on_a_full_disk(const char *path, size_t bytes) {
    void *data;
    PSK_TEST_OK(psk_alloc_zero(bytes, "a large file", &data));
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    psk_test_limit_files(65536);
    const psk_status status = psk_write_file(path, data, bytes);
    psk_test_limit_files(RLIM_INFINITY);
    signal(SIGXFSZ, handler);
    psk_free(data);
    return status;
}

static void full_disk_keeps_the_old_file(void **state) {
    const psk_test_place *here = *state;
    PSK_TEST_OK(psk_write_file(here->path, "old", 3));
    /* Fails in write, and (one byte too many, still in the buffer) only in commit. */
    PSK_TEST_FAILS(write_on_a_full_disk(here->path, 1000000), PSK_ERROR_FILE, here->path, "write", "File too large");
    expect_contents(here->path, "old");
    expect_entries(here->folder, 1);
    PSK_TEST_FAILS(write_on_a_full_disk(here->path, 65537), PSK_ERROR_FILE, here->path, "write", "File too large");
    expect_contents(here->path, "old");
    expect_entries(here->folder, 1);
    PSK_TEST_OK(write_on_a_full_disk(here->path, 65536));
}

static psk_status write_again(void *path) {
    return psk_write_file(path, "new", 3);
}

static void atomic_without_memory(void **state) {
    const psk_test_place *here = *state;
    PSK_TEST_OK(psk_write_file(here->path, "old", 3));
    for (int64_t n = 1; n <= 3; n++) { /* the state, the name, the temporary name */
        psk_alloc_fail_after(n);
        PSK_TEST_FAILS(write_again(here->path), PSK_ERROR_MEMORY, "out of memory");
        psk_alloc_fail_after(0);
        expect_contents(here->path, "old");
        expect_entries(here->folder, 1);
    }
    assert_true(psk_test_allocation_failures(write_again, here->path) >= 3);
    expect_entries(here->folder, 1);
}

static void folders(void **state) {
    const psk_test_place *here = *state;
    char *deep, *file, *top, *link, **names;
    int64_t count;
    PSK_TEST_OK(psk_join_path(here->folder, "a/b//c/", &deep));
    PSK_TEST_OK(psk_make_folders(deep));
    PSK_TEST_OK(psk_make_folders(deep)); /* is there already */
    assert_true(psk_is_folder(deep));
    assert_false(psk_is_file(deep));
    PSK_TEST_OK(psk_join_path(deep, "f", &file));
    PSK_TEST_OK(psk_write_file(file, "x", 1));
    assert_true(psk_is_file(file));
    PSK_TEST_FAILS(psk_make_folders(file), PSK_ERROR_FILE, file);
    PSK_TEST_OK(psk_write_file(here->path, "kept", 4));
    PSK_TEST_OK(psk_join_path(deep, "link", &link));
    assert_int_equal(symlink(here->folder, link), 0);

    PSK_TEST_OK(psk_list_folder(deep, &names, &count));
    assert_int_equal(count, 2);
    assert_string_equal(names[0], "f");
    assert_string_equal(names[1], "link");
    psk_free_names(names, count);

    PSK_TEST_OK(psk_join_path(here->folder, "a", &top));
    PSK_TEST_OK(psk_remove_tree(top));
    PSK_TEST_OK(psk_remove_tree(top)); /* is gone already */
    assert_false(psk_is_folder(top));
    expect_contents(here->path, "kept"); /* the link was not followed */
    PSK_TEST_FAILS(psk_list_folder(top, &names, &count), PSK_ERROR_FILE, top);
    psk_free(deep);
    psk_free(file);
    psk_free(top);
    psk_free(link);
}

/* Inodes of what was synced, noted by this stand-in for libc's. */
static ino_t synced[8];
static int sync_count;

int fsync(int fd) {
    struct stat facts;
    if (fstat(fd, &facts) == 0)
        synced[sync_count++ % 8] = facts.st_ino;
    return (int)syscall(SYS_fsync, fd);
}

/* A new folder stays through a loss of power: its name is synced where it stands. */
static void new_folders_are_synced(void **state) {
    const psk_test_place *here = *state;
    char *outer, *inner;
    struct stat place, facts;
    PSK_TEST_OK(psk_join_path(here->folder, "outer", &outer));
    PSK_TEST_OK(psk_join_path(outer, "inner", &inner));
    sync_count = 0;
    PSK_TEST_OK(psk_make_folders(inner));
    assert_int_equal(stat(here->folder, &place), 0);
    assert_int_equal(stat(outer, &facts), 0);
    assert_int_equal(sync_count, 2);
    assert_true(synced[0] == place.st_ino && synced[1] == facts.st_ino);
    PSK_TEST_OK(psk_make_folders(inner)); /* nothing is new */
    assert_int_equal(sync_count, 2);
    psk_free(outer);
    psk_free(inner);
}

static void a_folder_is_claimed_once(void **state) {
    const psk_test_place *here = *state;
    int first, second;
    PSK_TEST_OK(psk_claim_folder(here->folder, &first));
    PSK_TEST_FAILS(psk_claim_folder(here->folder, &second), PSK_ERROR_FILE, here->folder, "another process");
    assert_int_equal(second, -1);
    psk_release_folder(second);
    psk_release_folder(first);
    PSK_TEST_OK(psk_claim_folder(here->folder, &second));
    const pid_t child = fork(); /* has the descriptor for as long as it lives */
    if (child == 0)
        for (;;)
            pause();
    psk_release_folder(second);
    PSK_TEST_OK(psk_claim_folder(here->folder, &first));
    psk_release_folder(first);
    assert_true(child > 0 && kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
    PSK_TEST_FAILS(psk_claim_folder(here->path, &first), PSK_ERROR_FILE, here->path, "No such file");
    expect_entries(here->folder, 0);
}

static void many_names_are_sorted(void **state) {
    const psk_test_place *here = *state;
    char **names;
    int64_t count;
    for (int i = 0; i < 100; i++) {
        char name[16], *path;
        snprintf(name, sizeof name, "%02d", i * 37 % 100);
        PSK_TEST_OK(psk_join_path(here->folder, name, &path));
        PSK_TEST_OK(psk_write_file(path, "", 0));
        psk_free(path);
    }
    PSK_TEST_OK(psk_list_folder(here->folder, &names, &count));
    assert_int_equal(count, 100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(atoi(names[i]), i);
    psk_free_names(names, count);
}

static psk_status list_again(void *folder) {
    char **names;
    int64_t count;
    PSK_TRY(psk_list_folder(folder, &names, &count));
    psk_free_names(names, count);
    return PSK_OK;
}

static void listing_without_memory(void **state) {
    const psk_test_place *here = *state;
    PSK_TEST_OK(psk_write_file(here->path, "", 0));
    assert_int_equal(psk_test_allocation_failures(list_again, here->folder), 2);
}

static void rename_and_space(void **state) {
    const psk_test_place *here = *state;
    char *to;
    uint64_t bytes = 0;
    PSK_TEST_OK(psk_join_path(here->folder, "to", &to));
    PSK_TEST_OK(psk_write_file(here->path, "x", 1));
    PSK_TEST_OK(psk_rename(here->path, to));
    expect_contents(to, "x");
    PSK_TEST_FAILS(psk_rename(here->path, to), PSK_ERROR_FILE, here->path, to, "No such file");
    PSK_TEST_OK(psk_free_space(here->folder, &bytes));
    assert_true(bytes > 0);
    PSK_TEST_FAILS(psk_free_space("/no/such", &bytes), PSK_ERROR_FILE, "/no/such");
    psk_free(to);
}

static void write_in_the_current_folder(void **state) {
    const psk_test_place *here = *state;
    char *before = getcwd(NULL, 0);
    assert_int_equal(chdir(here->folder), 0);
    PSK_TEST_OK(psk_write_file("plain", "x", 1)); /* a name without folder: the folder to sync is "." */
    expect_contents("plain", "x");
    assert_int_equal(chdir(before), 0);
    free(before);
}

static void join(void **state) {
    (void)state;
    static const struct {
        const char *folder, *name, *path;
    } cases[] = {{"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"/", "b", "/b"}, {"", "b", "b"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *path;
        PSK_TEST_OK(psk_join_path(cases[i].folder, cases[i].name, &path));
        assert_string_equal(path, cases[i].path);
        psk_free(path);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, enter, psk_test_place_leave)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(read_whole),
        TEST(read_from_a_pipe),
        TEST(map),
        TEST(atomic_commit_and_abandon),
        TEST(atomic_refuses_what_is_no_file),
        TEST(full_disk_keeps_the_old_file),
        TEST(atomic_without_memory),
        TEST(folders),
        TEST(new_folders_are_synced),
        TEST(a_folder_is_claimed_once),
        TEST(many_names_are_sorted),
        TEST(listing_without_memory),
        TEST(rename_and_space),
        TEST(write_in_the_current_folder),
        TEST(join),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
