/* Attention alone: one causal call of polysketch with an exact local window, without any model around it.
 *     cc attention.c $(pkg-config --cflags --libs polysketch) && ./a.out */
#include <polysketch.h>
#include <stdio.h>
#include <stdlib.h>

/* n numbers in [-1, 1): stand-ins for what a model would compute. */
static float *numbers(int64_t n) {
    float *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; x != NULL && i < n; i++)
        x[i] = 2.0f * (float)rand() / ((float)RAND_MAX + 1.0f) - 1.0f;
    return x;
}

int main(void) {
    enum { B = 1, H = 4, N = 4096, h = 64, r = 32 };
    const psk_attention_shape shape = {.B = B, .H = H, .Hkv = H, .Nq = N, .Nk = N, .h = h, .d = h, .r = r};
    const psk_attention_config config =
        psk_attention_config_default(); /* degree 4 in a window of 256, r = 32 beyond it */
    float *q = numbers(B * H * N * h), *k = numbers(B * H * N * h), *v = numbers(B * H * N * h);
    float *a = numbers(B * H * N * r), *b = numbers(B * H * N * r); /* the sketches of q and k */
    float *out = numbers(B * H * N * h), *normaliser = numbers(B * H * N);
    const psk_attention_tensors tensors = {
        .q = q, .k = k, .v = v, .a = a, .b = b, .out = out, .normaliser = normaliser};

    psk_device *device = NULL;
    psk_attention *attention = NULL;
    psk_status status = normaliser == NULL ? PSK_ERROR_MEMORY : psk_device_create("auto", 0, &device);
    if (status == PSK_OK)
        status = psk_attention_create(device, &config, &shape, &attention);
    if (status == PSK_OK)
        status = psk_attention_forward(attention, &tensors);
    if (status == PSK_OK)
        printf("%s: %d tokens, %.1f MiB of workspace, last token: %g %g %g ...\n", psk_device_description(device), N,
               (double)psk_attention_bytes(attention) / 1048576.0, out[(N - 1) * h], out[(N - 1) * h + 1],
               out[(N - 1) * h + 2]);
    else
        fprintf(stderr, "%s: %s\n", psk_status_name(status), psk_error_message());

    psk_attention_free(attention);
    psk_device_free(device);
    float *const buffers[] = {q, k, v, a, b, out, normaliser};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        free(buffers[i]);
    return status == PSK_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
