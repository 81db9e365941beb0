#!/usr/bin/env python3
"""GPT-2's tokens of a text by tiktoken and by polysketch: the same ids, and how fast, in turn, one thread each.

    python3 bench/peers/tiktoken_speed.py VOCABULARY TEXT [--program build/release/polysketch] [--rounds 5]

VOCABULARY is a folder with GPT-2's vocab.json and merges.txt. A figure is the best of the rounds, by processor time.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import time

# GPT-2's pattern as tiktoken itself writes it.
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""


def byte_of_character():
    """The byte that each character of a vocabulary's names stands for."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


def make_encoding(tiktoken, folder):
    names = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    end = names.pop("<|endoftext|>")
    to_byte = byte_of_character()
    ranks = {bytes(to_byte[character] for character in name): id for name, id in names.items()}
    return tiktoken.Encoding(
        name="gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": end}
    )


def run(program, *arguments):
    return subprocess.run([program, "tokenizer", *arguments], check=True, capture_output=True, text=True).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocabulary", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--program", default="build/release/polysketch")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    try:
        import tiktoken
    except ImportError:
        sys.exit("tiktoken is missing: python3 -m venv peers && peers/bin/pip install tiktoken")
    encoding = make_encoding(tiktoken, options.vocabulary)
    text = options.text.read_bytes().decode("utf-8")
    size = len(text.encode("utf-8"))

    ours = ["encode", "--tokenizer", str(options.vocabulary), str(options.text)]
    if [int(id) for id in run(options.program, *ours).split()] != encoding.encode_ordinary(text):
        sys.exit("the ids differ")
    theirs_best = ours_best = 0.0
    for _ in range(options.rounds):
        start = time.process_time()
        encoding.encode_ordinary(text)
        theirs_best = max(theirs_best, size / 1e6 / (time.process_time() - start))
        printed = run(options.program, *ours, "--time")
        ours_best = max(ours_best, float(re.search(r"([\d.]+) at best", printed).group(1)))
    print(f"{size} bytes, equal ids; tiktoken {tiktoken.__version__}: {theirs_best:.1f} MB/s")
    print(f"polysketch: {ours_best:.1f} MB/s, {ours_best / theirs_best:.1f} times as fast")


if __name__ == "__main__":
    main()
