/* What a safetensors file says of itself. */
#ifndef TENSOR_FILE_H
#define TENSOR_FILE_H

#include <stdbool.h>
#include <stdint.h>

/* A line about the file of `bytes` bytes: of how many tensors it is, and of a saved state after how many tokens and of
 * which model. False, and nothing is printed: it is no safetensors, or cannot be read. The tensors are not checked. */
bool tensor_file_print(const char *path, int64_t bytes);

#endif
