#!/usr/bin/env python3
"""The quality study: one small model for each form of attention, on the same books, in the same order, equally long.

    experiments/quality.py run    --texts DIR --output STUDY [--rows 'main/*' ...] [--seeds 1 2 3] [--steps 1000]
    experiments/quality.py list   [--rows ...]            the rows, with what they give to `polysketch train`
    experiments/quality.py report --output STUDY          tables (STUDY/report.md) and pictures from STUDY/results.jsonl

DIR holds train/ and valid/ with .txt files, or just .txt files (then the last tenth of each is held out). `run` can be
stopped at any time with Ctrl-C and started again: finished rows are skipped, the one at work goes on from its last
checkpoint. Only the Python standard library is used; pictures need gnuplot.
"""

import argparse
import fnmatch
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time

from quality_pictures import draw_losses, draw_positions
from quality_results import BLOCK, BYTES, KEY, key_of, read_results, sections, table, table_forms

# ----------------------------------------------------------------------------------------------------------------- rows

# The model of all rows: 1.8 M parameters on bytes.
MODEL = {"preset": "mini"}


def form(**options):
    """Options of `polysketch train` for one form of attention."""
    return {name.replace("_", "-"): value for name, value in options.items()}


HEAD = 64  # h of the model


def even(sketch, r):
    """The far_scale with which an unrelated far key weighs at the start what a near one does (docs/mathematics.md)."""
    return 3 * HEAD**2 / r if sketch == "learned" else 3 * r / HEAD**2


def sketched(sketch, r, local, b=BLOCK, **more):
    scale = {} if local == "none" else {"far_scale": even(sketch, r)}
    return form(attention="polysketch", sketch=sketch, sketch_size=r, local=local, block_size=b, degree=4,
                **{**scale, **more})


def all_rows():
    """Name -> options of training. The part before the slash is the question that the row helps to answer."""
    rows = {"main/softmax": form(attention="softmax"),
            "main/performer m=256": form(attention="performer", sketch_size=256)}
    for p in (2, 4, 8):
        rows[f"main/polynomial p={p}"] = form(attention="polynomial", degree=p)
    for sketch in ("random", "learned", "learned_linear"):
        for r in (16, 32):
            for local in ("none", "block", "window"):
                rows[f"main/{sketch} r={r} {local}"] = sketched(sketch, r, local)
    # A window of b has b to 2 b - 1 exact keys, a block 1 to b; a third of b costs what a block of b does.
    for sketch in ("random", "learned", "learned_linear"):
        rows[f"cost/{sketch} r=32 window b={BLOCK // 3}"] = sketched(sketch, 32, "window", BLOCK // 3)
    # What does the far part add? With far_scale 0 its weights are 0: the exact part alone.
    for local in ("block", "window"):
        rows[f"controls/softmax, {local} alone"] = form(attention="softmax", local=local, block_size=BLOCK)
        rows[f"controls/polynomial p=4, {local} alone"] = sketched("learned_linear", 1, local, far_scale=0)
    # Polynomial and sketched weights read LayerNormed q and k, GPT-2's softmax does not: is it the norms?
    rows["controls/softmax, qk_norm"] = form(attention="softmax", qk_norm=True)
    rows["controls/softmax, qk_norm, window alone"] = form(attention="softmax", qk_norm=True, local="window",
                                                           block_size=BLOCK)
    rows["controls/softmax, window b=16 alone"] = form(attention="softmax", local="window", block_size=16)
    for b in (16, BLOCK // 3):
        rows[f"controls/polynomial p=4, window b={b} alone"] = sketched("learned_linear", 1, "window", b, far_scale=0)
    for b in (16, 32, 128, 256):
        rows[f"sizes/learned_linear r=32 window b={b}"] = sketched("learned_linear", 32, "window", b)
    # A window so small that what is beyond it matters soon.
    for sketch in ("learned", "random"):
        rows[f"sizes/{sketch} r=32 window b=16"] = sketched(sketch, 32, "window", 16)
    for r in (8, 64):
        rows[f"sizes/learned_linear r={r} window"] = sketched("learned_linear", r, "window")
    # How loud far keys start; a window of 16 leaves most of what a token needs to them. Other
    # rows start even, whatever the program's default is: what they are should not change with it.
    for sketch, scales in (("learned_linear", (1 / 32**2, 0.006, 0.1, 1)), ("learned", (1, 10, 100, 1000)),
                           ("random", (1 / 32**2, 0.1, 1))):
        for local, b in (("block", BLOCK), ("window", BLOCK), ("window b=16", 16)):
            for scale in scales:
                text = "1/r^2" if scale == 1 / 32**2 else scale
                rows[f"scale/{sketch} r=32 {local}, far_scale {text}"] = sketched(sketch, 32, local.split()[0], b,
                                                                                 far_scale=scale)
    for local, b in (("window", BLOCK), ("window b=16", 16)):
        rows[f"scale/learned_linear r=32 {local}, far_gain"] = sketched("learned_linear", 32, "window", b,
                                                                       far_gain=True)
    # The sinusoids that the paper adds to the embeddings, beside RoPE.
    for scale in (0.1, 1):
        rows[f"positions/softmax, position_scale {scale}"] = form(attention="softmax", position_scale=scale)
        rows[f"positions/learned_linear r=32 window, position_scale {scale}"] = sketched("learned_linear", 32, "window",
                                                                                         position_scale=scale,
                                                                                         far_scale=1)
    return rows


def chosen_rows(patterns):
    rows = {name: options for name, options in all_rows().items()
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}
    if not rows:
        sys.exit(f"quality.py: no row is called {' or '.join(patterns)}; `quality.py list --rows '*'` shows them")
    return rows


# -------------------------------------------------------------------------------------------------------------- running


def command(settings, *words, **options):
    """`polysketch WORDS --name value ...` as a list; True is a flag."""
    line = [settings.program, *words]
    for name, value in options.items():
        line += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return line


def call(line, log):
    """Runs a command with its output in a file; ends the study where it fails or is stopped."""
    with open(log, "a", encoding="utf-8") as out:
        out.write(" ".join(line) + "\n")
        out.flush()
        with subprocess.Popen(line, stdout=out, stderr=subprocess.STDOUT) as process:
            try:
                code = process.wait()
            except KeyboardInterrupt:  # Ctrl-C reaches the command too: it writes its checkpoint
                process.wait()
                raise
    if code != 0:
        sys.exit(f"quality.py: {' '.join(line)}\nended with exit code {code}; see {log}")


def vocabulary(settings, texts, log):
    """The tokenizer: bytes, or one made of the texts to learn from."""
    if settings.vocab_size == BYTES:
        return "bytes"
    folder = os.path.join(settings.output, f"vocabulary-{settings.vocab_size}")
    if not os.path.exists(os.path.join(folder, "tokenizer.json")):
        call(command(settings, "tokenizer", "train", texts, output=folder, vocab_size=settings.vocab_size), log)
    return folder


def prepare(settings):
    """Tokens to learn from, and (folder, split) of those held out."""
    train, valid = (os.path.join(settings.texts, name) for name in ("train", "valid"))
    tokens, held_out = (os.path.join(settings.output, f"{name}-{settings.vocab_size}")
                        for name in ("tokens", "held-out"))
    log = os.path.join(settings.output, "prepare.log")
    whole = os.path.isdir(train) and os.path.isdir(valid)
    jobs = [(train, tokens, 0), (valid, held_out, 0)] if whole else [(settings.texts, tokens, 0.1)]
    for texts, folder, fraction in jobs:
        if not os.path.exists(os.path.join(folder, "tokenizer.json")):
            shutil.rmtree(folder, ignore_errors=True)
            call(command(settings, "prepare", texts, output=folder, valid=fraction,
                         tokenizer=vocabulary(settings, train if whole else settings.texts, log)), log)
    return (tokens, held_out, "train") if whole else (tokens, tokens, "valid")


def key_of_job(settings, row, seed, context):
    return (row, seed, context, settings.vocab_size, settings.steps, settings.batch_tokens, settings.learning_rate,
            settings.precision)


def read_metrics(run):
    with open(os.path.join(run, "metrics.jsonl"), encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def evaluate(settings, run, context, held_out, split):
    """What `polysketch eval` says of a finished run in windows of the context."""
    figures = os.path.join(run, f"eval-{context}.json")
    call(command(settings, "eval", model=os.path.join(run, "last"), data=held_out, split=split, context=context,
                 batch_size=max(1, settings.batch_tokens // context), max_tokens=settings.eval_tokens, json=figures,
                 **settings.machine), os.path.join(run, "log"))
    with open(figures, encoding="utf-8") as file:
        return json.load(file)


def measure(settings, row, options, seed, context, held_out, split, run):
    """The line of results.jsonl for a finished run."""
    held = evaluate(settings, run, context, held_out, split)
    steps = read_metrics(run)
    last = steps[-max(1, len(steps) // 20):]
    batch_tokens = steps[0]["tokens"]
    rates = [batch_tokens / step["tokens_per_second"] for step in steps if step["tokens_per_second"]]
    longer = [evaluate(settings, run, length, held_out, split) for length in settings.longer]
    return {**dict(zip(KEY, key_of_job(settings, row, seed, context))), "options": options,
            "train_loss": statistics.fmean(step["loss"] for step in last), "loss": held["loss"],
            "stderr": held["stderr"], "bits_per_byte": held["bits_per_byte"], "eval_tokens": held["tokens"],
            "seconds_per_step": statistics.median(rates), "memory_bytes": max(step["memory_bytes"] for step in steps),
            "by_position": held["by_position"],
            "longer": [{name: figures[name] for name in ("context", "loss", "stderr", "by_position")}
                       for figures in longer], "version": held["version"], "machine": platform.processor() or
            platform.machine(), "threads": settings.machine.get("threads", os.cpu_count()),
            "date": time.strftime("%Y-%m-%d")}


def train(settings, options, seed, context, tokens, run):
    log = os.path.join(run, "log")
    os.makedirs(run, exist_ok=True)
    if os.path.exists(os.path.join(run, "last")):
        call(command(settings, "train", output=run, resume=True, steps=settings.steps, **settings.machine), log)
        return
    batch = {"batch_size": max(1, settings.batch_tokens // context), "context": context}
    call(command(settings, "train", data=tokens, output=run, steps=settings.steps, seed=seed,
                 learning_rate=settings.learning_rate, min_learning_rate=settings.learning_rate / 10,
                 warmup_steps=min(100, settings.steps // 10), eval_every=0, save_every=settings.save_every, keep_last=1,
                 **MODEL, **{**batch, **options}, **settings.machine), log)


def run_row(settings, row, options, seed, context, data, results):
    tokens, held_out, split = data
    context_here = options.get("context", context)
    name = "".join(c if c.isalnum() or c in "._=-" else "-"
                   for c in f"{row}-v{settings.vocab_size}-n{context}-s{seed}-t{settings.steps}-{settings.learning_rate:g}")
    run = os.path.join(settings.output, "runs", name)
    train(settings, options, seed, context_here, tokens, run)
    result = measure(settings, row, options, seed, context_here, held_out, split, run)
    result["context"] = context
    with open(results, "a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")
    if not settings.keep:
        shutil.rmtree(run)
    print(f"{row}, context {context}, seed {seed}: held out {result['loss']:.4f} +- {result['stderr'] or math.nan:.4f},"
          f" train {result['train_loss']:.4f}, {1e3 * result['seconds_per_step']:.0f} ms a step", flush=True)


def run_study(settings):
    rows = chosen_rows(settings.rows)
    os.makedirs(settings.output, exist_ok=True)
    results = os.path.join(settings.output, "results.jsonl")
    settings.machine = {"precision": settings.precision}
    if settings.threads:
        settings.machine["threads"] = settings.threads
    data = prepare(settings)
    jobs = [(seed, context, row) for seed in settings.seeds for context in settings.contexts for row in rows]
    done = {key_of(result) for result in read_results(results)}
    for seed, context, row in jobs:
        if key_of_job(settings, row, seed, context) not in done:
            run_row(settings, row, rows[row], seed, context, data, results)
    report(settings)


# --------------------------------------------------------------------------------------------------------------- report


def report(settings):
    results = read_results(os.path.join(settings.output, "results.jsonl"))
    if not results:
        sys.exit(f"quality.py: {settings.output} has no results yet")
    lines = ["Held-out loss in nats per token, with its standard error between seeds.", ""]
    for title, name, context, rows in sections(results):
        lines += [f"## {title}", ""]
        if "main/softmax" in rows:
            lines += ["Held-out loss against softmax of all keys, which is given in nats:", "", *table_forms(rows), ""]
        lines += ["All rows, the best first:", "", *table(rows, context), ""]
        for what, prefix, draw in (("Held-out loss", "losses", draw_losses),
                                   ("Loss by position", "positions", draw_positions)):
            picture = f"{prefix}-{name}.png"
            if draw(rows, f"{what}. {title}", os.path.join(settings.output, picture)):
                lines += [f"![{what}]({picture})", ""]
    path = os.path.join(settings.output, "report.md")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines))
    print("\n".join(lines))
    print(f"this is in {path}")


def list_rows(settings):
    for row, options in chosen_rows(settings.rows).items():
        print(row + "\n    " + " ".join(f"--{name} {value}" for name, value in options.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jobs = parser.add_subparsers(dest="job", required=True)
    run = jobs.add_parser("run", help="train and evaluate what has no result yet")
    run.add_argument("--texts", required=True, help="folder of books")
    run.add_argument("--program", default="polysketch")
    run.add_argument("--seeds", type=int, nargs="+", default=[1])
    run.add_argument("--contexts", type=int, nargs="+", default=[512], help="tokens a sequence")
    run.add_argument("--vocab-size", type=int, default=4096,
                     help=f"tokens of a vocabulary made of the texts, or {BYTES} for bytes [4096]")
    run.add_argument("--steps", type=int, default=1000)
    run.add_argument("--batch-tokens", type=int, default=4096, help="of a step")
    run.add_argument("--learning-rate", type=float, default=1e-3)
    run.add_argument("--eval-tokens", type=int, default=0, help="held-out tokens to predict (0: all)")
    run.add_argument("--longer", type=int, nargs="+", default=[],
                     help="evaluate in windows of these lengths too, beyond that of training")
    run.add_argument("--save-every", type=int, default=500, help="steps between checkpoints of the run at work")
    run.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    run.add_argument("--threads", type=int, default=0)
    run.add_argument("--keep", action="store_true", help="keep the models")
    for job in (run, jobs.add_parser("report", help="tables and pictures")):
        job.add_argument("--output", required=True, help="folder of the study")
    for job in (run, jobs.add_parser("list", help="the rows")):
        job.add_argument("--rows", nargs="+", default=["main/*", "cost/*", "controls/*"], help="patterns of names")
    settings = parser.parse_args()
    {"run": run_study, "report": report, "list": list_rows}[settings.job](settings)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("quality.py: stopped; the same command goes on")
