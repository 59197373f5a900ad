"""`saccade ask` over a folder or a file of requests."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from rich.markup import escape

from saccade.cli.shell import open_vlm, progress, stderr, stdout
from saccade.errors import ConfigError

REQUESTS = ".jsonl"
AT_ONCE = 16


def is_bulk(source: Path) -> bool:
    """Whether this asks about many pictures: a folder, or a file of requests."""
    return source.is_dir() or source.suffix == REQUESTS


def ask_many(
    source: Path,
    question: str | None,
    out: Path,
    *,
    model: str,
    device: str | None,
    dtype: str | None,
    max_new_tokens: int,
    max_pixels: int | None,
    batch_size: int,
    strict: bool,
    as_json: bool,
) -> None:
    """Answer all requests of a folder or a file into `out`, going on where an interrupted run stopped."""
    import saccade
    from saccade.vlm import Sampling
    from saccade.vlm.bulk import answer_requests, requests_of_file, requests_of_folder
    from saccade.vlm.ledger import fingerprint, open_ledger, settings_file

    Sampling(max_new_tokens=max_new_tokens)  # refuses a bad number before there is a file that belongs to it
    if source.is_dir():
        if question is None:
            raise ConfigError(f"{source} is a folder: say what to ask about its pictures")
        requests = requests_of_folder(source, question, leave_out=(out, settings_file(out)))
    else:
        requests = requests_of_file(source, question)
    vlm = open_vlm(model, device, dtype, max_pixels)
    settings = {
        "saccade": saccade.__version__,
        "source": str(source.resolve()),
        "model": vlm.name,
        "fingerprint": fingerprint(vlm.model),
        "dtype": str(vlm.model.dtype).removeprefix("torch."),
        "max_new_tokens": max_new_tokens,
        "max_pixels": vlm.model.config.image.max_pixels,
    }
    with open_ledger(out, settings, requests) as ledger, progress() as bar:
        if ledger.done:
            stderr().print(f"[dim]{ledger.done} of {len(requests)} rows are in {escape(str(out))} already[/]")
        task = bar.add_task("asking", total=len(requests), completed=ledger.done)
        for rows in answer_requests(vlm, requests, batch_size, max_new_tokens, skip=ledger.done):
            ledger.append(rows)
            bar.update(task, completed=ledger.done)
    answered = ledger.done - ledger.failed
    if as_json:
        typer.echo(json.dumps({"model": vlm.name, "out": str(out), "answered": answered, "failed": ledger.failed}))
    else:
        stdout().print(f"{answered} answered, {ledger.failed} failed: {escape(str(out))}", soft_wrap=True)
    if strict and ledger.failed:
        raise typer.Exit(1)
