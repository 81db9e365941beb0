"""Pictures of the quality study, by gnuplot."""

import collections
import shutil
import statistics
import subprocess

from quality_results import mean


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


# Okabe and Ito's palette, as `polysketch plot` has it, and grey.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"]


def gnuplot(script):
    """False without gnuplot."""
    if not shutil.which("gnuplot"):
        return False
    return subprocess.run(["gnuplot"], input="\n".join(script) + "\n", text=True, check=False).returncode == 0


# Rows that pictures leave out: sinusoids are worth so much that nothing else could be told apart beside them, and how
# the program started once is a matter for tables.
UNDRAWN = ("positions/", "before/")


def drawn(rows, *more):
    return {row: results for row, results in rows.items() if not row.startswith((*UNDRAWN, *more))}


KINDS = ("sketch beside an exact part", "exact part alone", "all keys alike")


def kind(row):
    """Of KINDS, what a row is."""
    if row.endswith(" alone"):
        return KINDS[1]
    return KINDS[0] if " block" in row or " window" in row else KINDS[2]


def draw_losses(rows, title, path):
    """Held-out loss of every row but those of scale/ (too many), a point a seed, and a line where softmax is."""
    rows = drawn(rows, "scale/")
    if not rows:
        return False
    order = sorted(rows, key=lambda row: -mean(rows[row], "loss"))
    script = [f"set terminal pngcairo noenhanced size 1000,{140 + 24 * len(order)} font 'sans,12'",
              f"set output {quoted(path)}", "set tmargin 3",
              f"set label {quoted(title)} at screen 0.5, screen 0.97 center font 'sans,10'",
              "set xlabel 'held-out loss [nats per token]'",
              "set grid lt 1 lw 1 lc rgb '#dddddd'", "set border 1", "set tics nomirror",
              "set key top right reverse Left opaque",
              f"set yrange [-0.7:{len(order) - 0.3}]", "set offsets graph 0.03, graph 0.03, 0, 0",
              "set ytics (" + ", ".join(f"{quoted(row.split('/', 1)[1])} {y}" for y, row in enumerate(order)) + ")"]
    if "main/softmax" in rows:
        x = mean(rows["main/softmax"], "loss")
        script.append(f"set arrow from {x}, graph 0 to {x}, graph 1 nohead dt 2 lw 2 lc rgb '{COLOURS[2]}'")
    plots = []
    for number, name in enumerate(KINDS):
        of_kind = [(y, rows[row]) for y, row in enumerate(order) if kind(row) == name]
        script += [f"$seeds{number} << END", *(f"{run['loss']} {y}" for y, runs in of_kind for run in runs), "END",
                   f"$means{number} << END", *(f"{mean(runs, 'loss')} {y}" for y, runs in of_kind), "END"]
        if of_kind:
            plots += [f"$seeds{number} with points pt 6 ps 1 lc rgb '{COLOURS[7]}' notitle",
                      f"$means{number} with points pt 7 ps 1.4 lc rgb '{COLOURS[number]}' title {quoted(name)}"]
    return gnuplot([*script, "plot " + ", ".join(plots)])


def draw_positions(rows, title, path):
    """Loss by position of the best rows and of softmax."""
    rows = drawn(rows)
    if not rows:
        return False
    best = sorted(rows, key=lambda row: mean(rows[row], "loss"))[:7]
    shown = best + [row for row in rows if row not in best and (row == "main/softmax" or row.startswith("controls/"))]
    script = [f"set terminal pngcairo noenhanced size 1000,{520 + 19 * len(shown)} font 'sans,12'",
              f"set output {quoted(path)}", f"set title {quoted(title)}", "set border 3", "set tics nomirror",
              "set xlabel 'tokens of context' offset 0, 0.5", "set ylabel 'loss [nats per token]'", "set logscale x 2",
              "set grid lt 1 lw 1 lc rgb '#dddddd'", "set key below left reverse Left",
              *(f"set linetype {i + 1} lc rgb '{colour}'" for i, colour in enumerate(COLOURS))]
    plots = []
    for number, row in enumerate(shown):
        points = collections.defaultdict(list)
        for result in rows[row]:
            for bucket in result["by_position"]:
                # The first tokens' losses would hide all differences; the last bucket is one token a window: too few.
                if 16 <= bucket["first"] < result["context"]:
                    points[(bucket["first"] + bucket["last"]) / 2].append(bucket["loss"])
        script += [f"$row{number} << END"] + [f"{x} {statistics.fmean(y)}" for x, y in sorted(points.items())] + ["END"]
        plots.append(f"$row{number} with linespoints lw 2 title {quoted(row)}")
    return gnuplot([*script, "plot " + ", ".join(plots)])
