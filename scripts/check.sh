#!/bin/sh
# All static checks; every one runs, the status says whether all passed.
#     scripts/check.sh        (./bootstrap check installs what it needs first)
set -u
cd "$(dirname -- "$0")/.." || exit 1
failed=''

# check NAME COMMAND...
check() {
    name=$1
    shift
    echo "check: --- $name ---"
    "$@" || failed="$failed $name"
}

sources() {
    find include src programs examples tests bench experiments \( -name '*.[ch]' -o -name '*.cc' \) -print0
}

# Versions of clang-format differ in small things.
format_version=14
formatting() {
    clang-format --version | grep -q "version $format_version\." || {
        echo "skipped: the sources follow clang-format $format_version, here is $(clang-format --version)"
        return 0
    }
    sources | xargs -0 clang-format --dry-run -Werror
}

scripts() {
    find bootstrap .ci/run scripts tests -type f \( -name '*.sh' -o -path bootstrap -o -path .ci/run \) -print0 |
        xargs -0 shellcheck
}

# warnings COMPILER: the optimised build, where the compiler sees most, with warnings as errors.
warnings() {
    cmake --preset release -B "build/check-$1" -DCMAKE_C_COMPILER="$1" -DPSK_WERROR=ON >"build/check-$1.log" 2>&1 || {
        cat "build/check-$1.log"
        return 1
    }
    cmake --build "build/check-$1" --parallel "$(nproc)"
}

mkdir -p build
check arrows scripts/check_arrows.sh
check formatting formatting
check scripts scripts
check gcc warnings gcc
check clang warnings clang
check docs scripts/check_docs.sh build/check-gcc/polysketch
check figures experiments/quality_page.py --check README.md docs/quality.md

if [ -n "$failed" ]; then
    echo "check: FAILED:$failed"
    exit 1
fi
echo "check: all passed"
