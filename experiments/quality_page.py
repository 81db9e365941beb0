#!/usr/bin/env python3
"""Keeps a page about the quality study true to its result files.

    experiments/quality_page.py docs/quality.md              writes the page's tables again from the results
    experiments/quality_page.py --check docs/quality.md ...  fails where a table or a figure in the text is not theirs

A table stands between `<!-- KIND CONTEXT STEPS [bytes] [LENGTH] -->` and `<!-- end -->`: of kind forms (each against
softmax, by what it has exactly), rows or positions; of models of bytes; in windows longer than those of training.
Checked in the text are losses with three or four decimals (whatever reads like 4.323 or 4.3225 ± 0.0025; in a page
without tables they have to be means of rows), and instead of them accuracies of the synthetic tasks in the section that
has their name.
"""

import argparse
import os
import re
import statistics
import sys

from quality_results import (BYTES, against, at_length, groups_of, loss_from, markdown, mean, read_results, sections,
                             spread, table_forms)

RESULTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results")
TABLE = re.compile(r"(<!-- (forms|rows|positions) (\d+) (\d+)( bytes)?(?: (\d+))? -->\n).*?(<!-- end -->)", re.DOTALL)
LOSS = re.compile(r"(?<![\d.,])[1-6]\.\d{3,4}(?: ± \d\.\d{4})?(?!\.?\d)")
ACCURACY = re.compile(r"(?<![\d.,])[01]\.\d{3}(?!\.?\d)")
# The first of the buckets that a table of positions shows; in longer windows than those of training.
POSITIONS = (8, 48, 96, 256, 512, 1536, 4096)
POSITIONS_BEYOND = (512, 1536, 2048, 3072, 4096, 6144)
LEARNING_RATE = 3e-3
UNLISTED = ("before/", "scale/")  # have a section of their own


def group(results, context, steps, of_bytes, length):
    """Row -> its results, the best row first; of the learning rate of all tables. A length: in such longer windows."""
    for (n, vocab_size, t, _, rate, _), rows in groups_of(results).items():
        if (n, vocab_size == BYTES, t, rate) == (context, of_bytes, steps, LEARNING_RATE):
            there = at_length(rows, length) if length else rows
            return dict(sorted(there.items(), key=lambda item: mean(item[1], "loss")))
    sys.exit(f"quality_page.py: no result{' of bytes' if of_bytes else ''} has a context of {context} and {steps} steps")


def loss_cells(rows, row):
    return [row, str(len(rows[row])), spread(rows[row]), against(rows[row], rows["main/softmax"])]


LOSSES_HEAD = ["row", "seeds", "held-out loss", "against softmax"]


def table_rows(rows):
    """A line a row, but for those that a section of their own compares."""
    half = rows["main/softmax"][0]["context"] // 2
    return markdown([*LOSSES_HEAD, f"from position {half} on"],
                    ([*loss_cells(rows, row), f"{loss_from(rows[row], half):.4f}"]
                     for row in rows if not row.startswith(UNLISTED)))


def at_position(runs, first):
    return statistics.fmean(bucket["loss"] for run in runs for bucket in run["by_position"] if bucket["first"] == first)


def table_positions(rows, positions):
    """A line a row: the loss by position, mean over seeds; without the last token, one a window is too few."""
    softmax = rows["main/softmax"][0]
    shown = [bucket for bucket in softmax["by_position"] if bucket["first"] in positions
             and bucket["first"] < softmax["context"]]
    return markdown([*LOSSES_HEAD, *(f"{bucket['first']:,} to {bucket['last']:,}" for bucket in shown)],
                    ([*loss_cells(rows, row),
                      *(f"{at_position(rows[row], bucket['first']):.3f}" for bucket in shown)] for row in rows))


def written_again(page, results):
    def table(match):
        before, kind, context, steps, of_bytes, length, after = match.groups()
        rows = group(results, int(context), int(steps), bool(of_bytes), int(length or 0))
        if kind == "positions":
            lines = table_positions(rows, POSITIONS_BEYOND if length else POSITIONS)
        else:
            lines = table_forms(rows) if kind == "forms" else table_rows(rows)
        return before + "\n".join([*lines, after])

    return TABLE.sub(table, page)


def measured_losses(results, detail):
    """Every way to write a row's mean loss; in detail also those of single runs and at positions."""
    known = set()
    for _, _, _, rows in sections(results):
        for row in rows.values():
            known.add(spread(row))
            for some in (row, *([run] for run in row if detail)):
                numbers = [mean(some, "loss")]
                if detail:
                    numbers.append(loss_from(some, some[0]["context"] // 2))
                    numbers += [at_position(some, bucket["first"]) for bucket in some[0]["by_position"]]
                known |= {f"{number:.{digits}f}" for number in numbers for digits in (3, 4)}
    return known


def unmeasured(page, results, tasks):
    """(line, figure) for each figure of the page that no result has."""
    measured = measured_losses(results, detail=TABLE.search(page))
    accuracies = {f"{task[name]:.3f}" for task in tasks for name in ("accuracy", "accuracy_all")}
    section = ""
    for number, line in enumerate(page.splitlines(), 1):
        section = line if line.startswith("## ") else section
        figure, known = (ACCURACY, accuracies) if section == "## Synthetic tasks" else (LOSS, measured)
        yield from ((number, match) for match in figure.findall(line) if match not in known)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, say what differs")
    parser.add_argument("--results", default=RESULTS, help="folder of quality/results.jsonl and tasks.jsonl")
    parser.add_argument("pages", nargs="+")
    settings = parser.parse_args()
    results, tasks = (read_results(os.path.join(settings.results, name))
                      for name in ("quality/results.jsonl", "tasks.jsonl"))
    wrong = []
    for path in settings.pages:
        with open(path, encoding="utf-8") as file:
            page = file.read()
        fresh = written_again(page, results)
        if settings.check:
            if fresh != page:
                wrong.append(f"{path}: its tables are not those of the results; experiments/quality_page.py {path}")
            wrong += [f"{path}:{line}: {figure} is in no result" for line, figure in unmeasured(page, results, tasks)]
        elif fresh != page:
            with open(path, "w", encoding="utf-8") as file:
                file.write(fresh)
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
