#include "data/bpe_split.h"

#include "base/memory.h"
#include "base/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

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

psk_status psk_split_next(psk_split *split, const char **piece, size_t *size, bool *found) {
    const size_t start = split->next;
    *found = start < split->size;
    if (!*found)
        return PSK_OK;
    if (start >= split->valid_end)
        split->valid_end = psk_utf8_valid_end(split->text, split->size, start);
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
