#!/bin/sh
# The quality study in small: two rows, two seeds, run, stopped, gone on with, reported, also in longer windows; and a page
# whose tables are written from it, and checked.
#     test_quality.sh PROGRAM SCRIPT
# Exit code 77 (skipped) without Python 3.
set -eu
program=$1 script=$2
command -v python3 >/dev/null || {
    echo "test_quality: skipped, python3 is not installed"
    exit 77
}
work=$(mktemp -d "${TMPDIR:-/tmp}/psk-quality.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/texts"
i=0
while [ $i -lt 200 ]; do
    echo "It rained on day $i, and nobody came." >>"$work/texts/story.txt"
    i=$((i + 1))
done

study() {
    python3 "$script" run --program "$program" --texts "$work/texts" --output "$work/study" --contexts 32 \
        --vocab-size 256 --batch-tokens 64 --steps 2 --learning-rate 3e-3 --longer 64 --threads 1 --seeds "$@" >"$work/out"
}
lines() {
    wc -l <"$work/study/results.jsonl"
}
expect() { # WHAT GOT WANTED
    [ "$2" -eq "$3" ] || {
        echo "test_quality: $1: $2 instead of $3"
        exit 1
    }
}

study 1 --rows main/softmax
expect "results of one row" "$(lines)" 1
study 1 2 --rows main/softmax 'controls/polynomial p=4, window alone'
expect "results of two rows and two seeds" "$(lines)" 4
study 1 2 --rows main/softmax
expect "results after nothing was left to do" "$(lines)" 4
expect "rows with an error between seeds" "$(grep -c '| 2 | .*±' "$work/study/report.md")" 4 # of them 2 in longer windows
expect "sections in longer windows" "$(grep -c '^## .* in windows of 64$' "$work/study/report.md")" 1
expect "forms with an error between seeds" "$(grep -Ec '^\| (softmax \| [0-9]|polynomial p=4 \|  \|  \|).* ± ' "$work/study/report.md")" 4
rm "$work/study/report.md"
python3 "$script" report --output "$work/study" >"$work/out"
grep -q 'window alone | 2 |' "$work/study/report.md" || {
    echo "test_quality: the report lacks a row"
    exit 1
}
if python3 "$script" run --program "$program" --texts "$work/texts" --output "$work/study" --rows nothing 2>"$work/err"; then
    echo "test_quality: a row that does not exist was accepted"
    exit 1
fi
grep -q "no row is called nothing" "$work/err"

mkdir -p "$work/results/quality"
cp "$work/study/results.jsonl" "$work/results/quality"
printf '<!-- forms 32 2 bytes -->\n<!-- end -->\n\n<!-- rows 32 2 bytes -->\n<!-- end -->\n\n<!-- positions 32 2 bytes 64 -->\n<!-- end -->\n' >"$work/page.md"
page() {
    python3 "$(dirname "$script")/quality_page.py" --results "$work/results" "$@" "$work/page.md" >"$work/out" 2>&1
}
refused() { # WHY
    if page --check; then
        echo "test_quality: a page was accepted $1"
        exit 1
    fi
}
refused "without its tables"
page && page --check
expect "rows on the page" "$(grep -c '^| main/softmax | 2 |' "$work/page.md")" 2
expect "forms on the page" "$(grep -Ec '^\| (softmax|polynomial p=4) \|' "$work/page.md")" 2
echo "Softmax has 3.1415." >>"$work/page.md"
refused "with a loss that was not measured"
sed -i 's/ bytes / /; /3.1415/d' "$work/page.md"
refused "with a table of tokens that were not bytes"
