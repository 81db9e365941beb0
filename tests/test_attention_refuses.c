/* What attention refuses: configurations, shapes, calls, and a machine without memory. */
#include "attention_cases.h"

static psk_device *refusing_device; /* of the test at work */

static psk_status create(const attention_case *c) {
    psk_attention *attention;
    const psk_status status = psk_attention_create(refusing_device, &c->config, &c->shape, &attention);
    assert_true((status == PSK_OK) == (attention != NULL));
    psk_attention_free(attention);
    return status;
}

#define REFUSED(change, expected, ...)            REFUSED_OF(7, change, expected, __VA_ARGS__)
#define REFUSED_LOCAL_ONLY(change, expected, ...) REFUSED_OF(11, change, expected, __VA_ARGS__)
#define REFUSED_OF(variant_index, change, expected, ...)                                                               \
    do {                                                                                                               \
        attention_case c = make_case(&variants[variant_index], 16, 10, 12, 0);                                         \
        PSK_TEST_OK(create(&c));                                                                                       \
        change;                                                                                                        \
        PSK_TEST_FAILS(create(&c), expected, __VA_ARGS__);                                                             \
    } while (0)

static void create_refuses(void **state) {
    (void)state;
    refusing_device = open_device("reference", 1);
    REFUSED(c.config.degree = 3, PSK_ERROR_ARGUMENT, "degree", "3", "even");
    REFUSED(c.config.degree = 0, PSK_ERROR_ARGUMENT, "degree", "0");
    REFUSED(c.config.degree = -2, PSK_ERROR_ARGUMENT, "degree", "-2");
    REFUSED(c.config.degree = INT64_MAX - 1, PSK_ERROR_ARGUMENT, "degree", "from 2 to 64");
    REFUSED(c.config.sketch_size = c.shape.r = INT64_C(1) << 31, PSK_ERROR_ARGUMENT, "size 23", "larger than memory");
    REFUSED(c.config.block_size = 0, PSK_ERROR_ARGUMENT, "block_size", "0");
    REFUSED(c.config.sketch_size = 0, PSK_ERROR_ARGUMENT, "sketch_size", "0");
    REFUSED(c.config.mechanism = (psk_mechanism)17, PSK_ERROR_ARGUMENT, "mechanism", "17");
    REFUSED(c.config.sketch = (psk_sketch)18, PSK_ERROR_ARGUMENT, "sketch", "18");
    REFUSED(c.config.local = (psk_local)19, PSK_ERROR_ARGUMENT, "local", "19");
    REFUSED(c.config.direction = (psk_direction)20, PSK_ERROR_ARGUMENT, "direction", "20");
    REFUSED(c.config.denominator_bias = -1.0f, PSK_ERROR_ARGUMENT, "denominator_bias", "-1");
    REFUSED(c.config.denominator_bias = NAN, PSK_ERROR_ARGUMENT, "denominator_bias", "nan");
    REFUSED(c.config.far_scale = INFINITY, PSK_ERROR_ARGUMENT, "far_scale", "inf");
    REFUSED(c.config.direction = PSK_BIDIRECTIONAL, PSK_ERROR_UNSUPPORTED, "local", "window", "bidirectional");
    REFUSED(c.config.local_only = 1, PSK_ERROR_UNSUPPORTED, "local_only is 1", "polysketch");
    REFUSED_LOCAL_ONLY(c.config.local = PSK_LOCAL_NONE, PSK_ERROR_ARGUMENT, "local_only is 1", "local is none");
    REFUSED_LOCAL_ONLY(c.config.local = (psk_local)19, PSK_ERROR_ARGUMENT, "local is 19");
    REFUSED_LOCAL_ONLY(c.config.block_size = 0, PSK_ERROR_ARGUMENT, "block_size", "0");
    REFUSED_LOCAL_ONLY(c.config.direction = PSK_BIDIRECTIONAL, PSK_ERROR_UNSUPPORTED, "window", "bidirectional");
    REFUSED(c.shape.B = 0, PSK_ERROR_ARGUMENT, "B", "0");
    REFUSED(c.shape.H = 0, PSK_ERROR_ARGUMENT, "H", "0");
    REFUSED(c.shape.Hkv = -1, PSK_ERROR_ARGUMENT, "Hkv", "-1");
    REFUSED(c.shape.Nq = 0, PSK_ERROR_ARGUMENT, "Nq", "0");
    REFUSED(c.shape.Nk = 0, PSK_ERROR_ARGUMENT, "Nk", "0");
    REFUSED(c.shape.h = 0, PSK_ERROR_ARGUMENT, "h", "0");
    REFUSED(c.shape.d = 0, PSK_ERROR_ARGUMENT, "d", "0");
    REFUSED(c.shape.r = 4, PSK_ERROR_ARGUMENT, "r", "4", "3");
    REFUSED(c.shape.H = 5; c.shape.Hkv = 3, PSK_ERROR_ARGUMENT, "H", "5", "Hkv", "3");
    REFUSED(c.shape.Nq = 13, PSK_ERROR_ARGUMENT, "Nq", "13", "12");
    REFUSED(c.config.mechanism = PSK_SOFTMAX, PSK_ERROR_ARGUMENT, "r", "0");
    psk_device_free(refusing_device);
}

/* Tries forward and backward; both must refuse alike, unless forward does not read what is wrong. */
#define CALL_REFUSED(variant_index, change, ...)                                                                       \
    do {                                                                                                               \
        attention_case c = packed_case(variant_index, 0);                                                              \
        c.cu_seqlens = NULL;                                                                                           \
        psk_attention_tensors t = make_tensors(&c), u = t;                                                             \
        psk_attention *attention;                                                                                      \
        PSK_TEST_OK(psk_attention_create(refusing_device, &c.config, &c.shape, &attention));                           \
        change;                                                                                                        \
        const psk_status forward = psk_attention_forward(attention, &u);                                               \
        PSK_TEST_FAILS(forward == PSK_OK ? psk_attention_backward(attention, &u) : forward, PSK_ERROR_ARGUMENT,        \
                       __VA_ARGS__);                                                                                   \
        psk_attention_free(attention);                                                                                 \
        free_tensors(&t);                                                                                              \
    } while (0)

static void calls_refuse(void **state) {
    (void)state;
    static const int64_t late[] = {1, 42, 84}, early[] = {0, 42, 83}, back[] = {0, 20, 20, 42, 84};
    static const int64_t across[] = {0, 41, 43, 84}, right[] = {0, 42, 84};
    float number = 0;
    refusing_device = open_device("reference", 1);
    CALL_REFUSED(7, u.q = NULL, "q", "NULL");
    CALL_REFUSED(7, u.a = NULL, "a", "NULL");
    CALL_REFUSED(0, u.v = NULL, "v", "NULL");
    CALL_REFUSED(0, u.normaliser = NULL, "normaliser", "NULL");
    CALL_REFUSED(7, u.dout = NULL, "dout", "NULL");
    CALL_REFUSED(7, u.db = NULL, "db", "NULL");
    CALL_REFUSED(0, u.state1 = &number, "state1", "softmax");
    CALL_REFUSED(2, u.dstate1 = &number, "dstate1", "polynomial");
    CALL_REFUSED(11, u.state1 = &number, "state1", "softmax");
    CALL_REFUSED(7, u.cu_seqlens = right; u.documents = 2; u.state0 = &number, "state0", "cu_seqlens");
    CALL_REFUSED(7, u.cu_seqlens = late; u.documents = 2, "cu_seqlens", "1", "84");
    CALL_REFUSED(7, u.cu_seqlens = early; u.documents = 2, "cu_seqlens", "83", "84");
    CALL_REFUSED(7, u.cu_seqlens = back; u.documents = 4, "cu_seqlens[2]", "20", "increase");
    CALL_REFUSED(7, u.cu_seqlens = across; u.documents = 3, "41", "43", "42");
    CALL_REFUSED(7, u.cu_seqlens = right; u.documents = 1, "documents", "1", "2");
    psk_device_free(refusing_device);
}

/* A case and its tensors, made before allocations fail. */
typedef struct prepared_call {
    attention_case c;
    psk_attention_tensors t;
} prepared_call;

static psk_status create_run_and_free(void *argument) {
    const prepared_call *call = argument;
    psk_attention *attention;
    PSK_TRY(psk_attention_create(refusing_device, &call->c.config, &call->c.shape, &attention));
    const psk_status status = psk_attention_forward(attention, &call->t);
    psk_attention_free(attention);
    return status;
}

static void create_survives_failing_allocations(void **state) {
    (void)state;
    prepared_call call = {.c = make_case(&variants[7], 16, 10, 12, 0)};
    call.t = make_tensors(&call.c);
    refusing_device = open_device("reference", 1);
    assert_true(psk_test_allocation_failures(create_run_and_free, &call) >= 3);
    psk_device_free(refusing_device);
    free_tensors(&call.t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_refuses),
        cmocka_unit_test(calls_refuse),
        cmocka_unit_test(create_survives_failing_allocations),
    };
    return cmocka_run_group_tests_name("attention refuses", tests, NULL, NULL);
}
