/* Decoding sessions: however a sequence is cut, the logits are those of the parallel form. */
#include "session_fixture.h"

/* Pieces of 1 ... largest tokens. */
static double random_cut(const session_fixture *f, uint64_t seed, int64_t largest) {
    psk_rng rng = psk_rng_make(FIXTURE_SEED, 1000 + seed);
    psk_session *session = session_fixture_open(f);
    double worst = 0;
    while (psk_session_length(session) < f->N) {
        const int64_t piece = 1 + (int64_t)psk_rng_below(&rng, (uint64_t)largest);
        const int64_t left = f->N - psk_session_length(session);
        session_fixture_append(f, session, piece < left ? piece : left, &worst);
    }
    psk_session_free(session);
    return worst;
}

static void check_cuts(size_t device, size_t form) {
    const psk_model_config config = fixture_config(form);
    session_fixture f = session_fixture_begin(device, &config, 61);
    const int64_t largest[] = {1, 2, 6, 7, 8, 15, 61}; /* b - 1, b, b + 1, 2 b + 1, everything */
    double worst = 0;
    for (size_t i = 0; i < sizeof largest / sizeof largest[0]; i++) {
        const double error = random_cut(&f, i, largest[i]);
        if (!(error <= worst))
            worst = error;
    }
    printf("  cuts, %s, %-36s %.1e\n", fixture_devices[device], fixture_name(form), worst);
    PSK_TEST_AT_MOST(worst, SESSION_LIMIT);
    session_fixture_end(&f);
}

static void test_any_cut_gives_the_logits_of_the_parallel_form(void **state) {
    (void)state;
    for (size_t device = 0; device < FIXTURE_DEVICES; device++)
        for (size_t form = 0; form < FIXTURE_FORMS; form++)
            check_cuts(device, form);
}

/* Prompts of more than a chunk, caches that grow, blocks of nearly a chunk. */
static void test_prompts_longer_than_a_chunk(void **state) {
    (void)state;
    for (size_t form = 0; form < FIXTURE_FORMS; form++) {
        psk_model_config config = fixture_config(form);
        config.attention.block_size = 500;
        session_fixture f = session_fixture_begin(1, &config, 2 * PSK_SESSION_CHUNK + 700);
        psk_session *session = session_fixture_open(&f);
        double worst = 0;
        const int64_t pieces[] = {PSK_SESSION_CHUNK + 1, 1, 498, 1, 650};
        for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++)
            session_fixture_append(&f, session, pieces[i], &worst);
        session_fixture_append(&f, session, f.N - psk_session_length(session), &worst);
        printf("  long prompt, %-36s %.1e\n", fixture_name(form), worst);
        PSK_TEST_AT_MOST(worst, SESSION_LIMIT);
        psk_session_free(session);
        session_fixture_end(&f);
    }
}

/* The logits of every second token of one session, with another one in between. */
static void test_interleaved_sessions_equal_serial_ones(void **state) {
    (void)state;
    for (size_t form = 0; form < FIXTURE_FORMS; form++) {
        const psk_model_config config = fixture_config(form);
        session_fixture f = session_fixture_begin(1, &config, 40);
        int32_t *other = fixture_tokens(f.N, f.V, 2);
        psk_session *alone = session_fixture_open(&f), *first = session_fixture_open(&f),
                    *second = session_fixture_open(&f);
        float *want = psk_test_buffer(f.V), *got = psk_test_buffer(f.V);
        for (int64_t t = 0; t < f.N; t += 4) {
            PSK_TEST_OK(psk_session_append(alone, f.tokens + t, 4, want));
            PSK_TEST_OK(psk_session_append(first, f.tokens + t, 4, got));
            PSK_TEST_OK(psk_session_append(second, other + t, t % 8 == 0 ? 4 : 3, NULL));
            assert_memory_equal(got, want, (size_t)f.V * sizeof(float));
        }
        psk_test_free(got);
        psk_test_free(want);
        psk_session_free(second);
        psk_session_free(first);
        psk_session_free(alone);
        free(other);
        session_fixture_end(&f);
    }
}

static void test_state_is_constant_for_linear_forms(void **state) {
    (void)state;
    for (size_t form = 0; form < FIXTURE_FORMS; form++) {
        const psk_model_config config = fixture_config(form);
        const bool linear = psk_attention_uses_ab(&config.attention) || config.attention.local_only;
        session_fixture f = session_fixture_begin(1, &config, 3 * PSK_SESSION_CHUNK);
        psk_session *session = session_fixture_open(&f);
        const int64_t before = psk_session_bytes(session);
        PSK_TEST_OK(psk_session_append(session, f.tokens, f.N, NULL));
        assert_int_equal(before > 0, linear);
        assert_int_equal(psk_session_bytes(session) == before, linear);
        assert_int_equal(psk_session_bytes(session), psk_session_bytes_at(f.model, f.N));
        psk_session_reset(session);
        assert_int_equal(psk_session_bytes(session), psk_session_bytes_at(f.model, 0));
        psk_session_free(session);
        session_fixture_end(&f);
    }
}

static void test_wrong_tokens_are_refused_and_change_nothing(void **state) {
    (void)state;
    const psk_model_config config = fixture_config(FIXTURE_FORMS - 1);
    session_fixture f = session_fixture_begin(1, &config, 20);
    psk_session *session = session_fixture_open(&f);
    double worst = 0;
    session_fixture_append(&f, session, 9, &worst);
    PSK_TEST_FAILS(psk_session_append(session, (const int32_t[]){3, 29}, 2, NULL), PSK_ERROR_ARGUMENT, "token 1 is 29",
                   "0 ... 28");
    PSK_TEST_FAILS(psk_session_append(session, (const int32_t[]){-1}, 1, NULL), PSK_ERROR_ARGUMENT, "token 0 is -1");
    PSK_TEST_FAILS(psk_session_append(session, f.tokens, 0, NULL), PSK_ERROR_ARGUMENT, "0 tokens");
    session_fixture_append(&f, session, 11, &worst);
    PSK_TEST_AT_MOST(worst, SESSION_LIMIT);
    psk_session_free(session);
    psk_session_free(NULL);
    session_fixture_end(&f);
}

static psk_status read_prompt(void *argument) {
    const session_fixture *f = argument;
    psk_session *session;
    PSK_TRY(psk_session_create(f->model, &session));
    const psk_status status = psk_session_append(session, f->tokens, f->N, NULL);
    psk_session_free(session);
    return status;
}

static void test_out_of_memory_is_an_error(void **state) {
    (void)state;
    const size_t forms[] = {0, 2, 4, FIXTURE_FORMS - 1}; /* a cache that grows, a state, a ring, both of these */
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        const psk_model_config config = fixture_config(forms[i]);
        session_fixture f = session_fixture_begin(0, &config, 2 * PSK_SESSION_CHUNK + 1);
        assert_true(psk_test_allocation_failures(read_prompt, &f) > 0);
        session_fixture_end(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_cut_gives_the_logits_of_the_parallel_form),
        cmocka_unit_test(test_prompts_longer_than_a_chunk),
        cmocka_unit_test(test_interleaved_sessions_equal_serial_ones),
        cmocka_unit_test(test_state_is_constant_for_linear_forms),
        cmocka_unit_test(test_wrong_tokens_are_refused_and_change_nothing),
        cmocka_unit_test(test_out_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
