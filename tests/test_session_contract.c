/* The contract of sessions as a property over random walks: a sequence that is read in pieces, stepped beside
 * strangers, copied, saved and restored on the way has the logits of the parallel form. A step's row has the same bits
 * whatever is beside it. */
#include "session_fixture.h"

#define STRANGERS 5

/* A walk along the sequence of a fixture. */
typedef struct walk {
    const session_fixture *f;
    psk_rng rng;
    psk_session *session, *strangers[STRANGERS];
    float *logits; /* (STRANGERS + 1) x V */
    double worst;
} walk;

static int64_t draw(walk *w, int64_t limit) {
    return (int64_t)psk_rng_below(&w->rng, (uint64_t)limit);
}

static void compare(walk *w, const float *logits) {
    const int64_t last = psk_session_length(w->session) - 1;
    const double error = psk_test_relative_rms(logits, w->f->logits + last * w->f->V, w->f->V);
    if (!(error <= w->worst))
        w->worst = error;
}

static void piece(walk *w) {
    const int64_t b = w->f->model->config.attention.block_size, left = w->f->N - psk_session_length(w->session);
    const int64_t sizes[] = {
        1, b - 1, b, b + 1, 2 * b, PSK_SESSION_CHUNK - 1, PSK_SESSION_CHUNK, PSK_SESSION_CHUNK + 1, 1 + draw(w, left)};
    int64_t count = sizes[draw(w, sizeof sizes / sizeof sizes[0])];
    count = count < 1 ? 1 : count > left ? left : count;
    PSK_TEST_OK(psk_session_append(w->session, w->f->tokens + psk_session_length(w->session), count, w->logits));
    compare(w, w->logits);
}

/* One token beside some strangers, at a random place among them. */
static void step(walk *w) {
    psk_session *together[STRANGERS + 1];
    int32_t tokens[STRANGERS + 1];
    const int64_t others = draw(w, STRANGERS + 1), place = draw(w, others + 1);
    for (int64_t i = 0, stranger = 0; i <= others; i++) {
        together[i] = i == place ? w->session : w->strangers[stranger++];
        tokens[i] = i == place ? w->f->tokens[psk_session_length(w->session)] : (int32_t)draw(w, w->f->V);
    }
    PSK_TEST_OK(psk_session_step(together, others + 1, tokens, w->logits));
    compare(w, w->logits + place * w->f->V);
}

static void restore(walk *w) {
    void *bytes;
    size_t size;
    psk_session *restored;
    PSK_TEST_OK(psk_session_pack(w->session, &bytes, &size));
    PSK_TEST_OK(psk_session_unpack(w->f->model, bytes, size, &restored));
    psk_buffer_free(bytes);
    assert_int_equal(psk_session_length(restored), psk_session_length(w->session));
    assert_int_equal(psk_session_bytes(restored), psk_session_bytes_at(w->f->model, psk_session_length(restored)));
    psk_session_free(w->session);
    w->session = restored;
}

/* The copy goes on; what the original does afterwards is not the copy's concern. */
static void copy(walk *w) {
    psk_session *clone;
    PSK_TEST_OK(psk_session_clone(w->session, &clone));
    PSK_TEST_OK(psk_session_append(w->session, w->f->tokens, 3, NULL));
    psk_session_free(w->session);
    w->session = clone;
}

/* A stranger leaves, another comes. */
static void change_strangers(walk *w) {
    const int64_t i = draw(w, STRANGERS);
    psk_session_free(w->strangers[i]);
    w->strangers[i] = session_fixture_open(w->f);
    PSK_TEST_OK(psk_session_append(w->strangers[i], w->f->tokens, 1 + draw(w, 20), NULL));
}

static double walk_along(const session_fixture *f, uint64_t seed, int64_t steps_in_ten) {
    walk w = {.f = f, .rng = psk_rng_make(FIXTURE_SEED, 2000 + seed), .session = session_fixture_open(f)};
    w.logits = psk_test_buffer((STRANGERS + 1) * f->V);
    for (int64_t i = 0; i < STRANGERS; i++)
        w.strangers[i] = session_fixture_open(f);
    while (psk_session_length(w.session) < f->N) {
        const int64_t choice = draw(&w, 10);
        if (choice < steps_in_ten)
            step(&w);
        else
            piece(&w);
        if (choice % 5 == 0)
            change_strangers(&w);
        if (choice % 5 == 1)
            restore(&w);
        if (choice % 5 == 2)
            copy(&w);
    }
    psk_session_free(w.session);
    for (int64_t i = 0; i < STRANGERS; i++)
        psk_session_free(w.strangers[i]);
    psk_test_free(w.logits);
    return w.worst;
}

static void test_any_walk_has_the_logits_of_the_parallel_form(void **state) {
    (void)state;
    for (size_t device = 0; device < FIXTURE_DEVICES; device++)
        for (size_t form = 0; form < FIXTURE_FORMS; form++) {
            const psk_model_config config = fixture_config(form);
            session_fixture f = session_fixture_begin(device, &config, 61);
            double worst = 0;
            for (uint64_t seed = 0; seed < 6; seed++) {
                const double error = walk_along(&f, seed, seed < 2 ? 10 : 7);
                worst = error <= worst ? worst : error;
            }
            printf("  walks, %s, %-36s %.1e\n", fixture_devices[device], fixture_name(form), worst);
            PSK_TEST_AT_MOST(worst, SESSION_LIMIT);
            session_fixture_end(&f);
        }
}

/* Pieces around the size of a chunk, caches that grow, rings of several sizes. */
static void test_long_walks(void **state) {
    (void)state;
    for (size_t form = 0; form < FIXTURE_FORMS; form++) {
        psk_model_config config = fixture_config(form);
        config.attention.block_size = 33 + 7 * (int64_t)form;
        session_fixture f = session_fixture_begin(1, &config, 2 * PSK_SESSION_CHUNK + 300);
        const double worst = walk_along(&f, 100 + form, 8);
        printf("  long walk, %-36s %.1e\n", fixture_name(form), worst);
        PSK_TEST_AT_MOST(worst, SESSION_LIMIT);
        session_fixture_end(&f);
    }
}

#define MOST_SESSIONS 70 /* more than one pass of a step takes */

/* Sessions of different lengths, each stepped alone and beside the others. */
static void check_bits(const session_fixture *f, const int64_t *batches, size_t batch_count) {
    psk_session *sessions[MOST_SESSIONS], *alone;
    int32_t tokens[MOST_SESSIONS];
    float *got = psk_test_buffer(MOST_SESSIONS * f->V), *want = psk_test_buffer(f->V);
    for (int64_t i = 0; i < MOST_SESSIONS; i++) {
        sessions[i] = session_fixture_open(f);
        PSK_TEST_OK(psk_session_append(sessions[i], f->tokens, 2 + i % 29, NULL));
        tokens[i] = (int32_t)((i * i + 3) % f->V);
    }
    for (size_t k = 0; k < batch_count; k++) {
        psk_session *before[MOST_SESSIONS];
        for (int64_t i = 0; i < batches[k]; i++)
            PSK_TEST_OK(psk_session_clone(sessions[i], &before[i]));
        PSK_TEST_OK(psk_session_step(sessions, batches[k], tokens, got));
        for (int64_t i = 0; i < batches[k]; i++) {
            alone = before[i];
            PSK_TEST_OK(psk_session_step(&alone, 1, tokens + i, want));
            assert_memory_equal(got + i * f->V, want, (size_t)f->V * sizeof(float));
            psk_session_free(alone);
        }
    }
    for (int64_t i = 0; i < MOST_SESSIONS; i++)
        psk_session_free(sessions[i]);
    psk_test_free(want);
    psk_test_free(got);
}

/* In both precisions, where the machine has both. */
static void test_a_row_of_a_step_has_the_bits_of_the_session_alone(void **state) {
    (void)state;
    const int64_t batches[] = {1, 2, 8, 32, MOST_SESSIONS};
    for (size_t form = 0; form < FIXTURE_FORMS; form++) {
        const psk_model_config config = fixture_config(form);
        session_fixture f = session_fixture_begin(1, &config, 61);
        check_bits(&f, batches, sizeof batches / sizeof batches[0]);
        if (psk_device_set_precision(f.device, PSK_PRECISION_BF16) == PSK_OK)
            check_bits(&f, batches, sizeof batches / sizeof batches[0]);
        session_fixture_end(&f);
    }
}

/* The size of a real model's layers, so that every product has whole tiles and edges. */
static void test_bits_of_a_wider_model(void **state) {
    (void)state;
    const int64_t batches[] = {2, 8, 32};
    psk_model_config config = fixture_config(FIXTURE_FORMS - 1);
    config.vocab_size = 301;
    config.n_embd = 132;
    config.n_head = config.n_kv_head = 3;
    config.attention.sketch_size = 32;
    session_fixture f = session_fixture_begin(1, &config, 31);
    check_bits(&f, batches, sizeof batches / sizeof batches[0]);
    if (psk_device_set_precision(f.device, PSK_PRECISION_BF16) == PSK_OK)
        check_bits(&f, batches, sizeof batches / sizeof batches[0]);
    session_fixture_end(&f);
}

/* Steps in bfloat16, against the parallel form in float32, have at most twice the error of the parallel form in
 * bfloat16. The model is wide enough for that to round its products. */
static void test_steps_in_bfloat16(void **state) {
    (void)state;
    for (size_t form = 0; form < FIXTURE_FORMS; form++) {
        psk_model_config config = fixture_config(form);
        config.vocab_size = 301;
        config.n_embd = 128;
        config.n_head = config.n_kv_head = 2;
        config.attention.sketch_size = fixture_forms[form].sketch == PSK_SKETCH_RANDOM_HADAMARD ? 32 : 31;
        session_fixture f = session_fixture_begin(1, &config, 96);
        float *parallel = psk_test_buffer(f.N * f.V), *stepped = psk_test_buffer(f.N * f.V);
        if (psk_device_set_precision(f.device, PSK_PRECISION_BF16) == PSK_OK) {
            psk_session *session = session_fixture_open(&f);
            PSK_TEST_OK(psk_model_logits(f.model, 1, f.N, f.tokens, parallel));
            for (int64_t t = 0; t < f.N; t++)
                PSK_TEST_OK(psk_session_step(&session, 1, f.tokens + t, stepped + t * f.V));
            const double plain = psk_test_relative_rms(parallel, f.logits, f.N * f.V);
            const double error = psk_test_relative_rms(stepped, f.logits, f.N * f.V);
            printf("  bfloat16, %-36s steps %.1e, parallel form %.1e\n", fixture_name(form), error, plain);
            psk_session_free(session);
            PSK_TEST_AT_MOST(error, 2 * plain);
        }
        psk_test_free(stepped);
        psk_test_free(parallel);
        session_fixture_end(&f);
    }
}

/* A visitor that compares what it sees, and stops where it is told. */
typedef struct visit {
    const session_fixture *f;
    int64_t next, stop;
    double worst;
} visit;

static int see_logits(void *user, int64_t index, const float *logits) {
    visit *v = user;
    assert_int_equal(index, v->next);
    v->next++;
    const double error = psk_test_relative_rms(logits, v->f->logits + index * v->f->V, v->f->V);
    v->worst = error <= v->worst ? v->worst : error;
    return index == v->stop;
}

static void test_append_each_shows_the_logits_of_every_token(void **state) {
    (void)state;
    for (size_t form = 0; form < FIXTURE_FORMS; form += 5) {
        const psk_model_config config = fixture_config(form);
        session_fixture f = session_fixture_begin(1, &config, PSK_SESSION_CHUNK + 99);
        psk_session *session = session_fixture_open(&f);
        visit v = {.f = &f, .stop = -1};
        PSK_TEST_OK(psk_session_append_each(session, f.tokens, f.N, see_logits, &v));
        assert_int_equal(v.next, f.N);
        PSK_TEST_AT_MOST(v.worst, SESSION_LIMIT);
        psk_session_reset(session);
        assert_int_equal(psk_session_length(session), 0);
        v.next = 0;
        v.stop = 70;
        PSK_TEST_FAILS(psk_session_append_each(session, f.tokens, f.N, see_logits, &v), PSK_ERROR_INTERRUPTED,
                       "token 70");
        PSK_TEST_FAILS(psk_session_append_each(session, f.tokens, 0, see_logits, &v), PSK_ERROR_ARGUMENT, "0 tokens");
        psk_session_free(session);
        session_fixture_end(&f);
    }
}

static void test_wrong_steps_are_refused_and_change_nothing(void **state) {
    (void)state;
    const psk_model_config config = fixture_config(FIXTURE_FORMS - 1);
    session_fixture f = session_fixture_begin(1, &config, 20);
    psk_model *other = fixture_model(f.device, &config);
    psk_session *first = session_fixture_open(&f), *second = session_fixture_open(&f), *foreign;
    PSK_TEST_OK(psk_session_create(other, &foreign));
    const int32_t tokens[] = {1, 2}, wrong[] = {1, 29};
    float *logits = psk_test_buffer(2 * f.V);
    PSK_TEST_FAILS(psk_session_step(&first, 0, tokens, logits), PSK_ERROR_ARGUMENT, "a step of 0 sessions");
    PSK_TEST_FAILS(psk_session_step((psk_session *[]){first, first}, 2, tokens, logits), PSK_ERROR_ARGUMENT,
                   "sessions 0 and 1", "the same");
    PSK_TEST_FAILS(psk_session_step((psk_session *[]){first, foreign}, 2, tokens, logits), PSK_ERROR_ARGUMENT,
                   "session 1", "another model");
    PSK_TEST_FAILS(psk_session_step((psk_session *[]){first, second}, 2, wrong, logits), PSK_ERROR_ARGUMENT,
                   "token 1 is 29");
    assert_int_equal(psk_session_length(first), 0);
    psk_session_free(foreign);
    psk_session_free(second);
    psk_session_free(first);
    psk_test_free(logits);
    psk_model_free(other);
    session_fixture_end(&f);
}

static void test_sessions_of_a_model_share_one_workspace(void **state) {
    (void)state;
    const psk_model_config config = fixture_config(FIXTURE_FORMS - 1);
    session_fixture f = session_fixture_begin(1, &config, 20);
    psk_session *sessions[200];
    for (int i = 0; i < 200; i++) {
        sessions[i] = session_fixture_open(&f);
        assert_ptr_equal(sessions[i]->decoder, f.model->decoder);
    }
    assert_int_equal(f.model->decoder->sessions, 200);
    for (int i = 0; i < 200; i++)
        psk_session_free(sessions[i]);
    assert_null(f.model->decoder);
    session_fixture_end(&f);
}

/* Every way in which a session takes memory. */
static psk_status use_sessions(void *argument) {
    const session_fixture *f = argument;
    psk_session *session, *clone = NULL;
    PSK_TRY(psk_session_create(f->model, &session));
    psk_status status = psk_session_append(session, f->tokens, 5, NULL);
    if (status == PSK_OK)
        status = psk_session_clone(session, &clone);
    for (int64_t i = 0; i < 80 && status == PSK_OK; i++)
        status = psk_session_step((psk_session *[]){session, clone}, 2, f->tokens, NULL);
    psk_session_free(clone);
    psk_session_free(session);
    return status;
}

static void test_out_of_memory_is_an_error(void **state) {
    (void)state;
    const size_t forms[] = {0, 2, FIXTURE_FORMS - 1};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        const psk_model_config config = fixture_config(forms[i]);
        session_fixture f = session_fixture_begin(1, &config, 61);
        assert_true(psk_test_allocation_failures(use_sessions, &f) > 0);
        (void)psk_device_set_precision(f.device, PSK_PRECISION_BF16);
        assert_true(psk_test_allocation_failures(use_sessions, &f) > 0);
        session_fixture_end(&f);
    }
}

#define FIRST_TOKENS 19 /* windows of 10 are full after the next */
#define MOST_TOKENS  64

/* A device of its own, whose memory nothing has grown yet, with a session that has read the first tokens. */
static psk_session *start(const psk_model_config *config, const int32_t *tokens) {
    psk_session *session;
    psk_device *device = fixture_device(1);
    (void)psk_device_set_precision(device, PSK_PRECISION_BF16);
    PSK_TEST_OK(psk_session_create(fixture_model(device, config), &session));
    PSK_TEST_OK(psk_session_append(session, tokens, FIRST_TOKENS, NULL));
    return session;
}

static void end(psk_session *session) {
    psk_model *model = session->decoder->model;
    psk_device *device = model->device;
    psk_session_free(session);
    psk_model_free(model);
    psk_device_free(device);
}

/* After a call without memory: it can be repeated, or everything says that the session is in the middle of a token
 * until it is reset. Returns whether it was. */
static bool recover(psk_session *session, const int32_t *tokens, int64_t count, float *logits) {
    void *bytes;
    size_t size;
    psk_session *clone;
    if (!session->torn) {
        assert_int_equal(psk_session_length(session), FIRST_TOKENS);
        PSK_TEST_OK(psk_session_append(session, tokens + FIRST_TOKENS, count, logits));
        return false;
    }
    PSK_TEST_FAILS(psk_session_append(session, tokens, count, logits), PSK_ERROR_ARGUMENT, "middle of a token",
                   "reset");
    PSK_TEST_FAILS(psk_session_append(session, tokens, 1, logits), PSK_ERROR_ARGUMENT, "middle of a token");
    PSK_TEST_FAILS(psk_session_pack(session, &bytes, &size), PSK_ERROR_ARGUMENT, "middle of a token");
    PSK_TEST_FAILS(psk_session_clone(session, &clone), PSK_ERROR_ARGUMENT, "middle of a token");
    psk_session_reset(session);
    PSK_TEST_OK(psk_session_append(session, tokens, FIRST_TOKENS, NULL));
    PSK_TEST_OK(psk_session_append(session, tokens + FIRST_TOKENS, count, logits));
    return true;
}

/* Every allocation of a call fails once; returns how many of them left the session in the middle. */
static int64_t fail_and_recover(const psk_model_config *config, int64_t count) {
    int32_t *tokens = fixture_tokens(MOST_TOKENS, config->vocab_size, 1);
    float *want = psk_test_buffer(config->vocab_size), *got = psk_test_buffer(config->vocab_size);
    psk_session *session = start(config, tokens);
    int64_t torn = 0;
    PSK_TEST_OK(psk_session_append(session, tokens + FIRST_TOKENS, count, want));
    end(session);
    for (int64_t n = 1;; n++) {
        session = start(config, tokens);
        psk_alloc_fail_after(n);
        const psk_status status = psk_session_append(session, tokens + FIRST_TOKENS, count, got);
        psk_alloc_fail_after(0);
        if (status != PSK_OK) {
            assert_int_equal(status, PSK_ERROR_MEMORY);
            torn += recover(session, tokens, count, got);
        }
        assert_memory_equal(got, want, (size_t)config->vocab_size * sizeof *got);
        end(session);
        if (status == PSK_OK)
            break;
    }
    psk_test_free(want);
    psk_test_free(got);
    free(tokens);
    return torn;
}

static void test_a_session_knows_that_a_call_was_cut_off(void **state) {
    (void)state;
    psk_model_config config = fixture_config(FIXTURE_FORMS - 1);
    config.attention.block_size = 10;
    config.n_embd = 128; /* wide enough for products in bfloat16, which take memory */
    config.n_head = config.n_kv_head = 2;
    psk_device *device = fixture_device(1);
    const bool has_bf16 = device->has_bf16;
    psk_device_free(device);
    const int64_t torn = fail_and_recover(&config, 1) + fail_and_recover(&config, MOST_TOKENS - FIRST_TOKENS);
    printf("  %lld calls were cut off\n", (long long)torn);
    assert_true(torn > 0 || !has_bf16);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_walk_has_the_logits_of_the_parallel_form),
        cmocka_unit_test(test_long_walks),
        cmocka_unit_test(test_a_row_of_a_step_has_the_bits_of_the_session_alone),
        cmocka_unit_test(test_bits_of_a_wider_model),
        cmocka_unit_test(test_steps_in_bfloat16),
        cmocka_unit_test(test_append_each_shows_the_logits_of_every_token),
        cmocka_unit_test(test_wrong_steps_are_refused_and_change_nothing),
        cmocka_unit_test(test_sessions_of_a_model_share_one_workspace),
        cmocka_unit_test(test_out_of_memory_is_an_error),
        cmocka_unit_test(test_a_session_knows_that_a_call_was_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
