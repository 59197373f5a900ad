"""`saccade data fetch`: what the papers trained on, downloaded and converted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from saccade.cli.shell import JsonOption, stderr, stdout

if TYPE_CHECKING:
    from saccade.data.fetch import Fetched
    from saccade.data.mixtures import Entry, Listing

_SHOWN = 10


def fetch(
    mixture: Annotated[str, typer.Argument(help="Name of a mixture; docs/mixtures.md describes them.")],
    only: Annotated[list[str] | None, typer.Option(help="An entry or a stage of it; may be repeated.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of everything fetched; mixtures share what they share.")] = Path(
        "data"
    ),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be fetched; needs no network.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out records that cannot be used, and list them.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch what a paper trained on; the same command again goes on where it was stopped.

    Example:  saccade data fetch flashvl-reasoning --dry-run

    With a network:  saccade data fetch flashsloth-llava --only pretraining --out data
    """
    from saccade.data.fetch import fetch as fetch_mixture
    from saccade.data.mixtures import listing as named

    listing = named(mixture)
    chosen = listing.choose(only or [])
    if not as_json:
        stdout().print(_overview(listing, chosen))
        _print_notes(chosen)
    results = []
    if not dry_run:
        for fetched in fetch_mixture(listing, out, only=only or [], skip_bad=skip_bad):
            results.append(fetched)
            if not as_json:
                stdout().print(_line(fetched), soft_wrap=True)
    if as_json:
        told = [_told(fetched) for fetched in results] if results else [_described(entry) for entry in chosen]
        typer.echo(json.dumps({"mixture": mixture, "out": str(out), "entries": told}, indent=2, ensure_ascii=False))


def _overview(listing: Listing, chosen: tuple[Entry, ...]) -> Table:
    table = Table("entry", "stage", "kind", "rows", "GB", "license", "sure", "from", title=escape(listing.title))
    for entry in chosen:
        rows = f"{entry.rows:,}" if entry.rows else "?"
        size = f"{entry.gigabytes:.3g}" if entry.gigabytes else "?"
        places = "\n".join(get.name for get in entry.get) or "not published"
        cells = (entry.name, entry.stage, entry.kind, rows, size, entry.licenses, entry.sure, places)
        table.add_row(*map(escape, cells))
    table.caption = _total(chosen)
    return table


def _total(chosen: tuple[Entry, ...]) -> str:
    """What is downloaded in all; what several entries use counts once."""
    downloads = {(get.name, get.files): get for entry in chosen for get in entry.get}
    known = sum(get.gigabytes or 0 for get in downloads.values())
    unknown = sum(get.gigabytes is None for get in downloads.values())
    return f"{known:.3g} GB in all" + (f", and {unknown} downloads of unknown size" if unknown else "")


def _print_notes(chosen: tuple[Entry, ...]) -> None:
    for entry in chosen:
        if entry.note:
            stderr().print(f"[bold]{escape(entry.name)}[/]: {escape(entry.note)}", soft_wrap=True)


def _line(fetched: Fetched) -> str:
    name = f"[bold]{escape(fetched.entry.name)}[/]"
    if not fetched.paths:
        return f"{name}: cannot be fetched, see above"
    line = f"{name}: {escape(', '.join(fetched.paths))}"
    if fetched.progress is None:
        return line
    line += f", {fetched.progress.rows:,} rows"
    for reason, count in fetched.progress.dropped.items():
        line += f", {count:,} without one ({escape(reason)})"
    bad = fetched.progress.bad
    if bad:
        line += f", {len(bad):,} bad records left out:"
        line += "".join(f"\n  {escape(sentence)}" for sentence in bad[:_SHOWN])
        line += f"\n  and {len(bad) - _SHOWN:,} more; --json lists them all" if len(bad) > _SHOWN else ""
    return line


def _described(entry: Entry) -> dict[str, Any]:
    fields = entry.model_dump(mode="json", include={"name", "stage", "kind", "rows", "share", "sure", "note"})
    places = [{"name": get.name, "gigabytes": get.gigabytes, "license": get.license} for get in entry.get]
    return fields | {"gigabytes": entry.gigabytes, "from": places}


def _told(fetched: Fetched) -> dict[str, Any]:
    told = _described(fetched.entry) | {"paths": list(fetched.paths)}
    if fetched.progress is not None:
        one = fetched.progress
        told["converted"] = {"rows": one.rows, "dropped": one.dropped, "bad": one.bad}
    return told
