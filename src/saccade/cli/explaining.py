"""`saccade explain`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from saccade.cli.shell import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    open_vlm,
    stderr,
    tell_knowledge,
    warnings_told,
)
from saccade.cli.talk import TokensOption
from saccade.errors import ConfigError


def explain(
    image: Annotated[Path, typer.Argument(help="A picture file.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    out: Annotated[Path, typer.Option(help="Write the drawing to this PNG file.")] = Path("explanation.png"),
    arrays: Annotated[Path | None, typer.Option(help="Write the weights to this npz file.")] = None,
    model: ModelOption = "nano",
    max_new_tokens: TokensOption = 64,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a question and draw what the model looked at for its answer.

    The page shows the picture with its tiles, the answer's attention laid on it, and the weights of the compressor and
    of the query module where the model has them.

    Example:  saccade explain photo.jpg "What color is the circle?" --out explanation.png
    """
    files = [out] if arrays is None else [out, arrays]
    _check_files(out, files)
    vlm = open_vlm(model, device, dtype)
    with warnings_told(quiet=as_json) as told:
        explanation = vlm.explain(image, question, max_new_tokens=max_new_tokens)
    explanation.save(out)
    if arrays is not None:
        import numpy as np

        held: dict[str, Any] = {**explanation.arrays()}
        with arrays.open("wb") as target:  # savez would add a suffix to a name
            np.savez_compressed(target, **held)
    if as_json:
        written = {"files": [str(file) for file in files], "warnings": told}
        typer.echo(json.dumps({"model": vlm.name, **explanation.to_dict(), **written}))
        return
    typer.echo(explanation.answer)
    tell_knowledge(vlm)
    stderr().print(f"wrote [bold]{escape(', '.join(map(str, files)))}[/]", soft_wrap=True)


def _check_files(out: Path, files: list[Path]) -> None:
    """Make the folders of what will be written; raise ConfigError before a model runs for what cannot be."""
    for file in files:
        if file.is_dir():
            raise ConfigError(f"{file} is a folder: name a file in it")
    if out.suffix.lower() != ".png":
        raise ConfigError(f"the drawing is a PNG file, but --out is {out}: name it {out.with_suffix('.png')}")
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
