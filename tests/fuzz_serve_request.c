/* Fuzz target: any bytes as the body of a completion request. What is accepted must be in its ranges. Not built with
 * the tests; from the root folder, after ./bootstrap build: clang -D_GNU_SOURCE -g -O1
 * -fsanitize=fuzzer,address,undefined -Iinclude -Iprograms programs/serve_request.c programs/serve_error.c
 * programs/serve_text.c programs/serve_base64.c programs/options.c programs/terminal.c tests/fuzz_serve_request.c
 * build/release/libpolysketch.a $(pkg-config --libs jansson) -ldnnl -lgomp -lm (and what else the library was built
 * with) -o build/fuzz_serve_request && build/fuzz_serve_request -max_len=2000 */
#include "serve_request.h"

#include <string.h>

#define V 300

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
    if (!condition)
        __builtin_trap();
}

static void check_prompts(const serve_request *request, const serve_limits *limits) {
    require(request->prompt_count >= 1 && request->prompt_count <= limits->prompts);
    for (int64_t i = 0; i < request->prompt_count; i++) {
        const serve_prompt *const prompt = &request->prompts[i];
        require(prompt->text ? prompt->text[prompt->size] == '\0' : prompt->tokens != NULL);
        for (int64_t j = 0; j < prompt->count; j++)
            require(prompt->tokens[j] >= 0 && prompt->tokens[j] < V);
    }
}

static void check_request(const serve_request *request, const serve_limits *limits) {
    check_prompts(request, limits);
    require(request->n >= 1 && request->n <= limits->choices);
    require(request->max_tokens >= 0 && request->max_tokens <= limits->max_tokens);
    require(request->logprobs >= -1 && request->logprobs <= SERVE_TOP_LOGPROBS);
    require(request->stop_count <= SERVE_STOPS);
    for (int64_t i = 0; i < request->stop_count; i++)
        require(strlen(request->stops[i]) >= 1 && strlen(request->stops[i]) <= SERVE_STOP_BYTES);
    require(!request->state_name[0] || serve_name_is_good(request->state_name));
    require(!request->return_name[0] || serve_name_is_good(request->return_name));
    require(psk_sampling_check(&request->sampling, V) == PSK_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const serve_limits limits = {.vocab_size = V, .prompts = 8, .prompt_tokens = 100, .max_tokens = 1000, .choices = 4};
    serve_request request;
    serve_error error = {0};
    if (serve_request_parse((const char *)data, size, &limits, &request, &error)) {
        require(error.http == 0);
        check_request(&request, &limits);
    } else {
        require(error.http >= 400 && error.message[0]);
        json_t *const json = serve_error_json(&error);
        require(json && json_is_string(json_object_get(json_object_get(json, "error"), "message")));
        json_decref(json);
    }
    serve_request_free(&request);
    return 0;
}
