/* Windows that begin where long documents begin, against what a walk over all tokens says. */
#include "base/memory.h"
#include "base/rng.h"
#include "data/batches.h"
#include "data_support.h"

#define SEED        7
#define END_OF_TEXT 256

static psk_tokenizer *bytes_tokenizer;

static int set_up(void **state) {
    (void)state;
    folder = psk_test_folder();
    return psk_tokenizer_load("bytes", &bytes_tokenizer);
}

static int tear_down(void **state) {
    (void)state;
    psk_tokenizer_free(bytes_tokenizer);
    psk_test_remove_folder(folder);
    return 0;
}

/* Documents, and for each token where its document begins and whether it is in one of the document's own windows. */
typedef struct corpus {
    int64_t T, N, windows; /* windows of long documents */
    int32_t *tokens;
    int64_t *start;
    bool *inside;
    psk_dataset dataset;
    psk_long_documents found;
    psk_order order;
} corpus;

typedef enum { ENDED, UNENDED } last_document;

static void write_corpus(corpus *c, int64_t shard_tokens) {
    char name[PSK_SHARD_NAME_SIZE];
    PSK_TEST_OK(psk_tokenizer_save(bytes_tokenizer, folder));
    for (int64_t first = 0, shard = 0; first < c->T; first += shard_tokens, shard++) {
        psk_shard_writer *writer;
        psk_shard_name("train", shard, name);
        PSK_TEST_OK(psk_shard_writer_open(in_folder(name), bytes_tokenizer, &writer));
        PSK_TEST_OK(psk_shard_writer_append(writer, c->tokens + first,
                                            c->T - first < shard_tokens ? c->T - first : shard_tokens));
        PSK_TEST_OK(psk_shard_writer_close(writer));
    }
    PSK_TEST_OK(psk_dataset_open(folder, "train", &c->dataset));
}

/* Documents of these lengths, their end-of-text counted, in shards of 37 tokens. */
static corpus make_corpus(const int64_t *lengths, int64_t documents, int64_t N, last_document last) {
    corpus c = {.N = N};
    for (int64_t i = 0; i < documents; i++)
        c.T += lengths[i];
    c.tokens = test_malloc((size_t)c.T * sizeof *c.tokens);
    c.start = test_malloc((size_t)c.T * sizeof *c.start);
    c.inside = test_malloc((size_t)c.T * sizeof *c.inside);
    int64_t at = 0;
    for (int64_t i = 0; i < documents; i++) {
        const int64_t start = at, own = lengths[i] / N * N;
        c.windows += lengths[i] / N;
        for (; at < start + lengths[i]; at++) {
            c.tokens[at] = (int32_t)((at * 37 + at / 7) % 256);
            c.start[at] = start;
            c.inside[at] = at < start + own;
        }
        if (i + 1 < documents || last == ENDED)
            c.tokens[at - 1] = END_OF_TEXT;
    }
    write_corpus(&c, 37);
    PSK_TEST_OK(psk_long_documents_find(&c.dataset, N, &c.found));
    PSK_TEST_OK(psk_order_create(c.T, N, SEED, &c.order));
    return c;
}

static void free_corpus(corpus *c) {
    test_free(c->tokens);
    test_free(c->start);
    test_free(c->inside);
    psk_long_documents_free(&c->found);
    psk_dataset_close(&c->dataset);
    psk_test_remove_folder(folder);
    folder = psk_test_folder();
}

/* Where the tokens of a sequence are, from the order's pieces. */
static void place_sequence(const corpus *c, psk_cursor cursor, int64_t *places) {
    psk_piece piece;
    for (int64_t n = 0; n < c->N; n += piece.count) {
        piece = psk_order_piece(&c->order, cursor, n);
        assert_in_range(piece.count, 1, c->N - n);
        for (int64_t i = 0; i < piece.count; i++)
            places[n + i] = (piece.first + i) % c->T;
    }
}

/* A window of a long document: whole, its own, and a multiple of N from where the document begins. */
static void check_own_window(const corpus *c, const int64_t *places) {
    const int64_t start = c->start[places[0]];
    assert_int_equal((places[0] - start) % c->N, 0);
    for (int64_t n = 0; n < c->N; n++) {
        assert_int_equal(places[n], places[0] + n);
        assert_int_equal(c->start[places[n]], start);
        assert_true(c->inside[places[n]]);
    }
}

/* A window of the rest: in the order of the text; left out are only windows of long documents, after an end-of-text. */
static void check_rest(const corpus *c, const int64_t *places) {
    for (int64_t n = 0; n < c->N; n++) {
        assert_false(c->inside[places[n]]);
        if (n + 1 == c->N)
            break;
        const int64_t next = (places[n] + 1) % c->T;
        if (places[n + 1] != next)
            assert_true(c->tokens[places[n]] == END_OF_TEXT || next == 0);
        for (int64_t i = next; i != places[n + 1]; i = (i + 1) % c->T)
            assert_true(c->inside[i]);
    }
}

/* In each epoch every token of a long document's windows once, and of the rest all but less than N. */
static void check_epoch(const corpus *c, int64_t epoch) {
    unsigned char *seen = test_calloc((size_t)c->T, 1);
    int64_t *places = test_malloc((size_t)c->N * sizeof *places), left = 0, own = 0;
    for (int64_t i = 0; i < c->order.windows; i++) {
        place_sequence(c, (psk_cursor){epoch, i}, places);
        own += c->inside[places[0]];
        (c->inside[places[0]] ? check_own_window : check_rest)(c, places);
        for (int64_t n = 0; n < c->N; n++)
            assert_int_equal(seen[places[n]]++, 0);
    }
    assert_int_equal(own, c->windows);
    for (int64_t i = 0; i < c->T; i++)
        if (!seen[i]) {
            assert_false(c->inside[i]);
            left++;
        }
    assert_in_range(left, 0, c->N - 1);
    test_free(places);
    test_free(seen);
}

static void check_lengths(const int64_t *lengths, int64_t documents, int64_t N, last_document last) {
    corpus c = make_corpus(lengths, documents, N, last);
    psk_order_align(&c.order, &c.found);
    assert_int_equal(c.found.windows, c.windows);
    assert_int_equal(c.found.rest, c.T - c.windows * N);
    assert_int_equal(c.order.windows, c.windows + c.found.rest / N);
    for (int64_t epoch = 0; epoch < 3; epoch++)
        check_epoch(&c, epoch);
    free_corpus(&c);
}

#define CHECK(N, last, ...)                                                                                            \
    check_lengths((const int64_t[]){__VA_ARGS__}, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), N, last)

static void long_documents_begin_their_windows(void **state) {
    (void)state;
    CHECK(8, ENDED, 3, 8, 17, 1, 40, 5, 7, 9, 2, 24, 16, 30);
    CHECK(8, UNENDED, 3, 8, 17, 1, 40, 5, 7, 9, 2, 24, 16, 30);
    CHECK(8, ENDED, 16, 8, 24, 8);       /* no rest, documents without anything between them */
    CHECK(8, ENDED, 17, 8, 24, 8, 1, 7); /* rest of more than a window, around the ring */
    CHECK(8, ENDED, 7, 1, 6, 7, 3, 5);   /* no long document */
    CHECK(8, UNENDED, 30);               /* one, without any end-of-text */
    CHECK(29, ENDED, 30);
    CHECK(30, UNENDED, 31);
    CHECK(1, ENDED, 3, 1, 4);
    CHECK(64, ENDED, 63, 64, 65, 127, 128, 129, 1, 300);
}

static void long_documents_of_any_length(void **state) {
    (void)state;
    enum { DOCUMENTS = 300 };
    psk_rng rng = psk_rng_make(SEED, psk_rng_stream("lengths"));
    print_message("    seed %d\n", SEED);
    for (int64_t N = 5; N < 40; N += 17) {
        int64_t lengths[DOCUMENTS];
        for (int64_t i = 0; i < DOCUMENTS; i++)
            lengths[i] = 1 + (int64_t)psk_rng_below(&rng, i % 10 == 0 ? 200 : 12);
        check_lengths(lengths, DOCUMENTS, N, ENDED);
    }
}

/* What batches hold: the tokens of the pieces, and for each the token after it. */
static void batches_follow_the_pieces(void **state) {
    (void)state;
    enum { N = 8, B = 2, BATCHES = 36 };
    static const int64_t lengths[] = {3, 8, 17, 1, 40, 5, 7, 9, 2, 24, 16, 30};
    corpus c = make_corpus(lengths, sizeof lengths / sizeof lengths[0], N, ENDED);
    psk_order_align(&c.order, &c.found);
    psk_arena *arena;
    psk_batch_buffer batch;
    psk_cursor cursor = {0};
    PSK_TEST_OK(psk_arena_create(&arena));
    PSK_TEST_OK(psk_batch_reserve(arena, B, N, PSK_RESET_AT_DOCUMENTS, &batch));
    PSK_TEST_OK(psk_arena_commit(arena, PSK_FILL_NAN));
    for (int64_t sequence = 0; sequence < BATCHES * B; sequence += B) {
        PSK_TEST_OK(psk_batch_fill(&batch, &c.dataset, &c.order, &cursor));
        assert_int_equal(batch.counted, B * N);
        for (int64_t row = 0; row < B; row++) {
            int64_t places[N];
            place_sequence(&c, psk_order_next(&c.order, (psk_cursor){0}, sequence + row), places);
            for (int64_t n = 0; n < N; n++) {
                assert_int_equal(batch.tokens[row * N + n], c.tokens[places[n]]);
                assert_int_equal(batch.targets[row * N + n], c.tokens[(places[n] + 1) % c.T]);
            }
        }
    }
    psk_arena_free(arena);
    free_corpus(&c);
}

/* Not aligned, pieces are whole sequences of the ring. */
static void pieces_of_the_ring(void **state) {
    (void)state;
    corpus c = make_corpus((const int64_t[]){100, 57}, 2, 10, ENDED);
    for (int64_t i = 0; i < c.order.windows; i++) {
        const psk_cursor cursor = {2, i};
        const psk_piece piece = psk_order_piece(&c.order, cursor, 3);
        assert_int_equal(piece.first, psk_order_piece(&c.order, cursor, 0).first + 3);
        assert_int_equal(piece.count, 7);
    }
    free_corpus(&c);
}

static void finding_without_memory(void **state) {
    (void)state;
    int64_t lengths[100];
    for (int64_t i = 0; i < 100; i++)
        lengths[i] = 11;
    corpus c = make_corpus(lengths, 100, 10, ENDED);
    psk_status status = PSK_ERROR_MEMORY;
    int64_t n = 0;
    while (status == PSK_ERROR_MEMORY) {
        psk_long_documents again;
        psk_alloc_fail_after(++n);
        status = psk_long_documents_find(&c.dataset, 10, &again);
        psk_alloc_fail_after(0);
        assert_true(status == PSK_OK || again.list == NULL);
        psk_long_documents_free(&again);
    }
    assert_int_equal(status, PSK_OK);
    assert_in_range(n, 3, 10);
    free_corpus(&c);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(long_documents_begin_their_windows),
        TEST(long_documents_of_any_length),
        TEST(batches_follow_the_pieces),
        TEST(pieces_of_the_ring),
        TEST(finding_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
