"""`saccade doctor`."""

from __future__ import annotations

import json
import math
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from saccade.cli.shell import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    open_vlm,
    prepare_libraries,
    progress,
    stdout,
)
from saccade.errors import SaccadeError

if TYPE_CHECKING:
    from saccade.checkpoint.doctor import Check
    from saccade.checkpoint.samples import Sample


# Sizes of the rendered pictures in views: with two or three a picture is cut wherever pictures are, and with less than
# one only where they are measured in something smaller, such as what tiles that overlap advance by.
_VIEWS = (2, 3, 0.75)
_MARKS = {True: "[green]✓[/]", False: "[bold red]✗[/]", None: "[yellow]?[/]"}


def doctor(
    model: ModelOption = "nano",
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    pictures: Annotated[
        int, typer.Option(min=0, help="Rendered pictures with text that decide what the files of a release leave open.")
    ] = 0,
    as_json: JsonOption = False,
    out: Annotated[Path | None, typer.Option(help="Write the JSON report to this file.")] = None,
) -> None:
    """Prove that a loaded model is what its files say; exit with 1 where it is not.

    What the files of a release leave open keeps a question mark until the model reads --pictures.

    Example:  saccade doctor --model models/mine
    """
    checks = _examined(model, device, dtype, pictures)
    healthy = all(check.passed is not False for check in checks)
    report = {
        "model": model,
        "healthy": healthy,
        "checks": [{"name": check.name, "passed": check.passed, "detail": check.detail} for check in checks],
        "machine": _machine(),
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(report))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            stdout().print(
                f"{_MARKS[check.passed]} {check.name:{width}}  [dim]{escape(check.detail)}[/]", soft_wrap=True
            )
    if not healthy:
        raise typer.Exit(1)


def _examined(source: str, device: str | None, dtype: str | None, pictures: int) -> list[Check]:
    """Open a model and examine it; one that does not open has one check."""
    prepare_libraries()
    from saccade.checkpoint.doctor import Check, examine
    from saccade.vlm import parse_dtype

    parse_dtype(dtype)
    try:
        vlm = open_vlm(source, device, dtype)
    except SaccadeError as error:
        return [Check("opens", False, str(error))]
    folder = vlm.model.config.name_or_path
    size = sum(parameter.numel() for parameter in vlm.model.parameters())
    opened = Check("opens", True, f"{folder}, {size / 1e6:.1f} M parameters on {vlm.model.device}")
    with progress() as bar:
        task = bar.add_task("comparing", total=None)
        found = examine(
            vlm.model,
            vlm.processor,
            Path(folder),
            samples=_samples(pictures, vlm.model.config.image.side),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
        return [opened, *found]


def _samples(number: int, side: int) -> list[Sample]:
    """Render signs; the first question that asks what one says stands for each picture.

    Pictures that are smaller than `_VIEWS` of `side` pixels are enlarged to that: a model that cuts pictures has to be
    seen doing it.
    """
    from PIL import Image

    from saccade.checkpoint.samples import Sample
    from saccade.data.scenes import render

    samples: list[Sample] = []
    for index in range(number):
        scene = render("text", "val", index)
        asked = next(question for question in scene.questions if question.type in ("word", "number"))
        picture = Image.fromarray(scene.image)
        factor = math.sqrt(_VIEWS[index % len(_VIEWS)] * side**2 / (picture.width * picture.height))
        if factor > 1:
            size = round(factor * picture.width), round(factor * picture.height)
            picture = picture.resize(size, Image.Resampling.BICUBIC)
        samples.append(Sample(picture, asked.text, asked.answer))
    return samples


def _machine() -> dict[str, Any]:
    """Say what a report was made with and on."""
    import torch
    import transformers

    import saccade

    return {
        "saccade": saccade.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
