#!/bin/sh
# What the pages show has to be true: relative links lead somewhere, C blocks that include polysketch.h compile, and in sh blocks
# every `polysketch COMMAND --option` is one that the program knows.
#     scripts/check_docs.sh PROGRAM
set -eu
program=$(CDPATH='' cd -- "$(dirname -- "$1")" && pwd)/$(basename -- "$1")
cd "$(dirname -- "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0

complain() {
    echo "$*"
    bad=1
}

# blocks PAGE LANGUAGE: writes each fenced block of the language to $work/block.NUMBER.
blocks() {
    rm -f "$work"/block.*
    awk -v language="$2" -v prefix="$work/block." '
        /^```/ { inside = !inside && $0 == "```" language; file = prefix FNR ".c"; next }
        inside { print > file }' "$1"
}

links() {
    grep -o '](\([^)#]*\)' "$1" | sed 's/^](//' | grep -v -e '^[a-z]*:' -e '^$' | while read -r target; do
        [ -e "$(dirname -- "$1")/$target" ] || echo "$1: link to $target leads nowhere"
    done
}

for page in *.md docs/*.md bench/peers/*.md configs/*.md; do
    [ -e "$page" ] || continue
    broken=$(links "$page")
    [ -z "$broken" ] || complain "$broken"

    blocks "$page" c
    for block in "$work"/block.*; do
        if grep -q 'include <polysketch.h>' "$block" 2>/dev/null; then
            cc -std=c17 -Wall -Wextra -fsyntax-only -Iinclude "$block" || complain "$page: the block at line $(basename "${block##*block.}" .c) does not compile"
        fi
    done

    blocks "$page" sh
    cat "$work"/block.* 2>/dev/null | sed -n ':join; /\\$/ { N; s/\\\n//; b join }; s/#.*//; s/.*polysketch \([a-z][a-z]*\)\(.*\)/\1\2/p' >"$work/commands" || true
    while read -r command arguments; do
        "$program" "$command" --help >"$work/help" 2>&1 || complain "$page: polysketch $command is unknown"
        for option in $(echo "$arguments" | tr ' =' '[\n*]' | grep '^--[a-z]' || true); do
            grep -q -e "$option\\b" "$work/help" || complain "$page: polysketch $command does not know $option"
        done
    done <"$work/commands"
done
[ "$bad" -eq 0 ] && echo "check_docs: links, C blocks and commands hold"
exit "$bad"
