/* What polysketch shows on a terminal, of any width. */
#include "program_support.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define TRAIN                                                                                                          \
    "train --data tokens --preset tiny --width 16 --heads 2 --layers 1 --context 32 --block-size 8 --sketch-size 4 "   \
    "--threads 1 --steps 40 --batch-size 2 --eval-every 10 "

static int set_up(void **state) {
    (void)state;
    folder = psk_test_folder();
    write_story("story.txt");
    expect_run("prepare story.txt --output tokens --valid 0.2", 0);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    psk_test_remove_folder(folder);
    return 0;
}

/* What comes out of the terminal end `master`, until the other end is closed everywhere. */
static void read_terminal(int master, char *text, size_t size) {
    size_t used = 0;
    for (ssize_t got; (got = read(master, text + used, size - 1 - used)) > 0;)
        used += (size_t)got;
    text[used] = '\0';
}

/* Runs the program with standard error on a terminal, whose contents go to `text`. */
static void run_on_terminal(unsigned short columns, const char *arguments, char *text, size_t size) {
    const struct winsize window = {.ws_row = 24, .ws_col = columns};
    char command[1024];
    int status;
    const int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0)
        skip(); /* a system without terminals, as in a bare chroot */
    const int terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
    assert_true(terminal >= 0);
    assert_int_equal(ioctl(terminal, TIOCSWINSZ, &window), 0);
    snprintf(command, sizeof command, "cd '%s' && exec '%s' %s >out", folder, PSK_PROGRAM, arguments);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(terminal, STDERR_FILENO);
        close(terminal);
        close(master);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(terminal);
    read_terminal(master, text, size);
    close(master);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* The time that is left stays when others go, and no line is wrapped. */
static void test_narrow(void **state) {
    (void)state;
    static const struct {
        unsigned short columns;
        const char *part; /* that there is room for */
    } cases[] = {{120, "tok/s "}, {60, "valid "}, {40, "loss "}, {24, "step "}};
    static char text[65536];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char arguments[256], *rest = NULL;
        int lines = 0;
        snprintf(arguments, sizeof arguments, TRAIN "--output run%zu", i);
        run_on_terminal(cases[i].columns, arguments, text, sizeof text);
        for (char *line = strtok_r(text, "\r\n", &rest); line; line = strtok_r(NULL, "\r\n", &rest)) {
            if (strncmp(line, "\033[Kstep ", 8) != 0)
                continue;
            const char *const shown = line + 3;
            assert_true(strlen(shown) < cases[i].columns);
            assert_string_equal(shown + strlen(shown) - 5, " left");
            lines += strstr(shown, cases[i].part) != NULL;
        }
        assert_true(lines > 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_narrow)};
    return cmocka_run_group_tests_name("program_terminal", tests, set_up, tear_down);
}
