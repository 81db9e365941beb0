#!/bin/sh
# The demo runs again, with another text too, and removes nothing that it has not made. Only `prepare` is the program itself: what
# follows it is slow and says nothing about that.
#     test_demo.sh PROGRAM DEMO
set -eu
program=$1 demo=$2
work=$(mktemp -d "${TMPDIR:-/tmp}/psk demo.XXXXXX")
trap 'rm -rf "$work"' EXIT

fail() {
    echo "test_demo: $*" >&2
    cat "$work/log" >&2
    exit 1
}

cat >"$work/program" <<END
#!/bin/sh
case \$1 in
prepare) exec '$program' "\$@" ;;
train)
    while [ "\$1" != --output ]; do shift; done
    mkdir "\$2" && touch "\$2/trained" ;;
esac
END
chmod +x "$work/program"
seq 2000 >"$work/numbers.txt"
seq 9000 >"$work/more.txt"

# demonstrate FOLDER [FILE]
demonstrate() {
    folder=$1
    shift
    POLYSKETCH_DEMO=$folder "$demo" "$work/program" "$@" >"$work/log" 2>&1
}

for text in numbers more more; do
    demonstrate "$work/demo" "$work/$text.txt" || fail "did not run with $text.txt"
done
[ "$(wc -c <"$work/demo/tokens/train-00000.psk")" -gt 40000 ] || fail "the tokens are those of the first text"

! demonstrate "$work/demo" "$work/absent.txt" || fail "ran with a text that is not there"
[ -e "$work/demo/run/trained" ] || fail "removed the last run for a text that is not there"

mv "$work/more.txt" "$work/demo/tokens/text"
! demonstrate "$work/demo" "$work/demo/tokens/text" || fail "took a text that it removes"
[ -f "$work/demo/tokens/text" ] || fail "removed the text"

for name in tokens run; do
    mkdir -p "$work/mine/$name"
    touch "$work/mine/$name/work"
    ! demonstrate "$work/mine" "$work/numbers.txt" || fail "took a folder that has a $name of somebody else"
    grep -q "has $name .*POLYSKETCH_DEMO" "$work/log" || fail "does not say what to do"
    [ -f "$work/mine/$name/work" ] || fail "removed a $name that it has not made"
    rm -r "$work/mine"
done
