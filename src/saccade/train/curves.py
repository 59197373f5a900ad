"""The curves of a run, drawn from its log: loss, learning rate and gradient norm of every stage."""

import json
import warnings
from pathlib import Path
from typing import Any

from saccade.errors import SaccadeWarning

QUANTITIES = {"loss": "loss", "learning_rate": "learning rate", "grad_norm": "gradient norm"}
PANEL = (3.2, 2.2)  # inches
DPI = 110
COLOR = "#2a6f97"


def read_log(log: Path) -> dict[str, list[dict[str, Any]]]:
    """Read a run's log: the lines of each stage in the order of their steps.

    A run that was killed repeats the steps since its last checkpoint: the last line of a step counts. A last line that
    was cut off is no line.
    """
    stages: dict[str, dict[int, dict[str, Any]]] = {}
    for text in log.read_text(encoding="utf-8").splitlines(keepends=True):
        if text.endswith("\n"):
            line = json.loads(text)
            stages.setdefault(line["stage"], {})[line["step"]] = line
    return {name: [lines[step] for step in sorted(lines)] for name, lines in stages.items()}


def draw_curves(log: Path, path: Path) -> None:
    """Draw the log into a PNG file, a column for each stage; without matplotlib, or a line to draw, do nothing.

    Warns:
        SaccadeWarning: without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        warnings.warn(f"{path.name} was not drawn: pip install matplotlib", SaccadeWarning, stacklevel=2)
        return
    stages = read_log(log) if log.exists() else {}
    if not stages:
        return
    figure = Figure(figsize=(PANEL[0] * len(stages), PANEL[1] * len(QUANTITIES)), layout="constrained")
    panels = figure.subplots(len(QUANTITIES), len(stages), sharex="col", squeeze=False)
    for column, (stage, lines) in enumerate(stages.items()):
        for row, (quantity, label) in enumerate(QUANTITIES.items()):
            axes = panels[row, column]
            shown = [line for line in lines if quantity in line]
            axes.plot([line["step"] for line in shown], [line[quantity] for line in shown], color=COLOR, linewidth=1)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=7)
            if column == 0:
                axes.set_ylabel(label, fontsize=8)
        panels[0, column].set_title(stage, fontsize=9)
        panels[-1, column].set_xlabel("step", fontsize=8)
    figure.savefig(path, dpi=DPI)
