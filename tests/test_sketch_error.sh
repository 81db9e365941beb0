#!/bin/sh
# The experiment on sketches in small: its tables are whole, its figures say what they must.
#     test_sketch_error.sh PROGRAM
set -eu
program=$1
work=$(mktemp -d "${TMPDIR:-/tmp}/psk-sketch-error.XXXXXX")
trap 'rm -rf "$work"' EXIT

expect() { # WHAT GOT WANTED
    [ "$2" -eq "$3" ] || {
        echo "test_sketch_error: $1: $2 instead of $3"
        exit 1
    }
}
# lines KIND CONDITION: how many lines of figures of the kind meet a condition on `x`, the named member's value.
lines() { # KIND MEMBER CONDITION
    grep "\"figures\": \"$1\"" "$work/figures.jsonl" | sed "s/.*\"$2\": \([^,}]*\).*/\1/" | awk "{ x = \$1 } $3 { n++ } END { print n + 0 }"
}

"$program" --seeds 2 --tokens 160 --length 300 --json "$work/figures.jsonl" >"$work/tables"
expect "rows of the tables" "$(grep -c '^| ' "$work/tables")" 56
expect "figures that are not numbers" "$(grep -c -e nan -e inf "$work/figures.jsonl" || true)" 0
expect "forms of sketches" "$(lines sketch sketch_size 'x >= 8')" 20
expect "errors of weights" "$(lines sketch self_rms 'x > 0.05 && x < 1000')" 20
expect "errors of attention" "$(lines sketch attention_anywhere_none 'x > 0.3 && x < 2')" 20
expect "exact weights" "$(lines sketch unrelated_exact 'x > 1e-6 && x < 1e-3')" 20
expect "local parts alone" "$(lines 'local part alone' attention_anywhere_block 'x > 0.3 && x < 2')" 2
expect "sizes of blocks" "$(lines blocks max_difference 'x < 1e-5')" 7
expect "states" "$(lines blocks state_max_difference 'x < 1e-5')" 7
expect "blocks that differ at all" "$(($(lines blocks max_difference 'x > 0') > 0))" 1

if "$program" --seeds none 2>"$work/error"; then
    echo "test_sketch_error: a wrong number was accepted"
    exit 1
fi
grep -q usage "$work/error"
