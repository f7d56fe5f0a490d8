"""The plot of a fault: throughput, errors, hits and availability over time, with what was wrong shaded."""

from __future__ import annotations

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt

INK, GOOD, BAD, HITS, READS = "#444444", "#3465a4", "#cc0000", "#4e9a06", "#75507b"
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "mangacache", "font.size": 8, "axes.edgecolor": INK})


def draw(result, path):
    """Draw one cell into a file, whose suffix says how."""
    course = result["course"]
    seconds = len(course["good"]) // 10
    at = [second + 0.5 for second in range(seconds)]
    figure, (above, below) = plt.subplots(2, 1, figsize=(7.2, 3.4), sharex=True, height_ratios=(3, 2))
    for axes in (above, below):
        for number, (_, began_s, ended_s) in enumerate(result["parts"]):
            axes.axvspan(began_s, ended_s, color="#f57900", alpha=0.16 if number % 2 else 0.28, linewidth=0)
        axes.spines[["top", "right"]].set_visible(False)
    above.plot(at, _by_second(course["good"]), color=GOOD, label="good calls a second")
    above.plot(at, _by_second(course["bad"]), color=BAD, label="failed")
    above.plot(at, _by_second(course["dynamodb_reads"]), color=READS, linestyle=":", label="reads in DynamoDB")
    above.set_ylim(bottom=0)
    above.set_ylabel("a second")
    above.legend(loc="upper center", ncols=3, frameon=False, bbox_to_anchor=(0.5, 1.18))
    tenths = [place / 10 for place in range(len(course["availability"]))]
    below.step(
        tenths, _gaps(course["availability"]), where="post", color=INK, linewidth=0.7, label="good calls, by 100 ms"
    )
    ratios = course["hit_ratio"][:seconds]
    below.plot(at[: len(ratios)], _gaps(ratios), color=HITS, label="hits")
    below.set_ylim(-0.02, 1.05)
    below.set_ylabel("share")
    below.legend(loc="lower right", ncols=2, frameon=False)
    below.set_xlabel("seconds; shaded: what was wrong")
    figure.tight_layout()
    metadata = {"Date": None, "Creator": None} if str(path).endswith(".svg") else None
    figure.savefig(path, metadata=metadata)
    plt.close(figure)


def _gaps(shares):
    return [float("nan") if share is None else share for share in shares]


def _by_second(tenths):
    return [sum(tenths[first : first + 10]) for first in range(0, len(tenths) - len(tenths) % 10, 10)]
