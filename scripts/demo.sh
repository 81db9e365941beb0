#!/bin/sh
# The demo: a real book becomes token shards, a small PolySketchFormer learns from it, is tested on the part of the book that it has
# not seen, writes a paragraph, and two pictures are drawn. Less than 5 minutes on 2 cores. Called by `./bootstrap demo [FILE]`.
#
#   scripts/demo.sh PROGRAM [FILE]      PROGRAM: the built polysketch; FILE: a text of your own instead of the King James Bible
#
# POLYSKETCH_DEMO      where everything goes (default: demo/ beside this script's folder)
# POLYSKETCH_SECONDS   seconds of training (default 200)
set -eu

program=$1
text=${2:-}
here=$(cd "$(dirname "$0")/.." && pwd)
out=${POLYSKETCH_DEMO:-$here/demo}
seconds=${POLYSKETCH_SECONDS:-200}

say() {
    printf '\n== %s\n' "$*"
}

# Prints the command as it could be typed, then runs it.
run() {
    printf '$ polysketch'
    for word in "$@"; do
        case $word in
        *[!A-Za-z0-9_./=,-]*) printf " '%s'" "$word" ;;
        *) printf ' %s' "$word" ;;
        esac
    done
    printf '\n'
    "$program" "$@"
}

# What an earlier demo made is made again; a folder that has such names without its mark is somebody else's.
mkdir -p "$out"
for name in tokens run; do
    [ ! -e "$out/$name" ] || [ -e "$out/made-by-demo" ] || {
        echo "demo: $out has $name but not the demo's mark, $out/made-by-demo: remove $name, or name another folder with" \
            "POLYSKETCH_DEMO" >&2
        exit 1
    }
done
if [ -z "$text" ]; then
    text=$out/king-james-bible.txt
    if [ ! -s "$text" ]; then
        bible -f Gen1:1-Rev22:21 >"$text.part"
        mv "$text.part" "$text"
    fi
elif [ ! -e "$text" ]; then
    echo "demo: $text is not there" >&2
    exit 1
fi
case $(realpath "$text")/ in
"$(realpath "$out")"/tokens/* | "$(realpath "$out")"/run/*)
    echo "demo: $text lies in a folder that the demo makes anew: move it, or name another folder with POLYSKETCH_DEMO" >&2
    exit 1
    ;;
esac
touch "$out/made-by-demo"
rm -rf "$out/tokens" "$out/run"

say "1/6  Tokens: every byte of $(basename "$text") is one; the last tenth is held out"
run prepare "$text" --output "$out/tokens" --valid 0.1

say "2/6  Training for $seconds seconds (Ctrl-C stops it cleanly; the program then says how to go on)"
run train --data "$out/tokens" --output "$out/run" --preset mini --width 128 --heads 2 --sketch-size 16 --block-size 32 \
    --context 512 --batch-size 4 --steps 100000 --seconds "$seconds" --eval-every 200 --save-every 400 \
    --learning-rate 4e-3 --min-learning-rate 2e-4

say "3/6  The held-out tenth"
run eval --model "$out/run" --data "$out/tokens" --max-tokens 200000 --json "$out/eval.json"

say "4/6  A paragraph"
run generate --model "$out/run" --prompt 'And it came to pass' --max-tokens 400 --temperature 0.7 --seed 1

say "5/6  The loss as a picture"
run plot "$out/run" --output "$out/loss.png"

say "6/6  Time per token against context length, softmax and polysketch"
run bench attention --mechanisms softmax,polysketch --lengths 512,1k,2k,4k,8k,16k --heads 2 --samples 3 --limit 1 \
    --plot "$out/time-per-token.png" --json "$out/bench.json"

cat <<EOF

Everything is in $out:
  run/                   the trained model (config.json, model.safetensors), checkpoints, metrics.jsonl, TensorBoard events
  loss.png               loss while training, on the training text and on the held-out text
  time-per-token.png     what a token costs as the context grows
  eval.json, bench.json  the figures

What to type next:
  "$program" generate --model "$out/run" --prompt 'In the beginning' --max-tokens 1000
  "$program" train --help
  ./bootstrap demo FILE     the same with a text of your own
EOF
