#!/bin/sh
# Who may include whom (docs/architecture.md). Prints each violation as file:line and fails if there is one.
#     scripts/check_arrows.sh [ROOT]
set -eu
cd "${1:-$(dirname -- "$0")/..}"

# shellcheck disable=SC2016 # the $ are those of awk
find src programs examples -type f \( -name '*.[ch]' -o -name '*.cc' -o -name '*.def' -o -name '*.inc' \) -exec awk '
BEGIN {
    # folder of src/ -> folders whose headers it may include, beside its own; polysketch.h may be included by all
    allowed["base"]      = ""
    allowed["io"]        = "base"
    allowed["device"]    = "base"
    allowed["reference"] = "device base"
    allowed["cpu"]       = "device base"
    allowed["attention"] = "device base"
    allowed["model"]     = "attention device io base"
    allowed["data"]      = "io base"
    allowed["infer"]     = "model data attention device io base"
    allowed["train"]     = "model data attention device io base"
    allowed["src"]       = "train infer data model attention reference cpu device io base" # devices.c, measure.c
    # what only some folders may use
    only["#pragma omp"]         = "cpu data"
    only["#include <omp.h>"]    = "cpu data src"
    only["#include <oneapi"]    = "cpu"
    only["#include <pcre2"]     = "data"
    only["#include <sentencep"] = "data"
}

function contains(words, word) {
    return index(" " words " ", " " word " ") > 0
}

function violation(text) {
    printf "%s:%d: %s\n", FILENAME, FNR, text
    bad = 1
}

FNR == 1 {
    parts = split(FILENAME, path, "/")
    inside = path[1] == "src"
    here = inside && parts > 2 ? path[2] : path[1]
    if (inside && !(here in allowed))
        violation("folder src/" here " is not in the list of scripts/check_arrows.sh")
}

{
    line = $0
    sub(/^[ \t]*#[ \t]*/, "#", line)
    if (inside)
        for (use in only)
            if (index(line, use) == 1 && !contains(only[use], here))
                violation("\"" use "\" belongs to " only[use] " alone")
}

line ~ /^#include "/ {
    split(line, quoted, "\"")
    header = quoted[2]
    slash = index(header, "/")
    there = slash ? substr(header, 1, slash - 1) : ""
    if (header == "polysketch.h")
        next
    if (!inside && slash)
        violation("includes \"" header "\", but sees only polysketch.h and its own headers")
    else if (inside && !slash)
        violation("includes \"" header "\": write folder/file")
    else if (inside && there != here && !contains(allowed[here], there))
        violation("src/" here " must not include \"" header "\"")
}

END { exit bad }
' {} +
echo "check_arrows: every include follows the arrows"
