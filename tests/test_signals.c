/* Signals may come at any time: Ctrl-C while a model trains, a profiler's timer. A product that is interrupted again
 * and again gives the same bits as one that is not, and leaves the heap whole. */
#include "device/device.h"
#include "support.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#define SEED     20261124u
#define LARGEST  (256 * 1024)
#define REPEATS  400
#define INTERVAL 500 /* microseconds of processor time between two signals */

static volatile sig_atomic_t signals;

static void count_signal(int number) {
    (void)number;
    signals++;
}

static void every(suseconds_t microseconds) {
    const struct itimerval interval = {{0, microseconds}, {0, microseconds}};
    assert_int_equal(setitimer(ITIMER_PROF, &interval, NULL), 0);
}

/* Shapes at which oneDNN 2.6 moves its stack pointer into the heap. */
static const struct {
    int64_t m, n, k;
    psk_orientation a, b;
} shapes[] = {{200, 200, 200, PSK_TRANSPOSED, PSK_TRANSPOSED},
              {64, 192, 1024, PSK_TRANSPOSED, PSK_PLAIN},
              {256, 64, 172, PSK_PLAIN, PSK_TRANSPOSED}};
#define SHAPES (sizeof shapes / sizeof *shapes)

static psk_status multiply(psk_device *device, size_t s, const float *a, const float *b, float *c) {
    const int64_t m = shapes[s].m, n = shapes[s].n, k = shapes[s].k;
    PSK_RUN(device, matmul, .batch = 1, .m = m, .n = n, .k = k, .a = a, .lda = shapes[s].a == PSK_PLAIN ? k : m,
            .a_orientation = shapes[s].a, .b = b, .ldb = shapes[s].b == PSK_PLAIN ? n : k, .b_orientation = shapes[s].b,
            .c = c, .ldc = n, .alpha = 1.0f);
    return PSK_OK;
}

static void products_survive_signals(void **state) {
    (void)state;
    struct sigaction action = {.sa_handler = count_signal, .sa_flags = SA_RESTART}, before;
    psk_device *device;
    PSK_TEST_OK(psk_device_create("cpu", 2, &device));
    float *a = psk_test_random(LARGEST, SEED, "a"), *b = psk_test_random(LARGEST, SEED, "b");
    assert_int_equal(sigaction(SIGPROF, &action, &before), 0);
    for (size_t s = 0; s < SHAPES; s++) {
        float *want = psk_test_buffer(shapes[s].m * shapes[s].n), *got = psk_test_buffer(shapes[s].m * shapes[s].n);
        const size_t bytes = (size_t)(shapes[s].m * shapes[s].n) * sizeof(float);
        PSK_TEST_OK(multiply(device, s, a, b, want));
        every(INTERVAL);
        for (int i = 0; i < REPEATS; i++) {
            PSK_TEST_OK(multiply(device, s, a, b, got));
            assert_memory_equal(got, want, bytes);
            void *volatile block = malloc(200000); /* the allocator notices a damaged neighbour */
            free(block);
        }
        every(0);
        psk_test_free(want);
        psk_test_free(got);
    }
    assert_true(signals > 10);
    assert_int_equal(sigaction(SIGPROF, &before, NULL), 0);
    psk_test_free(a);
    psk_test_free(b);
    psk_device_free(device);
}

/* The mask of the caller is as it was. */
static void products_leave_the_mask_alone(void **state) {
    (void)state;
    psk_device *device;
    sigset_t blocked, before, after;
    float *a = psk_test_random(LARGEST, SEED, "a"), *c = psk_test_buffer(shapes[0].m * shapes[0].n);
    PSK_TEST_OK(psk_device_create("cpu", 1, &device));
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    assert_int_equal(sigprocmask(SIG_BLOCK, &blocked, &before), 0);
    PSK_TEST_OK(multiply(device, 0, a, a, c));
    assert_int_equal(sigprocmask(SIG_SETMASK, &before, &after), 0);
    assert_true(sigismember(&after, SIGUSR1));
    assert_false(sigismember(&after, SIGINT));
    assert_false(sigismember(&after, SIGTERM));
    psk_test_free(a);
    psk_test_free(c);
    psk_device_free(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(products_survive_signals),
                                       cmocka_unit_test(products_leave_the_mask_alone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
