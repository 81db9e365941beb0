/* Fuzz target: any bytes as a safetensors file. Not built with the tests; from the root folder:
 *   clang -D_GNU_SOURCE -g -O1 -fsanitize=fuzzer,address,undefined -Iinclude -Isrc src/base/?*.c src/io/?*.c
 * tests/fuzz_safetensors.c -ljansson -lm -o build/fuzz_safetensors && build/fuzz_safetensors -max_len=600 */
#include "io/safetensors.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads every byte that the file says it has, so that a pointer outside the mapping is noticed. */
static void read_all(const psk_safetensors *file) {
    volatile unsigned char byte = 0;
    for (int64_t i = 0; i < psk_safetensors_count(file); i++) {
        const psk_tensor_view *view = psk_safetensors_at(file, i);
        const int64_t bytes = view->count * psk_dtype_size(view->dtype);
        for (int64_t j = 0; j < bytes; j++)
            byte = ((const unsigned char *)view->data)[j];
        if (psk_safetensors_find(file, view->name) != view)
            __builtin_trap();
    }
    (void)byte;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[32];
    const int fd = memfd_create("fuzz", MFD_CLOEXEC);
    psk_safetensors *file;
    if (fd >= 0 && write(fd, data, size) == (ssize_t)size) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (psk_safetensors_open(path, &file) == PSK_OK) {
            read_all(file);
            psk_safetensors_close(file);
        }
    }
    close(fd);
    return 0;
}
