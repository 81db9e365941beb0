#!/bin/sh
# Installs into a temporary prefix, moves it, and builds an example against the pkg-config file and against the CMake package,
# with either library. Also: the shared library exports exactly the functions of the public header.
#     test_install.sh SOURCE_FOLDER BUILD_FOLDER C_COMPILER
set -eu
source=$1 build=$2 compiler=$3
work=$(mktemp -d "${TMPDIR:-/tmp}/psk install.XXXXXX")
trap 'rm -rf "$work"' EXIT
prefix="$work/moved prefix"

fail() {
    echo "test_install: $*" >&2
    exit 1
}

cmake --install "$build" --prefix "$work/first prefix" >"$work/log" || fail "$(cat "$work/log")"
mv "$work/first prefix" "$prefix"
library=$(find "$prefix" -name libpolysketch.so)
libraries=$(dirname "$library")
for file in include/polysketch.h bin/polysketch; do
    [ -f "$prefix/$file" ] || fail "$file was not installed"
done

# The program runs from the prefix.
"$prefix/bin/polysketch" --help >"$work/log" || fail "the installed program does not run"

# The pages find their pictures and each other where they lie.
pages=$(dirname "$(find "$prefix" -name README.md -path '*doc/polysketch/README.md')")
(cd "$pages" && grep -roE --include='*.md' '\]\([^):#]+\.(md|png|json)[)#]' .) |
    sed 's/^\(.*\):](\(.*\)[)#]$/\1 \2/' >"$work/links"
[ -s "$work/links" ] || fail "no link found in $pages"
while read -r page link; do
    [ -f "$pages/$(dirname "$page")/$link" ] || fail "$page links to $link, which was not installed"
done <"$work/links"

# Exports: the header's names on the left, the library's on the right.
tr '\n;' ' \n' <"$prefix/include/polysketch.h" |
    sed -n 's/.*PSK_API [^(]*[ *]\(psk_[a-z0-9_]*\)(.*/\1/p' | sort >"$work/header"
nm -D --defined-only "$library" | sed -n 's/.* [TDRBV] \([a-z_0-9]*\).*/\1/p' | sort >"$work/exports"
[ -s "$work/header" ] || fail "no function found in the header"
diff "$work/header" "$work/exports" >"$work/log" || fail "header (<) and exported symbols (>) differ:
$(cat "$work/log")"

# pkg-config, shared and static. eval: pkg-config escapes the spaces of the path for a shell.
export PKG_CONFIG_PATH="$libraries/pkgconfig"
flags=$(pkg-config --cflags --libs polysketch)
eval "\"\$compiler\" -o \"\$work/shared\" \"\$source/examples/attention.c\" $flags -lm"
LD_LIBRARY_PATH=$libraries "$work/shared" || fail "the example with the shared library failed"
flags="$(pkg-config --cflags polysketch) $(pkg-config --static --libs polysketch | sed 's/-lpolysketch/-l:libpolysketch.a/')"
eval "\"\$compiler\" -o \"\$work/static\" \"\$source/examples/attention.c\" $flags"
"$work/static" || fail "the example with the static library failed"

# The CMake package, shared and static.
for target in polysketch static; do
    if ! { cmake -G Ninja -S "$source/examples" -B "$work/$target.build" -DCMAKE_C_COMPILER="$compiler" \
        -DCMAKE_PREFIX_PATH="$prefix" -DPSK_EXAMPLE_LIBRARY=polysketch::$target &&
        cmake --build "$work/$target.build"; } >"$work/log" 2>&1; then
        fail "polysketch::$target: $(cat "$work/log")"
    fi
    "$work/$target.build/example_attention" || fail "the example with polysketch::$target failed"
done
