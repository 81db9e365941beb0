#!/bin/sh
# Runs the blocks of a page that are marked `sh run`, in order, in an empty folder, with the built program on the path.
#     test_tutorial.sh PROGRAM PAGE
# Exit code 77 (skipped) where something that the page names as its needs is absent.
set -eu
program=$1 page=$2
work=$(mktemp -d "${TMPDIR:-/tmp}/psk-tutorial.XXXXXX")
trap 'rm -rf "$work"' EXIT

skip() {
    echo "test_tutorial: skipped, $*"
    exit 77
}

command -v gnuplot >/dev/null || skip "gnuplot is not installed"
[ -d /usr/share/common-licenses ] || skip "/usr/share/common-licenses is not there"

awk '/^```/ { inside = !inside && $0 == "```sh run"; next } inside' "$page" >"$work/script"
[ -s "$work/script" ] || {
    echo "test_tutorial: $page has no block marked sh run"
    exit 1
}
mkdir "$work/folder"
cd "$work/folder"
PATH=$(dirname -- "$program"):$PATH sh -eux "$work/script"

for file in eval.json questions.json tasks.jsonl positions.png bench.json loss.png time-per-token.png both.png run/best/model.safetensors; do
    [ -s "$file" ] || {
        echo "test_tutorial: $file was not made"
        exit 1
    }
done
