/* Fuzz target: damaged states of sessions. Input: the attention of a tiny model, bytes to cut off the end, then edits
 * of a whole state (place, 2 bytes, and value), most of them in its header. What is accepted must decode. Not built
 * with the tests; from the root folder: CC=clang CXX=clang++ cmake --preset asan -B build/fuzz && cmake --build
 * build/fuzz --target polysketch_shared && clang -D_GNU_SOURCE -g -O1 -fsanitize=fuzzer,address,undefined -Iinclude
 * tests/fuzz_session.c build/fuzz/libpolysketch.so -Wl,-rpath,build/fuzz -o build/fuzz_session && build/fuzz_session
 * -max_len=60 */
#include "polysketch.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TOKENS 11
#define V      13

static void must(psk_status status) {
    if (status != PSK_OK)
        __builtin_trap();
}

static const struct {
    psk_mechanism mechanism;
    psk_local local;
} forms[] = {{PSK_SOFTMAX, PSK_LOCAL_NONE},
             {PSK_POLYSKETCH, PSK_LOCAL_NONE},
             {PSK_POLYSKETCH, PSK_LOCAL_BLOCK},
             {PSK_POLYSKETCH, PSK_LOCAL_WINDOW},
             {PSK_SOFTMAX, PSK_LOCAL_WINDOW}};
#define FORMS (sizeof forms / sizeof *forms)

typedef struct subject {
    psk_model *model;
    void *state; /* of TOKENS tokens */
    size_t size;
} subject;

static void make_subject(psk_device *device, size_t form, subject *s) {
    psk_model_config config = {.vocab_size = V,
                               .n_positions = 16,
                               .n_embd = 8,
                               .n_layer = 2,
                               .n_head = 2,
                               .attention = psk_attention_config_default()};
    const int32_t tokens[TOKENS] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    psk_session *session;
    config.attention.mechanism = forms[form].mechanism;
    config.attention.local = forms[form].local;
    config.attention.local_only = forms[form].mechanism == PSK_SOFTMAX && forms[form].local != PSK_LOCAL_NONE;
    config.attention.sketch_size = 3;
    config.attention.block_size = 4;
    must(psk_model_create(device, &config, 1, &s->model));
    must(psk_session_create(s->model, &session));
    must(psk_session_append(session, tokens, TOKENS, NULL));
    must(psk_session_pack(session, &s->state, &s->size));
    psk_session_free(session);
}

static const subject *subject_of(uint8_t choice) {
    static subject subjects[FORMS];
    static psk_device *device;
    if (device == NULL)
        must(psk_device_create("cpu", 1, &device));
    subject *s = &subjects[choice % FORMS];
    if (s->model == NULL)
        make_subject(device, choice % FORMS, s);
    return s;
}

static void decode(psk_session *session) {
    const int32_t token = 5;
    float logits[V];
    must(psk_session_step(&session, 1, &token, logits));
    must(psk_session_append(session, &token, 1, logits));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    const subject *s = subject_of(data[0]);
    const size_t left = s->size - data[1] % s->size;
    uint8_t *const bytes = malloc(left);
    psk_session *session;
    memcpy(bytes, s->state, left);
    for (size_t i = 2; i + 3 <= size; i += 3)
        bytes[(data[i] + 256U * data[i + 1]) % left] = data[i + 2];
    if (psk_session_unpack(s->model, bytes, left, &session) == PSK_OK) {
        if (psk_session_length(session) < INT32_MAX - 2) /* positions end there */
            decode(session);
        psk_session_free(session);
    } else if (*psk_error_message() == '\0') {
        __builtin_trap();
    }
    free(bytes);
    return 0;
}
