# Flags of every target (psk_options) and those of single folders and files of src/.
add_library(psk_options INTERFACE)
target_compile_definitions(psk_options INTERFACE _GNU_SOURCE) # POSIX files, threads and CPU masks beside plain C17
target_compile_options(psk_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion)
if(CMAKE_C_COMPILER_ID MATCHES "Clang") # enumerators are integer constants here, floating-point numbers may meet them
    target_compile_options(psk_options INTERFACE -Wno-enum-float-conversion)
endif()
if(PSK_WERROR)
    target_compile_options(psk_options INTERFACE -Werror)
endif()
if(PSK_SANITIZE)
    target_compile_options(psk_options INTERFACE -fsanitize=${PSK_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(psk_options INTERFACE -fsanitize=${PSK_SANITIZE})
    # gcc's frames for finding uses after return, on by default from gcc 13 on, break the alignment of 64-byte vectors.
    if(PSK_SANITIZE MATCHES "address" AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
        target_compile_options(psk_options INTERFACE "SHELL:--param asan-use-after-return=0")
    endif()
endif()

# gcc 12 for aarch64 ends with an internal error ("in vect_transform_reduction") when it vectorises a loop that keeps the
# fmax of doubles made from floats, so it vectorises the fast loops alone, which have none.
if(CMAKE_C_COMPILER_ID STREQUAL "GNU" AND CMAKE_C_COMPILER_VERSION VERSION_LESS 13
   AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
    target_compile_options(psk_options INTERFACE -fno-tree-loop-vectorize)
    set(PSK_VECTORISE -ftree-loop-vectorize)
endif()

# The fast loops only. Neither flag changes a result:
#   -fno-math-errno      sqrtf becomes one instruction, for nothing reads errno after it;
#   -fno-trapping-math   both sides of a condition may be computed, which is what turns a loop with a condition into
#                        vector code; nothing reads the floating-point exception flags.
# -ffp-contract=fast lets a b + c be one FMA where the file's instruction set has it (one rounding less).
# Never -ffast-math: it would let the compiler drop the checks for NaN and reorder sums.
set(PSK_CPU_FLAGS -fno-math-errno -fno-trapping-math -ffp-contract=fast ${PSK_VECTORISE})

# Files for one instruction set are chosen at run time; all others are compiled for the baseline of the architecture.
set(PSK_NEONBF16_FLAGS -march=armv8.2-a+bf16)
set(PSK_AVX2_FLAGS -mavx2 -mfma -mf16c)
set(PSK_AVX512_FLAGS -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mprefer-vector-width=512)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    set(PSK_FOREIGN_FILES "_neonbf16\\.c$")
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
    set(PSK_FOREIGN_FILES "_(avx2|avx512|avx512bf16|amx)\\.c$")
    if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
        # As gcc does for x86-64: moving loads up leaves the products of fused attention without registers for their sums.
        list(APPEND PSK_CPU_FLAGS -fno-schedule-insns)
    endif()
else()
    set(PSK_FOREIGN_FILES "_(neonbf16|avx2|avx512|avx512bf16|amx)\\.c$")
endif()
