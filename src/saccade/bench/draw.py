"""Plots of results that were kept as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saccade.bench.report import Result, in_full
from saccade.errors import ConfigError

WIDTH = 8.0  # inches
HEIGHTS = {False: 5.0, True: 3.2}  # of a panel that stands alone, and of one among several
DPI = 144
LARGEST = 1600.0  # area of the largest circle in square points
LINE = 11.0  # points from one label to the next
COLOR = "#2a6f97"
FAINT = "#a9c9dc"


def draw(result: Result, path: Path) -> None:
    """Draw a result: the waterfall of a model, the bars of a decoder, or the Pareto picture of a comparison.

    Raises:
        ConfigError: without matplotlib, or when the result holds nothing to draw.
    """
    if "ways" in result:
        waterfall(result, path)
    elif "speakers" in result:
        decoder(result, path)
    elif "exercises" in result:
        training(result, path)
    elif result.get("rows"):
        pareto(result, path)
    else:
        raise ConfigError(f"a result of bench {result['bench']!r} holds nothing measured: there is no plot of it")


def pareto(result: Result, path: Path) -> None:
    """Draw time to the first token against visual tokens, a circle's area its memory (after FlashSloth, Figure 1).

    One circle per subject: the mean over the tasks; where the peak was not measured, its weights alone.
    """
    figure, (axes,) = _figure()
    largest = max(row["memory_bytes"] or row["weight_bytes"] for row in result["rows"])
    labels: list[tuple[float, float, float, str]] = []
    for name in dict.fromkeys(row["subject"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["subject"] == name]
        tokens = sum(row["visual_tokens"] + row["query_tokens"] for row in rows) / len(rows)
        seconds = sum(row["ttft"]["median"] for row in rows) / len(rows)
        size = max(row["memory_bytes"] or row["weight_bytes"] for row in rows)
        area = LARGEST * size / largest
        axes.scatter(tokens, seconds * 1e3, s=area, color=FAINT, edgecolor=COLOR, zorder=2)
        labels.append((seconds * 1e3, tokens, math.sqrt(area / math.pi), f"{name}, {size / 1e9:.3g} GB"))
    axes.margins(0.25)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("visual and query tokens")
    axes.set_ylabel("time to first token, ms")
    _name_ticks(axes)
    figure.draw_without_rendering()  # limits and layout are settled only then
    _label(axes, labels)
    _finish(figure, [axes], result, path)


def training(result: Result, path: Path) -> None:
    """Draw seconds of a sample against memory, one picture for pretraining and one for tuning (FlashSloth, Figure 3).

    What did not fit stands as a line at the memory it would take.
    """
    exercises = list(dict.fromkeys(row["exercise"] for row in result["exercises"]))
    figure, panels = _figure(len(exercises))
    for name, axes in zip(exercises, panels, strict=True):
        for row in (row for row in result["exercises"] if row["exercise"] == name):
            memory = (row["memory_bytes"] or row["planned_bytes"]) / 1e9
            if row["seconds"] is None:
                axes.axvline(memory, color=FAINT, linestyle="--")
                axes.annotate(
                    f"{row['subject']}: does not fit", (memory, 0), rotation=90, fontsize=7, va="bottom", ha="right"
                )
                continue
            each = row["seconds"]["median"] / row["rows"] * 1e3
            axes.scatter(memory, each, color=COLOR)
            axes.annotate(f" {row['subject']}", (memory, each), fontsize=8)
        axes.margins(0.2)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.set_ylabel(f"{name}\nms per sample", fontsize=9)
    panels[-1].set_xlabel("GB of memory")
    _finish(figure, panels, result, path)


def decoder(result: Result, path: Path) -> None:
    """Draw the times of each way of running a decoder: to the first token above, of a later one below."""
    figure, panels = _figure(2, shared=False)
    for axes, figured in zip(panels, ("first_token", "per_token"), strict=True):
        for place, row in enumerate(result["speakers"]):
            spread = {name: value * 1e3 for name, value in row[figured].items()}
            middle = spread["median"]
            whiskers = [[middle - spread["lower"]], [spread["upper"] - middle]]
            axes.barh(place, middle, xerr=whiskers, color=FAINT, edgecolor=COLOR, ecolor=COLOR)
            axes.annotate(f" {in_full(middle, 3)}", (spread["upper"], place), va="center", fontsize=8)
        axes.set_yticks(range(len(result["speakers"])), [row["subject"] for row in result["speakers"]])
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_xlabel(f"{figured.replace('_', ' ')}, ms")
    _finish(figure, panels, result, path)


def waterfall(result: Result, path: Path) -> None:
    """Draw the stages up to the first token one after the other, the least time of each inside its bar.

    One picture above the other for every way of running the model, all to one scale. The bar of the first token begins
    where the picture is decoded.
    """
    ways = result["ways"]
    figure, panels = _figure(len(ways))
    for way, axes in zip(ways, panels, strict=True):
        _fall(axes, way)
    panels[-1].set_xlabel("ms; dark: the least this machine can take")
    _finish(figure, panels, result, path)


def _fall(axes: Any, way: Mapping[str, Any]) -> None:
    shown = [stage for stage in way["stages"] if stage["name"] != "per token"]
    start, decoded = 0.0, shown[0]["seconds"]["median"] * 1e3
    for row, stage in enumerate(shown):
        seconds = stage["seconds"]["median"] * 1e3
        left = decoded if stage["name"] == "first token" else start
        axes.barh(row, seconds, left=left, color=FAINT, edgecolor=COLOR)
        if stage.get("least_seconds") is not None:
            axes.barh(row, stage["least_seconds"] * 1e3, left=left, height=0.4, color=COLOR)
        axes.annotate(f" {in_full(seconds, 3)} ms", (left + seconds, row), va="center", fontsize=8)
        start += seconds
    axes.set_yticks(range(len(shown)), [stage["name"] for stage in shown])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    each = way["stages"][-1]
    step, least = each["seconds"]["median"] * 1e3, each["least_seconds"] * 1e3
    axes.set_ylabel(f"{way['subject']}\n{in_full(step, 3)} ms per token,\nat least {in_full(least, 3)}", fontsize=9)


def _name_ticks(axes: Any) -> None:
    """Write the ticks of logarithmic axes as numbers: within a decade, powers of ten alone would be too few."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axis.set_minor_formatter(NullFormatter())


def _label(axes: Any, labels: list[tuple[float, float, float, str]]) -> None:
    """Write labels (height, place, radius of the circle in points, text) beside circles, none over another one.

    From below: a label that would touch the one before, of a circle at nearly the same place, is moved above it.
    """
    points = 72 / axes.figure.dpi
    beside: list[tuple[float, float]] = []
    for height, place, radius, text in sorted(labels):
        left, bottom = (float(value) * points for value in axes.transData.transform((place, height)))
        taken = [other + LINE for start, other in beside if abs(start - left) < len(text) * LINE / 2]
        moved = max([bottom, *taken])
        beside.append((left, moved))
        offset = (radius + 3, moved - bottom)
        axes.annotate(
            text, (place, height), xytext=offset, textcoords="offset points", va="center", fontsize=8, zorder=3,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
        )  # fmt: skip


def _figure(panels: int = 1, *, shared: bool = True) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("plots need matplotlib: pip install matplotlib, or leave --plot out") from error
    figure = Figure(figsize=(WIDTH, HEIGHTS[panels > 1] * panels), layout="constrained")
    return figure, figure.subplots(panels, sharex=shared, squeeze=False)[:, 0]


def _finish(figure: Any, panels: Any, result: Result, path: Path) -> None:
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    small = ", small copies" if result.get("small") else ""
    panels[0].set_title(f"{result['machine']}, {result['dtype']}{small}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
