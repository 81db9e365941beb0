#include "data/bpe_split.h"

#include "base/memory.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string.h>

/* Unicode's White_Space. PCRE2's own \s has U+180E besides. */
#define SPACE "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"

/* Endings of English, words, numbers, other signs, each with the space before it, and other space: its last character
 * is left for what follows. */
static const char pattern[] = "'(?:[sdmt]|ll|ve|re)"
                              "| ?\\p{L}+"
                              "| ?\\p{N}+"
                              "| ?[^" SPACE "\\p{L}\\p{N}]+"
                              "|[" SPACE "]+(?![^" SPACE "])"
                              "|[" SPACE "]+";

typedef int (*match_function)(const pcre2_code *, PCRE2_SPTR, PCRE2_SIZE, PCRE2_SIZE, uint32_t, pcre2_match_data *,
                              pcre2_match_context *);

struct psk_splitter {
    pcre2_general_context *memory;
    pcre2_code *code;
    match_function match; /* by machine code where PCRE2 has a compiler for this machine */
};

/* failed: a bool that a failure sets, or NULL. */
static void *take(PCRE2_SIZE bytes, void *failed) {
    void *block;
    if (psk_alloc(bytes, "the splitting of text", &block) != PSK_OK && failed)
        *(bool *)failed = true;
    return block;
}

static void give_back(void *block, void *failed) {
    (void)failed;
    psk_free(block);
}

/* Compiles with memory of its own, so that its failures can be told from those of the pattern and of machine code. */
static psk_status compile(psk_splitter *splitter) {
    bool failed = false;
    int error = 0;
    PCRE2_SIZE where;
    pcre2_general_context *const memory = pcre2_general_context_create(take, give_back, &failed);
    pcre2_compile_context *const context = memory ? pcre2_compile_context_create(memory) : NULL;
    if (context)
        splitter->code =
            pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &where, context);
    const bool jit = splitter->code && pcre2_jit_compile(splitter->code, PCRE2_JIT_COMPLETE) == 0;
    pcre2_compile_context_free(context);
    pcre2_general_context_free(memory);
    splitter->match = jit ? pcre2_jit_match : pcre2_match;
    if (failed)
        return psk_fail(PSK_ERROR_MEMORY, "out of memory for the splitting of text");
    if (!splitter->code)
        return psk_fail(PSK_ERROR_UNSUPPORTED, "the PCRE2 library here does not know Unicode's properties (error %d)",
                        error);
    return PSK_OK;
}

psk_status psk_splitter_create(psk_splitter **out) {
    psk_splitter *splitter;
    *out = NULL;
    PSK_TRY(psk_alloc_zero(sizeof *splitter, "the splitting of text", (void **)&splitter));
    splitter->memory = pcre2_general_context_create(take, give_back, NULL);
    const psk_status status =
        splitter->memory ? compile(splitter) : psk_fail(PSK_ERROR_MEMORY, "out of memory for the splitting of text");
    if (status != PSK_OK) {
        psk_splitter_free(splitter);
        return status;
    }
    *out = splitter;
    return PSK_OK;
}

void psk_splitter_free(psk_splitter *splitter) {
    if (!splitter)
        return;
    pcre2_code_free(splitter->code);
    pcre2_general_context_free(splitter->memory);
    psk_free(splitter);
}

psk_status psk_split_match_create(const psk_splitter *splitter, void **match) {
    *match = pcre2_match_data_create(1, splitter->memory);
    return *match ? PSK_OK : psk_fail(PSK_ERROR_MEMORY, "out of memory for the splitting of text");
}

void psk_split_match_free(void *match) {
    pcre2_match_data_free(match);
}

/* Bytes of the well-formed character (Unicode, table 3-7) at text, 0 if there is none. */
static size_t character_size(const unsigned char *text, size_t size) {
    static const struct {
        unsigned char first, last, low, high; /* of the first byte; of the second */
        unsigned char size;
    } forms[] = {
        {0x00, 0x7F, 0x00, 0x00, 1}, {0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3},
        {0xE1, 0xEC, 0x80, 0xBF, 3}, {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3},
        {0xF0, 0xF0, 0x90, 0xBF, 4}, {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4},
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (text[0] < forms[i].first || text[0] > forms[i].last)
            continue;
        if (size < forms[i].size || (forms[i].size > 1 && (text[1] < forms[i].low || text[1] > forms[i].high)))
            return 0;
        for (size_t j = 2; j < forms[i].size; j++)
            if ((text[j] & 0xC0) != 0x80)
                return 0;
        return forms[i].size;
    }
    return 0;
}

/* The first place from `start` on that begins no character. */
static size_t find_valid_end(const char *text, size_t size, size_t start) {
    const uint64_t high_bits = 0x8080808080808080u;
    size_t at = start;
    while (at < size) {
        uint64_t word;
        if (size - at >= sizeof word && (memcpy(&word, text + at, sizeof word), (word & high_bits) == 0)) {
            at += sizeof word;
            continue;
        }
        const size_t step = character_size((const unsigned char *)text + at, size - at);
        if (step == 0)
            return at;
        at += step;
    }
    return at;
}

psk_status psk_split_next(psk_split *split, const char **piece, size_t *size, bool *found) {
    const size_t start = split->next;
    *found = start < split->size;
    if (!*found)
        return PSK_OK;
    if (start >= split->valid_end)
        split->valid_end = find_valid_end(split->text, split->size, start);
    size_t end = start + 1; /* of a byte that is not UTF-8 */
    if (start < split->valid_end) {
        const int result = split->splitter->match(split->splitter->code, (PCRE2_SPTR)split->text, split->valid_end,
                                                  start, PCRE2_NO_UTF_CHECK, split->match, NULL);
        const PCRE2_SIZE *const span = pcre2_get_ovector_pointer(split->match);
        if (result < 0 || span[0] != start || span[1] <= start)
            return psk_fail(result == PCRE2_ERROR_NOMEMORY ? PSK_ERROR_MEMORY : PSK_ERROR_INTERNAL,
                            "PCRE2 gave %d when it was to split text", result);
        end = span[1];
    }
    *piece = split->text + start;
    *size = end - start;
    split->next = end;
    return PSK_OK;
}
