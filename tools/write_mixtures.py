"""Write docs/mixtures.md from the files of the mixtures.

python tools/write_mixtures.py
"""

from pathlib import Path

from saccade.data.mixtures import Download, Entry, listing, names

PAGE = Path(__file__).resolve().parents[1] / "docs" / "mixtures.md"
HEAD = """# The papers' data

What both papers trained on, and the command that fetches it. This page is written by `python tools/write_mixtures.py`
from the files in [src/saccade/data/mixtures](../src/saccade/data/mixtures); none of its tables is typed by hand.

```bash
saccade data fetch flashvl-reasoning --dry-run
saccade data fetch flashsloth-llava --only tuning --out data
```

The first line prints what would be fetched, with sizes and licenses, and needs no network. The second downloads,
unpacks and converts; the same command again goes on where it was stopped. Records that cannot be used stop it with
where they stand; `--skip-bad` leaves them out and lists them. In the folder `data` every entry becomes one file
`MIXTURE.ENTRY.jsonl`; shards stay as they are.

In the last column *exact* means that the paper names this set and this is it; *ours*, that the paper names it but which
release or part of it is our choice; *unknown*, that the paper does not say, or that the format of the records could not
be seen here. An empty cell is a figure that is not known. Nothing on this page was downloaded where it was written:
sizes, licenses and counts are those of the sets' pages."""


def to_markdown() -> str:
    """Return the page about all mixtures."""
    parts = [HEAD]
    for name in names():
        one = listing(name)
        table = ["| entry | stage | kind | rows | from | GB | license | sure |", "|---|---|---|---|---|---|---|---|"]
        table += [_row(entry) for entry in one.entries]
        notes = [f"- *{entry.name}*: {entry.note}" for entry in one.entries if entry.note]
        head = f"## {name}\n\n{one.title}. Source: {one.paper}." + (f" {one.note}" if one.note else "")
        parts += [head, "\n".join(table), *(["\n".join(notes)] if notes else [])]
    return "\n\n".join(parts) + "\n"


def _row(entry: Entry) -> str:
    places = [f"[{get.name}]({_address(get)})" for get in entry.get]
    size = f"{entry.gigabytes:.3g}" if entry.gigabytes else ""
    cells = [entry.name, entry.stage, entry.kind, f"{entry.rows:,}" if entry.rows else "", "<br>".join(places)]
    return "| " + " | ".join([*cells, size, entry.licenses, entry.sure]) + " |"


def _address(get: Download) -> str:
    return get.url or f"https://huggingface.co/datasets/{get.hub}"


if __name__ == "__main__":
    PAGE.write_text(to_markdown(), encoding="utf-8")
