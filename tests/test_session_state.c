/* The state of a session as a file: continued in another process, refused when it is another model's or damaged.
 *
 * `test_session_state continue FORM STATE LOGITS` is the other process: it makes the same model, restores the state,
 * reads the rest of the sequence token by token and writes the logits of each. */
#include "session_fixture.h"

#include "base/files.h"

#include <math.h>
#include <unistd.h>

#define TOKENS 61
#define CUT    40

/* ---------------------------------------------------------------------------------------------------- a new process
 */

static void continue_session(size_t form, const char *state, const char *path) {
    const psk_model_config config = fixture_config(form);
    psk_device *device = fixture_device(1);
    psk_model *model = fixture_model(device, &config);
    int32_t *tokens = fixture_tokens(TOKENS, config.vocab_size, 1);
    float *logits = psk_test_buffer(TOKENS * config.vocab_size);
    psk_session *session;
    PSK_TEST_OK(psk_session_load(model, state, &session));
    assert_int_equal(psk_session_length(session), CUT);
    for (int64_t t = CUT; t < TOKENS; t++)
        PSK_TEST_OK(psk_session_append(session, tokens + t, 1, logits + t * config.vocab_size));
    PSK_TEST_OK(psk_write_file(path, logits + CUT * config.vocab_size,
                               (size_t)((TOKENS - CUT) * config.vocab_size) * sizeof(float)));
    psk_session_free(session);
    psk_test_free(logits);
    free(tokens);
    psk_model_free(model);
    psk_device_free(device);
}

/* The same bits as in the process that saved, and the logits of the parallel form. */
static void check_process(size_t form, const psk_test_place *place) {
    const psk_model_config config = fixture_config(form);
    session_fixture f = session_fixture_begin(1, &config, TOKENS);
    const int64_t n = (TOKENS - CUT) * f.V;
    char *logits_path, command[1024], *read;
    size_t size;
    psk_session *session = session_fixture_open(&f);
    float *here = psk_test_buffer(n);
    PSK_TEST_OK(psk_join_path(place->folder, "logits", &logits_path));
    PSK_TEST_OK(psk_session_append(session, f.tokens, CUT, NULL));
    PSK_TEST_OK(psk_session_save(session, place->path));
    snprintf(command, sizeof command, "/proc/%d/exe continue %zu '%s' '%s'", (int)getpid(), form, place->path,
             logits_path);
    assert_int_equal(system(command), 0);
    for (int64_t t = CUT; t < TOKENS; t++)
        PSK_TEST_OK(psk_session_append(session, f.tokens + t, 1, here + (t - CUT) * f.V));
    PSK_TEST_OK(psk_read_file(logits_path, (size_t)1 << 24, &read, &size));
    assert_int_equal(size, (size_t)n * sizeof(float));
    assert_memory_equal(read, here, size);
    PSK_TEST_AT_MOST(psk_test_relative_rms(here, f.logits + CUT * f.V, n), SESSION_LIMIT);
    psk_free(read);
    psk_free(logits_path);
    psk_test_free(here);
    psk_session_free(session);
    session_fixture_end(&f);
}

static void test_a_state_continues_in_a_new_process(void **state) {
    for (size_t form = 0; form < FIXTURE_FORMS; form++)
        check_process(form, *state);
}

static void check_size(const session_fixture *f, int64_t tokens) {
    void *bytes;
    size_t size;
    psk_session *session = session_fixture_open(f);
    const int64_t most = psk_session_file_bytes_at(f->model, tokens);
    if (tokens > 0)
        PSK_TEST_OK(psk_session_append(session, f->tokens, tokens, NULL));
    PSK_TEST_OK(psk_session_pack(session, &bytes, &size));
    assert_true((int64_t)size <= most);
    if (session->rows == tokens) /* none have gone into a state yet: only the header is a guess */
        assert_true((int64_t)size > most - 2048);
    psk_buffer_free(bytes);
    psk_session_free(session);
}

static void test_the_size_of_a_file_is_known_before(void **state) {
    (void)state;
    for (size_t form = 0; form < FIXTURE_FORMS; form++) {
        const psk_model_config config = fixture_config(form);
        session_fixture f = session_fixture_begin(1, &config, TOKENS);
        for (int64_t tokens = 0; tokens <= TOKENS; tokens += tokens < 30 ? 1 : 7)
            check_size(&f, tokens);
        const int64_t most = psk_session_file_bytes_at(f.model, INT64_MAX);
        const bool grows = psk_session_layout_of(&config).ring == 0;
        assert_int_equal(most, grows ? -1 : psk_session_file_bytes_at(f.model, INT32_MAX));
        session_fixture_end(&f);
    }
}

/* ----------------------------------------------------------------------------------------------------------- refused
 */

typedef struct packed {
    session_fixture f;
    unsigned char *bytes;
    size_t size;
} packed;

static packed pack(size_t form) {
    const psk_model_config config = fixture_config(form);
    packed p = {.f = session_fixture_begin(1, &config, TOKENS)};
    psk_session *session = session_fixture_open(&p.f);
    PSK_TEST_OK(psk_session_append(session, p.f.tokens, CUT, NULL));
    PSK_TEST_OK(psk_session_pack(session, (void **)&p.bytes, &p.size));
    psk_session_free(session);
    return p;
}

static void unpack_end(packed *p) {
    psk_buffer_free(p->bytes);
    session_fixture_end(&p->f);
}

static void test_every_truncation_is_refused(void **state) {
    (void)state;
    packed p = pack(FIXTURE_FORMS - 1);
    psk_session *session;
    for (size_t size = 0; size < p.size; size += size < 1000 ? 1 : 97) {
        PSK_TEST_FAILS(psk_session_unpack(p.f.model, p.bytes, size, &session), PSK_ERROR_FORMAT,
                       "the state of a session");
        assert_null(session);
    }
    unpack_end(&p);
}

/* Every bit that says something is covered: by the checks of the format, by the model's hash or by the checksum. What
 * is taken all the same must be what was saved: a space in the header may be another one. */
static void test_every_damaged_byte_is_noticed(void **state) {
    (void)state;
    packed p = pack(FIXTURE_FORMS - 1);
    psk_rng rng = psk_rng_make(FIXTURE_SEED, 3000);
    int64_t taken = 0;
    for (size_t i = 0; i < p.size; i += i < 1500 ? 1 : 211) {
        const unsigned char before = p.bytes[i];
        psk_session *session;
        p.bytes[i] ^= (unsigned char)(1 + psk_rng_below(&rng, 255));
        const psk_status status = psk_session_unpack(p.f.model, p.bytes, p.size, &session);
        if (status == PSK_OK) {
            taken++;
            assert_int_equal(psk_session_length(session), CUT);
            assert_true(before == ' ' || before == '"' || before == ':' || before == ',');
        } else if (status != PSK_ERROR_FORMAT) {
            fail_msg("byte %zu: %s: %s", i, psk_status_name(status), psk_error_message());
        }
        psk_session_free(session);
        p.bytes[i] = before;
    }
    assert_true(taken < 8);
    unpack_end(&p);
}

/* Replaces `from` by `to`, of the same length, wherever it is in the header. */
static void replace(packed *p, const char *from, const char *to) {
    const size_t length = strlen(from);
    int64_t found = 0;
    assert_int_equal(length, strlen(to));
    for (size_t i = 0; i + length <= p->size; i++)
        if (memcmp(p->bytes + i, from, length) == 0) {
            memcpy(p->bytes + i, to, length);
            found++;
        }
    assert_true(found > 0);
}

static void test_what_is_wrong_is_said(void **state) {
    (void)state;
    const struct {
        const char *from, *to, *message;
    } cases[] = {
        {"polysketch session", "polysketch sessien", "expected \"polysketch session\""},
        {"\"version\":\"1\"", "\"version\":\"7\"", "use a later program"},
        {"\"length\":\"40\"", "\"length\":\"41\"", "is damaged"},
        {"\"length\":\"40\"", "\"length\":\"-4\"", "\"length\" is \"-4\""},
        {"\"length\":\"40\"", "\"length\":\"03\"", "keeps 12 rows"},
        {"\"checksum\"", "\"checksam\"", "no \"checksum\""},
        {"\"state\"", "\"stale\"", "tensor \"state\" is absent"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        packed p = pack(FIXTURE_FORMS - 1);
        psk_session *session;
        replace(&p, cases[i].from, cases[i].to);
        PSK_TEST_FAILS(psk_session_unpack(p.f.model, p.bytes, p.size, &session), PSK_ERROR_FORMAT, cases[i].message);
        unpack_end(&p);
    }
}

static void test_another_models_state_is_refused(void **state) {
    (void)state;
    packed p = pack(FIXTURE_FORMS - 1);
    char hash[PSK_MODEL_HASH_CAPACITY], other[PSK_MODEL_HASH_CAPACITY];
    psk_session *session;
    psk_model_tensor tensor;
    PSK_TEST_OK(psk_model_hash(p.f.model, hash));
    assert_int_equal(strlen(hash), PSK_MODEL_HASH_CAPACITY - 1);
    assert_true(psk_model_tensor_at(p.f.model, 3, &tensor));
    tensor.data[0] = nextafterf(tensor.data[0], 1e9F); /* one bit of one weight */
    PSK_TEST_OK(psk_model_hash(p.f.model, other));
    assert_string_not_equal(hash, other);
    PSK_TEST_FAILS(psk_session_unpack(p.f.model, p.bytes, p.size, &session), PSK_ERROR_FORMAT, "another model", hash,
                   other);
    unpack_end(&p);
}

static void test_files_that_are_no_states(void **state) {
    const psk_test_place *place = *state;
    const psk_model_config config = fixture_config(2);
    session_fixture f = session_fixture_begin(1, &config, TOKENS);
    psk_session *session;
    PSK_TEST_FAILS(psk_session_load(f.model, place->path, &session), PSK_ERROR_FILE, place->path);
    PSK_TEST_OK(psk_write_file(place->path, "no state", 8));
    PSK_TEST_FAILS(psk_session_load(f.model, place->path, &session), PSK_ERROR_FORMAT, place->path);
    psk_session *empty = session_fixture_open(&f);
    PSK_TEST_FAILS(psk_session_save(empty, place->folder), PSK_ERROR_FILE, place->folder);
    PSK_TEST_OK(psk_session_save(empty, place->path)); /* no tokens yet: a state like any other */
    PSK_TEST_OK(psk_session_load(f.model, place->path, &session));
    assert_int_equal(psk_session_length(session), 0);
    psk_session_free(session);
    psk_session_free(empty);
    session_fixture_end(&f);
}

static psk_status pack_and_unpack(void *argument) {
    const packed *p = argument;
    psk_session *session, *again = NULL;
    void *bytes = NULL;
    size_t size;
    PSK_TRY(psk_session_unpack(p->f.model, p->bytes, p->size, &session));
    psk_status status = psk_session_pack(session, &bytes, &size);
    if (status == PSK_OK) {
        assert_int_equal(size, p->size);
        assert_memory_equal(bytes, p->bytes, size);
        status = psk_session_unpack(p->f.model, bytes, size, &again);
    }
    psk_buffer_free(bytes);
    psk_session_free(again);
    psk_session_free(session);
    return status;
}

/* The first and the last number of what a session holds. */
static void check_number(const session_fixture *f, psk_session *session, float *number, const char *name) {
    static const float values[] = {NAN, INFINITY, -INFINITY};
    const float before = *number;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        void *bytes;
        size_t size;
        psk_session *again;
        *number = values[i];
        PSK_TEST_OK(psk_session_pack(session, &bytes, &size));
        PSK_TEST_FAILS(psk_session_unpack(f->model, bytes, size, &again), PSK_ERROR_FORMAT, name, "not finite");
        assert_null(again);
        psk_buffer_free(bytes);
    }
    *number = before;
}

static void test_numbers_that_are_not_finite_are_refused(void **state) {
    (void)state;
    const psk_model_config config = fixture_config(FIXTURE_FORMS - 1);
    session_fixture f = session_fixture_begin(1, &config, TOKENS);
    psk_session *session = session_fixture_open(&f);
    PSK_TEST_OK(psk_session_append(session, f.tokens, CUT, NULL));
    const psk_session_layout *layout = &session->decoder->layout;
    check_number(&f, session, session->state, "\"state\"");
    check_number(&f, session, session->state + layout->state_floats - 1, "\"state\"");
    const char *const names[PSK_CACHES] = {"\"k\"", "\"v\"", "\"b\""};
    for (int kind = 0; kind < PSK_CACHES; kind++) {
        const int64_t width = layout->width[kind], last = (layout->groups - 1) * session->capacity;
        check_number(&f, session, session->cache[kind] + session->first * width, names[kind]);
        check_number(&f, session, session->cache[kind] + (last + session->first) * width + width - 1, names[kind]);
    }
    psk_session_free(session);
    session_fixture_end(&f);
}

/* And what is unpacked packs to the same bytes. */
static void test_out_of_memory_is_an_error(void **state) {
    (void)state;
    const size_t forms[] = {0, 2, FIXTURE_FORMS - 1};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        packed p = pack(forms[i]);
        assert_true(psk_test_allocation_failures(pack_and_unpack, &p) > 0);
        unpack_end(&p);
    }
}

static int enter(void **state) {
    return psk_test_place_enter(state, "state.safetensors");
}

int main(int argc, char **argv) {
    if (argc == 5 && strcmp(argv[1], "continue") == 0) {
        continue_session((size_t)atoi(argv[2]), argv[3], argv[4]);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_state_continues_in_a_new_process, enter, psk_test_place_leave),
        cmocka_unit_test(test_the_size_of_a_file_is_known_before),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_every_damaged_byte_is_noticed),
        cmocka_unit_test(test_what_is_wrong_is_said),
        cmocka_unit_test(test_another_models_state_is_refused),
        cmocka_unit_test_setup_teardown(test_files_that_are_no_states, enter, psk_test_place_leave),
        cmocka_unit_test(test_numbers_that_are_not_finite_are_refused),
        cmocka_unit_test(test_out_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
