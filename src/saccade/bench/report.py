"""A run as one JSON object that says what it was made with, and the Markdown tables made from it."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from saccade.bench.rounds import significant
from saccade.errors import ConfigError
from saccade.evaluate.provenance import made_with

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Result = dict[str, Any]

TARGET_HEAD = ("target", "value", "bound", "at ceilings", "unit", "verdict")
VERDICTS = {True: "met", False: "missed", None: "told alone"}


@dataclass(frozen=True)
class Target:
    """A number to reach.

    Attributes:
        name: What is measured.
        value: What came out.
        target: The bound; None where there is none and the value is told alone.
        unit: Of both; "ratio" where there is none.
        at_most: Whether less is better.
        at_ceilings: What would have come out had the engine taken the least time throughout, and others what they took;
            preprocessing counts as nothing. None where that is not known.
    """

    name: str
    value: float
    target: float | None
    unit: str = "ratio"
    at_most: bool = True
    at_ceilings: float | None = None

    @property
    def met(self) -> bool | None:
        """The verdict; None where there is no bound."""
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, with the verdict."""
        told = {"name": self.name, "value": self.value, "target": self.target, "met": self.met, "unit": self.unit}
        return told | {"at_ceilings": self.at_ceilings}


def new_result(
    kind: str,
    device: torch.device,
    dtype: torch.dtype,
    settings: DataclassInstance,
    **content: Any,
) -> Result:
    """Return a result without targets.

    Args:
        kind: Which bench made it.
        device: What it ran on.
        dtype: Of the weights.
        settings: How it was measured; its seed is that of random weights, too.
        **content: What was measured, plain JSON types.
    """
    return {
        "bench": kind,
        "command": shlex.join(["saccade", *sys.argv[1:]]),
        **made_with(),
        "python": platform.python_version(),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        **asdict(settings),
        **content,
        "targets": [],
    }


def add_targets(result: Result, targets: Sequence[Target]) -> Result:
    """Return a result with what was to be reached."""
    return result | {"targets": [target.to_dict() for target in targets]}


def write_result(result: Result, path: Path) -> None:
    """Keep a result as a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def read_result(path: Path) -> Result:
    """Read a result that was kept; raises ConfigError when the file holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): name a file that `saccade bench --out` wrote") from error
    if not isinstance(found, dict) or "bench" not in found:
        raise ConfigError(f"{path} holds no result of a bench: name a file that `saccade bench --out` wrote")
    return found


def markdown(result: Result) -> str:
    """Write a result as Markdown: what it was made with, ceilings, tables, targets."""
    parts = [_head(result)]
    if ceilings := result.get("ceilings"):
        parts.append(_ceilings(ceilings))
    if "ways" in result:
        parts.append(_asked(result))
        for way in result["ways"]:
            parts += [f"{way['subject']}: {way['way']}.", _stages(way), _facts(way)]
    if "batches" in result:
        parts.append(_batches(result["batches"]))
    if "speakers" in result:
        parts += [_prompted(result), _speakers(result["speakers"], result["speakers"][0])]
        parts.append("\n".join(f"- {row['subject']}: {row['way']}." for row in result["speakers"]))
    if "exercises" in result:
        parts.append(_exercises(result["exercises"]))
    if "rows" in result:
        tasks = dict.fromkeys(row["task"] for row in result["rows"])
        parts += [_compared([row for row in result["rows"] if row["task"] == task], ceilings or {}) for task in tasks]
        ways = {row["subject"]: row["way"] for row in result["rows"]}
        parts.append("\n".join(f"- {subject}: {way}." for subject, way in ways.items()))
    if result["targets"]:
        parts.append(target_table(result["targets"]))
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Write a Markdown table, its first `left` columns to the left and the others to the right."""
    lines = [head, [*["---"] * left, *["---:"] * (len(head) - left)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _head(result: Result) -> str:
    settings = ", ".join(
        f"{name.replace('_', ' ')} {result[name]}"
        for name in ("new_tokens", "rounds", "warm_up", "seed", "quick")
        if name in result
    )
    small = " Small copies: these numbers say nothing about speed." if result.get("small") else ""
    cut = f" Cut short after {result['seconds']:g} seconds: fewer rounds." if result.get("cut") else ""
    return (
        f"`{result['command']}`: {result['machine']}, {result['device']}, {result['threads']} threads, "
        f"{result['dtype']}; torch {result['torch']}, transformers {result['transformers']}, commit "
        f"{result['commit']}; {settings}. Median (quartiles).{small}{cut}"
    )


def _ceilings(ceilings: Mapping[str, Any]) -> str:
    rows = [["memory read", f"{ceilings['memory_read'] / 1e9:.4g} GB/s"]]
    rows.append(["matrix, best square", f"{ceilings['square'] / 1e12:.4g} TFLOP/s"])
    for name, rate in ceilings["matrix"].items():
        shape = " x ".join(map(str, ceilings["shapes"][name]))
        rows.append([f"matrix, {name} ({shape})", f"{rate / 1e12:.4g} TFLOP/s"])
    return table(("ceiling", "measured"), rows)


def _stages(way: Mapping[str, Any]) -> str:
    rows = []
    for stage in way["stages"]:
        planned = "least_seconds" in stage
        rows.append(
            [
                stage["name"],
                milliseconds(stage["seconds"]),
                in_full(stage["least_seconds"] * 1e3) if planned else "–",
                f"{100 * stage['share_of_ceiling']:.0f} %" if planned else "–",
                f"{stage['flops'] / 1e9:.4g}" if planned else "–",
                f"{stage['macs'] / 1e9:.4g}" if planned else "–",
                f"{stage['bytes_read'] / 1e9:.4g}" if planned else "–",
            ]
        )
    return table(("stage", "ms", "least ms", "of ceiling", "GFLOPs", "GMACs", "GB read"), rows)


def _asked(result: Result) -> str:
    picture = " x ".join(map(str, result["picture"]))
    return (
        f"{result['model']}, picture {picture}: {result['visual_tokens']} visual and {result['query_tokens']} query "
        f"tokens in a prompt of {result['prompt_tokens']}. FLOPs to the first token: {result['flops'] / 1e9:.5g} G in "
        "closed form (MACs: half)."
    )


def _facts(way: Mapping[str, Any]) -> str:
    memory, second = way["memory_bytes"], way["second_question"]
    asked = ""
    if second is not None:
        least, flops = way["second_question_least_seconds"], way["second_question_flops"]
        asked = f"Second question about the picture, first token ms {milliseconds(second)}, least "
        asked += f"{in_full(least * 1e3)}, {flops / 1e9:.4g} GFLOPs. "
    return (
        f"First token ms {_listed(way['ttft_percentiles'])}; per token ms {_listed(way['tpot_percentiles'])}. {asked}"
        f"A step reads {way['step_bytes_per_second'] / 1e9:.4g} GB/s of weights, "
        f"{_rate(way['share_of_read_rate'])} of what was read beside the answer. Counted by running: "
        f"{way['counted_flops'] / 1e9:.5g} GFLOPs to the first token. Peak memory "
        f"{'not measured' if memory is None else f'{memory / 1e9:.4g} GB'}."
    )


def _batches(batches: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [row["subject"], str(row["batch"]), _rate(row["samples_per_second"]), _rate(row["tokens_per_second"])]
        for row in batches
    ]
    return table(("", "batch", "answers/s", "tokens/s"), rows)


def _compared(rows: Sequence[Mapping[str, Any]], ceilings: Mapping[str, Any]) -> str:
    """Compare the subjects of one task; the first is what the others' time to the first token is divided by."""
    first = rows[0]["ttft"]["median"]
    lines = []
    for row in rows:
        memory, each = row["memory_bytes"], row.get("tpot")
        read = None if each is None else row["step_bytes"] / each["median"]
        lines.append(
            [
                row["subject"],
                f"{row['visual_tokens'] + row['query_tokens']:.5g}",
                f"{row['flops'] / 1e12:.4g}",
                f"{row['macs'] / 1e12:.4g}",
                "–" if memory is None else f"{memory / 1e9:.4g}",
                milliseconds(row["ttft"]),
                f"{row['ttft']['median'] / first:.3g}",
                _share(row["flops"] / row["ttft"]["median"], ceilings.get("square")),
                "–" if each is None else milliseconds(each),
                _share(read, ceilings.get("memory_read")),
                _rate(row["samples_per_second"]),
                _rate(row["tokens_per_second"]),
            ]
        )
    head = [rows[0]["task"], "tokens", "TFLOPs", "TMACs", "GB", "TTFT ms", "over the first", "of matrix rate"]
    return table([*head, "TPOT ms", "of read rate", "answers/s", "tokens/s"], lines)


def _prompted(result: Result) -> str:
    return (
        f"{result['model']}, the decoder alone: a prompt of {result['prompt_tokens']} tokens without a picture. FLOPs "
        f"to the first token: {result['flops'] / 1e9:.5g} G in closed form (MACs: half); a step reads "
        f"{result['step_bytes'] / 1e9:.4g} GB of weights. How far logits differ is told of those after the prompt: the "
        "length of the difference to float32, over their own."
    )


def _speakers(rows: Sequence[Mapping[str, Any]], first: Mapping[str, Any]) -> str:
    """Compare ways of running a decoder; the first is what the others' times are divided by."""
    lines = [
        [
            row["subject"],
            milliseconds(row["first_token"]),
            f"{row['first_token']['median'] / first['first_token']['median']:.3g}",
            f"{row['prefill_flops_per_second'] / 1e12:.4g}",
            f"{100 * row['share_of_matrix_rate']:.0f} %",
            milliseconds(row["per_token"]),
            f"{row['per_token']['median'] / first['per_token']['median']:.3g}",
            f"{row['step_bytes_per_second'] / 1e9:.4g}",
            f"{100 * row['share_of_read_rate']:.0f} %",
            f"{row['proof']['distance']:.2g}",
        ]
        for row in rows
    ]
    head = ["", "first token ms", "over the first", "TFLOP/s", "of matrix rate", "per token ms", "over the first"]
    return table([*head, "GB/s", "of read rate", "logits differ"], lines)


def _exercises(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for row in rows:
        memory, fits = row["memory_bytes"], row["seconds"] is not None
        lines.append(
            [
                f"{row['exercise']}, {row['rows']} rows: {row['subject']}",
                str(row["tokens"]),
                f"{row['trained'] / 1e6:.4g} of {row['parameters'] / 1e6:.4g}",
                f"{row['flops'] / 1e12:.4g}",
                f"{row['planned_bytes'] / 1e9:.3g}",
                "–" if memory is None else f"{memory / 1e9:.3g}",
                milliseconds(row["seconds"]) if fits else "does not fit",
                _rate(row["samples_per_second"]) if fits else "–",
            ]
        )
    head = ("a step", "tokens a row", "M trained", "TFLOPs", "GB planned", "GB measured", "ms", "samples/s")
    return table(head, lines)


def _share(reached: float | None, ceiling: float | None) -> str:
    return "–" if reached is None or ceiling is None else f"{100 * reached / ceiling:.0f} %"


def target_table(targets: Sequence[Mapping[str, Any]]) -> str:
    """Write targets as a Markdown table, each with its verdict."""
    return table(TARGET_HEAD, [target_cells(target) for target in targets])


def target_cells(target: Mapping[str, Any]) -> list[str]:
    """Return a target as the cells of a table, as `TARGET_HEAD` names them."""
    bound, best = ("–" if number is None else f"{number:.4g}" for number in (target["target"], target["at_ceilings"]))
    return [target["name"], f"{target['value']:.4g}", bound, best, target["unit"], VERDICTS[target["met"]]]


def milliseconds(spread: Mapping[str, float]) -> str:
    """Write a spread of seconds as milliseconds: the median and, behind it, the quartiles."""
    middle, lower, upper = (in_full(spread[name] * 1e3) for name in ("median", "lower", "upper"))
    return f"{middle} ({lower}–{upper})"


def in_full(value: float, digits: int = 4) -> str:
    """Write a number with so many significant digits, a large one without a power of ten."""
    return f"{value:.{digits}g}" if abs(value) < 10**digits - 0.5 else f"{significant(value, digits):,.0f}"


def _rate(spread: Mapping[str, float]) -> str:
    return f"{spread['median']:.4g} ({spread['lower']:.4g}–{spread['upper']:.4g})"


def _listed(percentiles: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {in_full(value * 1e3)}" for name, value in percentiles.items())
