"""Results of the quality study: which belong together, means over seeds and their errors, tables."""

import collections
import json
import math
import os
import statistics

BYTES = 256  # the vocabulary that needs no tokenizer
BLOCK = 64  # b of the grid, an eighth of the main context

KEY = ("row", "seed", "context", "vocab_size", "steps", "batch_tokens", "learning_rate", "precision")


def key_of(result):
    """What makes two results the same measurement."""
    return tuple(result[name] for name in KEY)


def read_results(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def groups_of(results):
    """(context, vocabulary, steps, batch tokens, learning rate, precision) -> row -> its results, one a seed."""
    groups = collections.defaultdict(lambda: collections.defaultdict(list))
    for result in {key_of(result): result for result in results}.values():
        groups[key_of(result)[2:]][result["row"]].append(result)
    return groups


def mean(results, key):
    return statistics.fmean(result[key] for result in results)


def spread(results):
    """Held-out loss with its standard error between seeds; for one seed without."""
    losses = [result["loss"] for result in results]
    text = f"{statistics.fmean(losses):.4f}"
    return f"{text} ± {statistics.stdev(losses) / math.sqrt(len(losses)):.4f}" if len(losses) > 1 else text


def against(results, softmax):
    """Held-out loss against softmax's of the same seed, in per cent, with its standard error between seeds."""
    twins = {result["seed"]: result["loss"] for result in softmax}
    parts = [100 * (result["loss"] / twins[result["seed"]] - 1) for result in results if result["seed"] in twins]
    if not parts:
        return ""
    text = f"{statistics.fmean(parts):+.2f}"
    return f"{text} ± {statistics.stdev(parts) / math.sqrt(len(parts)):.2f} %" if len(parts) > 1 else f"{text} %"


def loss_from(results, least):
    """Mean loss of the targets with at least so many tokens of context."""
    buckets = [bucket for result in results for bucket in result["by_position"] if bucket["first"] >= least]
    tokens = sum(bucket["tokens"] for bucket in buckets)
    return sum(bucket["loss"] * bucket["tokens"] for bucket in buckets) / tokens if tokens else math.nan


def at_length(rows, length):
    """The rows that were evaluated in longer windows too, with the losses that they have there."""
    longer = {row: [{**result, **figures} for result in results for figures in result.get("longer", [])
                    if figures["context"] == length] for row, results in rows.items()}
    return {row: results for row, results in longer.items() if results}


def sections(results):
    """(title, end of the pictures' names, context, rows) of each group, and of it in the longer windows."""
    for group, rows in sorted(groups_of(results).items()):
        context, vocab_size, steps, batch_tokens, learning_rate, precision = group
        title = (f"{'Bytes' if vocab_size == BYTES else f'{vocab_size} tokens'}, context {context}, {steps} steps of "
                 f"{batch_tokens}, learning rate {learning_rate:g}, {precision}")
        name = f"{vocab_size}-{context}-{steps}-{learning_rate:g}-{precision}"
        yield title, name, context, rows
        lengths = {figures["context"] for runs in rows.values() for run in runs for figures in run.get("longer", [])}
        for length in sorted(lengths):
            yield f"{title}, in windows of {length}", f"{name}-at-{length}", length, at_length(rows, length)


def markdown(head, rows):
    """The lines of a table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def table(rows, context):
    head = ["row", "seeds", "held-out loss", "against softmax", f"from position {context // 2} on", "train loss",
            "ms a step", "memory"]
    return markdown(head, ([row, str(len(results)), spread(results), against(results, rows.get("main/softmax", [])),
                            f"{loss_from(results, context // 2):.4f}", f"{mean(results, 'train_loss'):.4f}",
                            f"{1e3 * mean(results, 'seconds_per_step'):.0f}",
                            f"{mean(results, 'memory_bytes') / 2**20:.0f} MiB"]
                           for row, results in sorted(rows.items(), key=lambda item: mean(item[1], "loss"))))


# The rows of a form of attention: of all keys, in a block, in a window, and in a window that costs what the block does.
EXACT = ("main/{}", "controls/{}, block alone", "controls/{}, window alone",
         f"controls/{{}}, window b={BLOCK // 3} alone")
SKETCHED = ("main/{} none", "main/{} block", "main/{} window", f"cost/{{}} window b={BLOCK // 3}")
QUIETER = ("", "scale/learned r=32 block, far_scale 10", "scale/learned r=32 window, far_scale 10", "")
FORMS = {"softmax": EXACT, **{f"polynomial p={p}": EXACT for p in (2, 4, 8)}, "performer m=256": EXACT,
         **{f"{sketch} r={r}": SKETCHED for sketch in ("random", "learned_linear", "learned") for r in (32, 16)},
         "learned r=32, far_scale 10": QUIETER}


def table_forms(rows):
    """A line a form, a column for what it has exactly: held-out loss against softmax of all keys, in nats there."""
    softmax = rows["main/softmax"]

    def cell(row):
        return spread(softmax) if row == "main/softmax" else against(rows.get(row, []), softmax)

    return markdown(["form", "all keys alike", f"exact block of {BLOCK}", f"exact window of {BLOCK}",
                     f"exact window of {BLOCK // 3}"],
                    ([name, *(cell(row.format(name)) for row in places)] for name, places in FORMS.items()
                     if any(row.format(name) in rows for row in places)))
