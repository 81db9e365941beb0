# ThreadSanitizer sees only synchronisation that it can observe. gcc's libgomp is not instrumented and waits on raw
# futexes, so every OpenMP barrier would look like a race. LLVM's OpenMP tells the sanitizer about its barriers through the
# tool Archer; hence this lane is clang + libomp, without suppressing anything. oneDNN is off in it, because Debian's
# is built on libgomp: the built-in loops run instead, and with them our own threading is seen whole.
get_filename_component(openmp_folder "${OpenMP_omp_LIBRARY}" DIRECTORY)
find_library(ARCHER_LIBRARY archer HINTS "${openmp_folder}")
psk_require(ARCHER_LIBRARY "Archer (OpenMP under ThreadSanitizer)" libomp-dev)
list(APPEND test_environment "OMP_TOOL_LIBRARIES=${ARCHER_LIBRARY}" "TSAN_OPTIONS=ignore_noninstrumented_modules=1")
