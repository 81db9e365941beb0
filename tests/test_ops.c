/* Every operation of device/ops.def on every device: the contract, the reference device as oracle, finite differences
 * of every backward, the same bits for any number of threads. An operation without a psk_op_test does not link.
 * test_ops PATTERN runs those whose name fits: test_ops "matmul*". */
#include "ops_harness.h"

#include <stdlib.h>
#include <string.h>

#define MAX_THREADS_TRIED 3

static const char *const isas[] = {"baseline", "avx2", "avx512", "amx"};
#define ISAS (sizeof isas / sizeof isas[0])

static psk_device *reference;
static psk_device *cpu[MAX_THREADS_TRIED]; /* with 1, 2 and 3 threads */
static psk_device *cpu_isa[ISAS];          /* NULL where the machine lacks it */

static int create_devices(void **state) {
    (void)state;
    psk_status status = psk_device_create("reference", 1, &reference);
    for (int i = 0; status == PSK_OK && i < MAX_THREADS_TRIED; i++)
        status = psk_device_create("cpu", i + 1, &cpu[i]);
    for (size_t i = 0; status == PSK_OK && i < ISAS; i++) {
        setenv("PSK_CPU_ISA", isas[i], 1);
        const psk_status found = psk_device_create("cpu", 2, &cpu_isa[i]);
        status = i == 0 ? found : PSK_OK; /* the baseline is everywhere */
    }
    unsetenv("PSK_CPU_ISA");
    if (status != PSK_OK)
        print_error("%s\n", psk_error_message());
    return status == PSK_OK ? 0 : -1;
}

static int free_devices(void **state) {
    (void)state;
    psk_device_free(reference);
    for (int i = 0; i < MAX_THREADS_TRIED; i++)
        psk_device_free(cpu[i]);
    for (size_t i = 0; i < ISAS; i++)
        psk_device_free(cpu_isa[i]);
    return 0;
}

static void contract_of_the_reference(void **test) {
    ops_expect_contract(*test, reference, reference);
}

/* With every instruction set of this machine. */
static void contract_of_the_cpu(void **test) {
    for (size_t i = 0; i < ISAS; i++)
        if (cpu_isa[i] != NULL)
            ops_expect_contract(*test, cpu_isa[i], reference);
}

static void same_bits_for_any_number_of_threads(void **test) {
    ops_expect_same_bits(*test, cpu, MAX_THREADS_TRIED);
}

static void backward_is_the_gradient(void **state) {
    const psk_op_test *test = *state;
    static const char suffix[] = "_backward";
    const size_t length = strlen(test->name);
    const bool backward = length > strlen(suffix) && strcmp(test->name + length - strlen(suffix), suffix) == 0;
    if (backward)
        assert_true(test->gradient_case_count > 0);
    if (test->gradient != NULL)
        ops_expect_gradient(test, reference);
}

static void check_names_the_missing_operation(void **state) {
    (void)state;
    psk_ops ops = *reference->ops;
    PSK_TEST_OK(psk_ops_check(&ops, "trial"));
#define PSK_OP(op)                                                                                                     \
    ops = *reference->ops;                                                                                             \
    ops.op = NULL;                                                                                                     \
    PSK_TEST_FAILS(psk_ops_check(&ops, "trial"), PSK_ERROR_INTERNAL, "\"trial\"", "\"" #op "\"");
#include "device/ops.def"
#undef PSK_OP
}

/* `function` once for each operation. */
#define FOR_EACH(function, op)                                                                                         \
    { #op ": " #function, function, NULL, NULL, (void *)&psk_op_test_##op }

int main(int argc, char **argv) {
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);

    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_names_the_missing_operation),
#define PSK_OP(op)                                                                                                     \
    FOR_EACH(contract_of_the_reference, op), FOR_EACH(contract_of_the_cpu, op),                                        \
        FOR_EACH(same_bits_for_any_number_of_threads, op), FOR_EACH(backward_is_the_gradient, op),
#include "device/ops.def"
#undef PSK_OP
    };
    return cmocka_run_group_tests_name("ops", tests, create_devices, free_devices);
}
