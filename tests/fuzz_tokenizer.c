/* Fuzz target: the first byte says what the others are. 'j' a tokenizer.json; 'v' what follows the 256 bytes in the
 * vocabulary of one; 'm' a merges.txt; 's' a SentencePiece model; any other a text for a small vocabulary. What loads
 * has to give texts back. Not built with the tests; from the root folder, with OPTIONS for -D_GNU_SOURCE
 * -DPSK_WITH_PCRE2=1 -DPSK_WITH_SENTENCEPIECE=1 -g -O1 -fsanitize=fuzzer,address,undefined -Iinclude -Isrc:
 *   clang++ -std=c++17 OPTIONS -fno-sanitize=undefined -c src/data/sentencepiece.cc -o build/sentencepiece.o
 *   clang OPTIONS src/base/?*.c src/data/bpe*.c src/data/tokenizer.c src/data/tokenizer_[bms]*.c
 * tests/fuzz_tokenizer.c build/sentencepiece.o -ljansson -lpcre2-8 -lsentencepiece -lsentencepiece_train -lstdc++ -lm
 * -o build/fuzz_tokenizer && build/fuzz_tokenizer -max_len=600 */
#include "base/memory.h"
#include "data/bpe_alphabet.h"
#include "data/tokenizer_kinds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BYTES_SIZE 8192 /* of 256 entries of a vocabulary */
#define PATH_SIZE  32

/* "{"!": 33, ..." for all bytes, without the end. */
static size_t write_bytes(char text[BYTES_SIZE]) {
    size_t size = 0;
    for (int i = 0; i < 256; i++) {
        char name[PSK_BPE_CHARACTER_SIZE];
        const size_t length = psk_bpe_write_byte((unsigned char)i, name);
        size += (size_t)snprintf(text + size, BYTES_SIZE - size, "%c\"%s%.*s\": %d", i ? ',' : '{',
                                 i == '"' || i == '\\' ? "\\" : "", (int)length, name, i);
    }
    return size;
}

/* A file of two parts; its descriptor and path. */
static int make_file(const void *first, size_t first_size, const void *second, size_t second_size,
                     char path[PATH_SIZE]) {
    const int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, first, first_size) != (ssize_t)first_size ||
        write(fd, second, second_size) != (ssize_t)second_size)
        abort();
    snprintf(path, PATH_SIZE, "/proc/self/fd/%d", fd);
    return fd;
}

static psk_status load_json(const char *start, size_t start_size, const uint8_t *data, size_t size,
                            psk_tokenizer **out) {
    char path[PATH_SIZE];
    const int fd = make_file(start, start_size, data, size, path);
    const psk_status status = psk_tokenizer_load(path, out);
    close(fd);
    return status;
}

/* A vocabulary whose entries stand in one of the orders that the merges may build them in. */
static psk_status load_merges(const void *data, size_t size, psk_tokenizer **out) {
    static const char rest[] = ",\"ab\": 256, \"abc\": 257, \"bc\": 258, \"aa\": 259, \"aaa\": 260, \"aaaa\": 261, "
                               "\"<|endoftext|>\": 262}";
    char bytes[BYTES_SIZE], vocab_path[PATH_SIZE], merges_path[PATH_SIZE];
    const int vocab = make_file(bytes, write_bytes(bytes), rest, sizeof rest - 1, vocab_path);
    const int merges = make_file(data, size, "", 0, merges_path);
    const psk_status status = psk_tokenizer_bpe_pair(vocab_path, merges_path, out);
    close(vocab);
    close(merges);
    return status;
}

static psk_status load(const uint8_t *data, size_t size, psk_tokenizer **out) {
    static const char start[] =
        "{\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, \"model\": "
        "{\"vocab\": ";
    char text[sizeof start + BYTES_SIZE];
    switch (data[0]) {
    case 'j':
        return load_json("", 0, data + 1, size - 1, out);
    case 'v':
        memcpy(text, start, sizeof start - 1);
        return load_json(text, sizeof start - 1 + write_bytes(text + sizeof start - 1), data + 1, size - 1, out);
    case 'm':
        return load_merges(data + 1, size - 1, out);
    default:
        return psk_tokenizer_sentencepiece_bytes((const char *)data + 1, size - 1, "fuzz", out);
    }
}

/* A SentencePiece model may lose bytes; any other may not. */
static void use(const psk_tokenizer *tokenizer, const char *text, size_t size, int exact) {
    int32_t *tokens;
    int64_t count;
    char *again;
    size_t again_size;
    if (psk_tokenizer_encode(tokenizer, text, size, &tokens, &count) != PSK_OK)
        abort();
    if (psk_tokenizer_decode(tokenizer, tokens, count, &again, &again_size) != PSK_OK)
        abort();
    if (exact && (again_size != size || memcmp(again, text, size) != 0))
        abort();
    psk_buffer_free(again);
    psk_buffer_free(tokens);
}

/* Loaded once for all texts. */
static psk_tokenizer *small_vocabulary(void) {
    static const char merges[] = "a b\nab c\nb c\na a\naa a\naa aa\naaa a\n";
    static psk_tokenizer *tokenizer;
    if (!tokenizer && load_merges(merges, sizeof merges - 1, &tokenizer) != PSK_OK)
        abort();
    return tokenizer;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char sample[] = "aaaaab abcabc aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa \xE2\x96\x81\xFF\n";
    psk_tokenizer *tokenizer;
    if (size == 0 || !strchr("jvms", data[0]) || data[0] == 0) {
        use(small_vocabulary(), (const char *)data, size, 1);
        return 0;
    }
    if (load(data, size, &tokenizer) != PSK_OK)
        return 0;
    use(tokenizer, sample, sizeof sample - 1, data[0] != 's');
    use(tokenizer, (const char *)data, size, data[0] != 's');
    psk_tokenizer_free(tokenizer);
    return 0;
}
