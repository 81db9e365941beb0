/* Shards, the order of the data, batches. */
#include "base/memory.h"
#include "data/batches.h"
#include "data/little_endian.h"
#include "data_support.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEED   7
#define HEADER 128

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

/* Token i of the test data: end-of-text after every 50th. */
static int32_t test_token(int64_t i) {
    return i % 50 == 49 ? 256 : (int32_t)((i * 37 + i / 7) % 256);
}

static void write_shard(const char *path, int64_t first, int64_t count) {
    psk_shard_writer *writer;
    int32_t *tokens;
    PSK_TEST_OK(psk_alloc((size_t)count * sizeof *tokens, "tokens", (void **)&tokens));
    for (int64_t i = 0; i < count; i++)
        tokens[i] = test_token(first + i);
    PSK_TEST_OK(psk_shard_writer_open(path, bytes_tokenizer, &writer));
    PSK_TEST_OK(psk_shard_writer_append(writer, tokens, count / 3));
    PSK_TEST_OK(psk_shard_writer_append(writer, tokens + count / 3, count - count / 3));
    assert_int_equal(psk_shard_writer_tokens(writer), count);
    PSK_TEST_OK(psk_shard_writer_close(writer));
    psk_free(tokens);
}

/* ------------------------------------------------------------------------------------------------------------- shards
 */

static void shard_round_trip(void **state) {
    (void)state;
    const int64_t sizes[] = {1, 2, 49, 50, 4095, 4096, 4097, 10007};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        const int64_t count = sizes[s];
        psk_shard shard;
        psk_shard_info info;
        int32_t token;
        write_shard(in_folder("a.psk"), 0, count);
        PSK_TEST_OK(psk_shard_read_info(in_folder("a.psk"), 1, &info));
        assert_int_equal(info.version, 1);
        assert_int_equal(info.tokens, count);
        assert_int_equal(info.documents, count / 50);
        assert_int_equal(info.vocab_size, 257);
        assert_int_equal(info.token_bytes, 2);
        assert_int_equal(info.file_bytes, HEADER + 2 * count);
        assert_string_equal(info.tokenizer, "bytes");
        PSK_TEST_OK(psk_shard_open(in_folder("a.psk"), PSK_SHARD_HEADER, &shard));
        for (int64_t i = 0; i < count; i++) {
            PSK_TEST_OK(psk_shard_read(&shard, i, 1, &token));
            assert_int_equal(token, test_token(i));
        }
        psk_shard_close(&shard);
    }
}

/* The bytes as docs/formats.md has them. */
static void shard_bytes(void **state) {
    (void)state;
    char *data;
    size_t size;
    write_shard(in_folder("a.psk"), 48, 3);
    PSK_TEST_OK(psk_read_file(in_folder("a.psk"), 1 << 20, &data, &size));
    const unsigned char *b = (const unsigned char *)data;
    assert_int_equal(size, HEADER + 6);
    assert_memory_equal(b, "PSKSHARD", 8);
    const struct {
        int offset, bytes;
        uint64_t value;
    } fields[] = {{8, 4, 1},  {12, 4, 128}, {16, 4, 2}, {20, 4, 257}, {24, 8, 3},
                  {32, 8, 1}, {40, 4, 256}, {44, 4, 0}, {80, 8, 0},   {104, 8, 0}};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        assert_int_equal(psk_load_le(b + fields[i].offset, fields[i].bytes), fields[i].value);
    assert_string_equal(data + 48, "bytes");
    assert_int_equal(psk_load_le(b + 112, 8), XXH3_64bits(b + HEADER, 6));
    assert_int_equal(psk_load_le(b + 120, 8), XXH3_64bits(b, 120));
    assert_int_equal(b[HEADER], test_token(48));
    assert_int_equal(b[HEADER + 2], 0); /* 256 = 0x0100 */
    assert_int_equal(b[HEADER + 3], 1);
    psk_free(data);
}

typedef enum { AS_IT_IS, REHASH_HEADER, REHASH_ALL } rehash;

/* One way of damaging a shard of 100 tokens, and words of the message. size < 0: unchanged. */
typedef struct damage {
    const char *name;
    int64_t size;
    int offset, bytes;
    uint64_t value;
    rehash after;
    const char *words;
} damage;

static const damage damages[] = {
    {"empty", 0, 0, 0, 0, AS_IT_IS, "empty"},
    {"one byte", 1, 0, 0, 0, AS_IT_IS, "truncated"},
    {"half a header", 64, 0, 0, 0, AS_IT_IS, "truncated"},
    {"only a header", HEADER, 0, 0, 0, AS_IT_IS, "the header says 100 tokens"},
    {"a byte short", HEADER + 199, 0, 0, 0, AS_IT_IS, "truncated or has something appended"},
    {"a byte long", HEADER + 201, 0, 0, 0, AS_IT_IS, "truncated or has something appended"},
    {"foreign magic", -1, 0, 4, 0x46554747, AS_IT_IS, "not a shard"},
    {"version 2", -1, 8, 4, 2, REHASH_HEADER, "version 2, expected 1"},
    {"flipped bit in the header", -1, 24, 1, 101, AS_IT_IS, "the header's checksum"},
    {"flipped bit in a token", -1, HEADER + 20, 1, 0xff, AS_IT_IS, "checksum of the tokens"},
    {"header size", -1, 12, 4, 64, REHASH_HEADER, "header_size is 64"},
    {"token bytes", -1, 16, 4, 3, REHASH_HEADER, "token_bytes is 3"},
    {"token bytes 4", -1, 16, 4, 4, REHASH_HEADER, "the header says 100 tokens of 4 bytes"},
    {"no vocabulary", -1, 20, 4, 0, REHASH_HEADER, "vocab_size is 0"},
    {"vocabulary too large", -1, 20, 4, 65537, REHASH_HEADER, "vocab_size is 65537"},
    {"lies about the tokens", -1, 24, 8, 101, REHASH_HEADER, "the header says 101 tokens"},
    {"2^63 tokens", -1, 24, 8, 1ull << 63, REHASH_HEADER, "the header says 9223372036854775808 tokens"},
    {"tokens x 2 overflows", -1, 24, 8, (1ull << 63) + 100, REHASH_HEADER, "tokens of 2 bytes"},
    {"more documents than tokens", -1, 32, 8, 101, REHASH_HEADER, "documents is 101"},
    {"lies about documents", -1, 32, 8, 3, REHASH_HEADER, "2 tokens are end-of-text, the header says 3"},
    {"end-of-text outside", -1, 40, 4, 257, REHASH_HEADER, "end_of_text is 257"},
    {"reserved", -1, 88, 1, 1, REHASH_HEADER, "reserved"},
    {"no name", -1, 48, 1, 0, REHASH_HEADER, "tokenizer's name"},
    {"name without end", -1, 79, 1, 'x', REHASH_HEADER, "tokenizer's name"},
    {"token out of range", -1, HEADER + 20, 2, 257, REHASH_ALL, "token 10 is 257, vocab_size is 257"},
};

/* Writes `bytes` damaged to bad.psk. */
static void write_damaged(const damage *d, const char *bytes, size_t size) {
    unsigned char copy[HEADER + 201] = {0};
    assert_true(size == HEADER + 200);
    memcpy(copy, bytes, size);
    psk_store_le(copy + d->offset, d->bytes == 0 ? 0 : d->value, d->bytes == 1 ? 2 : d->bytes);
    if (d->bytes == 1) /* one byte alone */
        copy[d->offset + 1] = (unsigned char)bytes[d->offset + 1];
    if (d->after == REHASH_ALL)
        psk_store_le(copy + 112, XXH3_64bits(copy + HEADER, 200), 8);
    if (d->after != AS_IT_IS)
        psk_store_le(copy + 120, XXH3_64bits(copy, 120), 8);
    PSK_TEST_OK(psk_write_file(in_folder("bad.psk"), copy, d->size < 0 ? size : (size_t)d->size));
}

static void shard_damaged(void **state) {
    (void)state;
    char *bytes;
    size_t size;
    write_shard(in_folder("a.psk"), 0, 100);
    PSK_TEST_OK(psk_read_file(in_folder("a.psk"), 1 << 20, &bytes, &size));
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        psk_shard_info info;
        print_message("    %s\n", damages[i].name);
        write_damaged(&damages[i], bytes, size);
        PSK_TEST_FAILS(psk_shard_read_info(in_folder("bad.psk"), 1, &info), PSK_ERROR_FORMAT, "bad.psk",
                       damages[i].words);
    }
    psk_free(bytes);
    psk_shard_info info;
    write_text("bad.psk", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234\n");
    PSK_TEST_FAILS(psk_shard_read_info(in_folder("bad.psk"), 1, &info), PSK_ERROR_FORMAT, "bad.psk", "LFS pointer");
    PSK_TEST_FAILS(psk_shard_read_info(in_folder("none.psk"), 1, &info), PSK_ERROR_FILE, "none.psk");
    PSK_TEST_FAILS(psk_shard_read_info(NULL, 1, &info), PSK_ERROR_ARGUMENT, "path");
}

/* What only the full check finds must not get past a read either. */
static void shard_read_checks_tokens(void **state) {
    (void)state;
    const damage *d = &damages[sizeof damages / sizeof damages[0] - 1];
    char *bytes;
    size_t size;
    psk_shard shard;
    int32_t tokens[20];
    write_shard(in_folder("a.psk"), 0, 100);
    PSK_TEST_OK(psk_read_file(in_folder("a.psk"), 1 << 20, &bytes, &size));
    write_damaged(d, bytes, size);
    psk_free(bytes);
    PSK_TEST_OK(psk_shard_open(in_folder("bad.psk"), PSK_SHARD_HEADER, &shard));
    PSK_TEST_OK(psk_shard_read(&shard, 0, 10, tokens));
    PSK_TEST_FAILS(psk_shard_read(&shard, 0, 20, tokens), PSK_ERROR_FORMAT, "bad.psk", d->words);
    psk_shard_close(&shard);
}

static void shard_abandoned_leaves_nothing(void **state) {
    (void)state;
    psk_shard_writer *writer;
    char **names;
    int64_t count;
    PSK_TEST_OK(psk_shard_writer_open(in_folder("a.psk"), bytes_tokenizer, &writer));
    PSK_TEST_OK(psk_shard_writer_append(writer, &(int32_t){1}, 1));
    psk_shard_writer_abandon(writer);
    PSK_TEST_OK(psk_list_folder(folder, &names, &count));
    assert_int_equal(count, 0);
    psk_free_names(names, count);
}

/* ------------------------------------------------------------------------------------------------------------ dataset
 */

/* A folder with shards of the given sizes: tokens 0, 1, ... of the test data. */
static int64_t write_dataset(const char *split, const int64_t *sizes, int64_t count) {
    char name[PSK_SHARD_NAME_SIZE];
    int64_t total = 0;
    PSK_TEST_OK(psk_tokenizer_save(bytes_tokenizer, folder));
    for (int64_t i = 0; i < count; i++) {
        psk_shard_name(split, i, name);
        write_shard(in_folder(name), total, sizes[i]);
        total += sizes[i];
    }
    return total;
}

static void dataset_is_a_ring(void **state) {
    (void)state;
    const int64_t sizes[] = {1, 100, 7, 101};
    const int64_t total = write_dataset("train", sizes, 4);
    psk_dataset dataset;
    int32_t tokens[500];
    PSK_TEST_OK(psk_dataset_open(folder, "train", &dataset));
    assert_int_equal(dataset.count, 4);
    assert_int_equal(dataset.tokens, total);
    for (int64_t first = 0; first < 3 * total; first += 13) {
        const int64_t count = first % 3 ? 300 : 3;
        PSK_TEST_OK(psk_dataset_read(&dataset, first, count, tokens));
        for (int64_t i = 0; i < count; i++)
            assert_int_equal(tokens[i], test_token((first + i) % total));
    }
    psk_dataset_close(&dataset);
    PSK_TEST_OK(psk_dataset_open(folder, "valid", &dataset));
    assert_int_equal(dataset.count, 0);
    psk_dataset_close(&dataset);
}

static void dataset_refuses(void **state) {
    (void)state;
    const int64_t sizes[] = {10, 10, 10};
    psk_dataset dataset;
    PSK_TEST_FAILS(psk_dataset_open(in_folder("nowhere"), "train", &dataset), PSK_ERROR_FILE, "nowhere");
    PSK_TEST_FAILS(psk_dataset_open(folder, "train", &dataset), PSK_ERROR_FORMAT, "tokenizer.json");
    write_dataset("train", sizes, 3);
    assert_int_equal(remove(in_folder("train-00001.psk")), 0);
    PSK_TEST_FAILS(psk_dataset_open(folder, "train", &dataset), PSK_ERROR_FORMAT, "train-00001.psk", "missing");
    write_text("train-00001.psk", "PSKSHARD");
    PSK_TEST_FAILS(psk_dataset_open(folder, "train", &dataset), PSK_ERROR_FORMAT, "train-00001.psk", "truncated");
}

/* A shard whose header, checksum and all, names another tokenizer. */
static void dataset_of_one_tokenizer(void **state) {
    (void)state;
    char *bytes;
    size_t size;
    psk_dataset dataset;
    write_dataset("train", (const int64_t[]){10}, 1);
    PSK_TEST_OK(psk_read_file(in_folder("train-00000.psk"), 1 << 20, &bytes, &size));
    memcpy(bytes + 48, "other", 6);
    psk_store_le((unsigned char *)bytes + 120, XXH3_64bits(bytes, 120), 8);
    PSK_TEST_OK(psk_write_file(in_folder("train-00000.psk"), bytes, size));
    psk_free(bytes);
    PSK_TEST_FAILS(psk_dataset_open(folder, "train", &dataset), PSK_ERROR_FORMAT, "train-00000.psk", "other", "bytes");
}

/* -------------------------------------------------------------------------------------------------------------- order
 */

static void order_is_a_permutation(void **state) {
    (void)state;
    const int64_t windows[] = {1, 2, 3, 4, 5, 7, 16, 17, 63, 64, 65, 1000, 4099};
    print_message("    seed %d\n", SEED);
    for (size_t w = 0; w < sizeof windows / sizeof windows[0]; w++) {
        const int64_t N = 8, W = windows[w], T = W * N + (W % 2 ? 1 : 5);
        psk_order order;
        unsigned char *seen;
        PSK_TEST_OK(psk_order_create(T, N, SEED, &order));
        assert_int_equal(order.windows, W);
        PSK_TEST_OK(psk_alloc((size_t)T, "tokens seen", (void **)&seen));
        psk_cursor cursor = {0};
        for (int64_t epoch = 0; epoch < 4; epoch++) {
            memset(seen, 0, (size_t)T);
            for (int64_t i = 0; i < W; i++) {
                assert_int_equal(cursor.epoch, epoch);
                assert_int_equal(cursor.index, i);
                const int64_t start = psk_order_piece(&order, cursor, 0).first;
                for (int64_t n = 0; n < N; n++)
                    assert_int_equal(seen[(start + n) % T]++, 0);
                cursor = psk_order_next(&order, cursor, 1);
            }
        }
        psk_free(seen);
    }
}

/* Of every size the permutation is one: each place once, in every epoch another order. */
static void order_of_every_size(void **state) {
    (void)state;
    enum { MOST = 600 };
    print_message("    seed %d\n", SEED);
    for (int64_t W = 1; W <= MOST; W++) {
        psk_order order;
        int64_t places[2][MOST];
        PSK_TEST_OK(psk_order_create(W + 1, 1, SEED, &order));
        order.windows = W;
        for (int64_t epoch = 0; epoch < 2; epoch++) {
            unsigned char seen[MOST] = {0};
            for (int64_t i = 0; i < W; i++) {
                const int64_t place = places[epoch][i] = psk_order_permute(&order, (psk_cursor){epoch, i});
                assert_in_range(place, 0, W - 1);
                assert_int_equal(seen[place]++, 0);
            }
        }
        if (W >= 32) /* of 32! orders two are not the same by chance */
            assert_memory_not_equal(places[0], places[1], (size_t)W * sizeof places[0][0]);
    }
}

/* How many sequences of an epoch start where those of another order do. */
static int64_t common_starts(const psk_order *a, psk_cursor from_a, const psk_order *b, psk_cursor from_b) {
    int64_t same = 0;
    for (int64_t i = 0; i < a->windows; i++) {
        from_a.index = from_b.index = i;
        same += psk_order_piece(a, from_a, 0).first == psk_order_piece(b, from_b, 0).first;
    }
    return same;
}

static void order_depends_on_seed_and_epoch(void **state) {
    (void)state;
    psk_order order, other;
    PSK_TEST_OK(psk_order_create(100003, 100, SEED, &order));
    PSK_TEST_OK(psk_order_create(100003, 100, SEED + 1, &other));
    assert_int_equal(common_starts(&order, (psk_cursor){3, 0}, &order, (psk_cursor){3, 0}), 1000);
    assert_in_range(common_starts(&order, (psk_cursor){3, 0}, &order, (psk_cursor){4, 0}), 0, 10);
    assert_in_range(common_starts(&order, (psk_cursor){3, 0}, &other, (psk_cursor){3, 0}), 0, 10);
    int64_t fixed = 0; /* the permutation itself is another one too, not only the offset */
    for (int64_t i = 0; i < 1000; i++)
        fixed += psk_order_permute(&order, (psk_cursor){3, i}) == psk_order_permute(&order, (psk_cursor){4, i});
    assert_in_range(fixed, 0, 10);
    int64_t rising = 0; /* a shuffled order rises about every other time */
    for (int64_t i = 1; i < 1000; i++)
        rising += psk_order_permute(&order, (psk_cursor){0, i}) > psk_order_permute(&order, (psk_cursor){0, i - 1});
    assert_in_range(rising, 440, 560);
}

static void order_needs_a_window(void **state) {
    (void)state;
    psk_order order;
    PSK_TEST_FAILS(psk_order_create(64, 64, SEED, &order), PSK_ERROR_ARGUMENT, "64 tokens", "65");
    PSK_TEST_FAILS(psk_order_create(0, 1, SEED, &order), PSK_ERROR_ARGUMENT, "0 tokens");
    PSK_TEST_OK(psk_order_create(65, 64, SEED, &order));
    assert_int_equal(order.windows, 1);
}

/* ------------------------------------------------------------------------------------------------------------ batches
 */

static psk_arena *reserve_batch(int64_t B, int64_t N, psk_documents_mode mode, psk_batch_buffer *buffer) {
    psk_arena *arena;
    PSK_TEST_OK(psk_arena_create(&arena));
    PSK_TEST_OK(psk_batch_reserve(arena, B, N, mode, buffer));
    PSK_TEST_OK(psk_arena_commit(arena, PSK_FILL_NAN));
    return arena;
}

/* Row by row what the order says, targets one further; a saved cursor continues as if nothing had happened. */
static void batches_follow_the_order(void **state) {
    (void)state;
    enum { B = 3, N = 17 };
    const int64_t total = write_dataset("train", (const int64_t[]){100, 157}, 2);
    psk_dataset dataset;
    psk_order order;
    psk_batch_buffer buffer;
    psk_cursor cursor = {0}, saved = {0};
    int32_t kept[B * N];
    PSK_TEST_OK(psk_dataset_open(folder, "train", &dataset));
    PSK_TEST_OK(psk_order_create(total, N, SEED, &order));
    psk_arena *arena = reserve_batch(B, N, PSK_KEEP_GOING, &buffer);
    psk_cursor expected = {0};
    for (int batch = 0; batch < 20; batch++) { /* 15 windows an epoch: batches run over its end */
        if (batch == 13)
            saved = cursor;
        PSK_TEST_OK(psk_batch_fill(&buffer, &dataset, &order, &cursor));
        assert_int_equal(buffer.counted, B * N);
        assert_null(buffer.positions);
        for (int64_t i = 0; i < B * N; i++) {
            const int64_t at = psk_order_piece(&order, expected, 0).first + i % N;
            assert_int_equal(buffer.tokens[i], test_token(at % total));
            assert_int_equal(buffer.targets[i], test_token((at + 1) % total));
            if (i % N == N - 1)
                expected = psk_order_next(&order, expected, 1);
        }
        if (batch == 13)
            memcpy(kept, buffer.tokens, sizeof kept);
    }
    for (int again = 0; again < 2; again++) { /* resumed twice at the same place */
        cursor = saved;
        PSK_TEST_OK(psk_batch_fill(&buffer, &dataset, &order, &cursor));
        assert_memory_equal(kept, buffer.tokens, sizeof kept);
        PSK_TEST_OK(psk_batch_fill(&buffer, &dataset, &order, &cursor));
        assert_memory_not_equal(kept, buffer.tokens, sizeof kept);
    }
    psk_arena_free(arena);
    psk_dataset_close(&dataset);
}

/* Windows of long documents: contiguous, and nearly all inside one document. */
static void windows_of_long_documents(void **state) {
    (void)state;
    enum { N = 64, LENGTH = 1000, DOCUMENTS = 20 };
    psk_dataset dataset;
    psk_order order;
    psk_shard_writer *writer;
    int64_t inside = 0;
    PSK_TEST_OK(psk_tokenizer_save(bytes_tokenizer, folder));
    PSK_TEST_OK(psk_shard_writer_open(in_folder("train-00000.psk"), bytes_tokenizer, &writer));
    for (int32_t i = 0; i < DOCUMENTS * LENGTH; i++) /* token: place in its document */
        PSK_TEST_OK(psk_shard_writer_append(writer, &(int32_t){i % LENGTH == LENGTH - 1 ? 256 : i % LENGTH % 251}, 1));
    PSK_TEST_OK(psk_shard_writer_close(writer));
    PSK_TEST_OK(psk_dataset_open(folder, "train", &dataset));
    PSK_TEST_OK(psk_order_create(dataset.tokens, N, SEED, &order));
    for (int64_t i = 0; i < order.windows; i++) {
        int32_t tokens[N];
        int64_t ends = 0;
        const int64_t start = psk_order_piece(&order, (psk_cursor){0, i}, 0).first;
        PSK_TEST_OK(psk_dataset_read(&dataset, start, N, tokens));
        for (int64_t n = 0; n < N; n++) {
            const int64_t place = (start + n) % LENGTH;
            assert_int_equal(tokens[n], place == LENGTH - 1 ? 256 : place % 251);
            ends += n + 1 < N && tokens[n] == 256;
        }
        inside += ends == 0;
    }
    assert_in_range(inside, order.windows - DOCUMENTS, order.windows);
    psk_dataset_close(&dataset);
}

/* A document begins at each row and at each end-of-text. */
static void batches_reset_at_documents(void **state) {
    (void)state;
    enum { B = 4, N = 60 };
    const int64_t total = write_dataset("train", (const int64_t[]){500}, 1);
    psk_dataset dataset;
    psk_order order;
    psk_batch_buffer buffer;
    psk_cursor cursor = {0};
    PSK_TEST_OK(psk_dataset_open(folder, "train", &dataset));
    PSK_TEST_OK(psk_order_create(total, N, SEED, &order));
    psk_arena *arena = reserve_batch(B, N, PSK_RESET_AT_DOCUMENTS, &buffer);
    for (int batch = 0; batch < 5; batch++) {
        int64_t document = 0;
        PSK_TEST_OK(psk_batch_fill(&buffer, &dataset, &order, &cursor));
        for (int64_t i = 0; i < B * N; i++) {
            const bool begins = i % N == 0 || buffer.tokens[i] == 256;
            if (begins)
                assert_int_equal(buffer.cu_seqlens[document++], i);
            assert_int_equal(buffer.positions[i], i - buffer.cu_seqlens[document - 1]);
        }
        assert_int_equal(buffer.documents, document);
        assert_int_equal(buffer.cu_seqlens[document], B * N);
        assert_true(document > B);
    }
    psk_arena_free(arena);
    psk_dataset_close(&dataset);
}

/* The windows of an evaluation predict every token but the first, once. */
static void windows_cover_everything(void **state) {
    (void)state;
    const int64_t total = write_dataset("valid", (const int64_t[]){83, 20}, 2);
    const int64_t lengths[] = {1, 2, 17, 34, 51, 102, 103, 200};
    psk_dataset dataset;
    PSK_TEST_OK(psk_dataset_open(folder, "valid", &dataset));
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
        const int64_t N = lengths[l], B = 2, windows = psk_window_count(&dataset, N);
        int seen[103] = {0};
        psk_batch_buffer buffer;
        psk_arena *arena = reserve_batch(B, N, PSK_KEEP_GOING, &buffer);
        for (int64_t first = 0; first < windows; first += B) {
            const int64_t list[] = {first, first + 1}, rows = windows - first < B ? windows - first : B;
            int64_t counted = 0;
            PSK_TEST_OK(psk_batch_fill_windows(&buffer, &dataset, list, rows));
            for (int64_t i = 0; i < B * N; i++) {
                if (buffer.targets[i] < 0)
                    continue;
                const int64_t at = list[i / N] * N + i % N;
                assert_int_equal(buffer.tokens[i], test_token(at));
                assert_int_equal(buffer.targets[i], test_token(at + 1));
                seen[at + 1]++;
                counted++;
            }
            assert_int_equal(buffer.counted, counted);
        }
        for (int64_t i = 0; i < total; i++)
            assert_int_equal(seen[i], i > 0);
        psk_arena_free(arena);
    }
    psk_dataset_close(&dataset);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(shard_round_trip),
        TEST(shard_bytes),
        TEST(shard_damaged),
        TEST(shard_read_checks_tokens),
        TEST(shard_abandoned_leaves_nothing),
        TEST(dataset_is_a_ring),
        TEST(dataset_refuses),
        TEST(dataset_of_one_tokenizer),
        TEST(order_is_a_permutation),
        TEST(order_of_every_size),
        TEST(order_depends_on_seed_and_epoch),
        TEST(order_needs_a_window),
        TEST(batches_follow_the_order),
        TEST(windows_of_long_documents),
        TEST(batches_reset_at_documents),
        TEST(windows_cover_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
