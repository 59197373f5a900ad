"""Write everything in the README and in docs that comes from a JSON file; with --check only say what is out of date.

    python tools/write_docs.py [--check]

Whole pages, docs/speed.md with markers of its own, and what stands in any page between `<!-- generated: NAME -->` and
`<!-- end -->`, where NAME is one of `SPANS`. A figure that was measured has no other place to stand in.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import release_nano
import write_benchmarks
import write_mixtures
import write_papers
import write_speed
from saccade.ablate import STUDIES
from saccade.bench.report import table
from saccade.checkpoint.files import read_tensors
from saccade.config import SaccadeConfig
from saccade.data import scenes
from saccade.data.scenes.text import HEIGHTS
from saccade.image import num_views
from saccade.train.recipes import RECIPES
from saccade.train.recipes.overview import overview

REPO = Path(__file__).resolve().parents[1]
RESULTS = REPO / "docs" / "results"
MARKED = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def world_scores(split: str) -> str:
    """Accuracy of the bundled models on a split of the rendered world, beside their score with the picture blanked."""
    models = release_nano.released()
    found = {name: _result(f"{name}_{split}")["families"] for name in models}
    rows = []
    for family in sorted({one for name in models for one in found[name]}, key=scenes.ALL_FAMILIES.index):
        scores = [found[name].get(family) for name in models]
        told = [cell for score in scores for cell in (("", "") if score is None else _right_and_blanked(score))]
        rows.append([family, f"{next(filter(None, scores))['n']:,}", *told])
    return table(("family", "questions", *(cell for name in models for cell in (f"{name}: right", "blanked"))), rows)


def bundled() -> str:
    """The bundled models: what a picture costs, how large they are."""
    rows = []
    for name in release_nano.released():
        config = SaccadeConfig.from_pretrained(release_nano.ASSETS / name)
        side = config.image.side
        views = {num_views(width * side, height * side, config.image) for width in (1, 2, 4) for height in (1, 2, 4)}
        tokens = " to ".join(str(count * config.tokens_per_view) for count in sorted({min(views), max(views)}))
        queries = config.query.num_queries if config.query else 0
        size = sum(tensor.nbytes for tensor in read_tensors(release_nano.ASSETS / name).values()) / 1e6
        parameters = f"{_result(f'{name}_run')['parameters']:,}"
        card = f"[card](src/saccade/assets/{name}/README.md)"
        rows.append([f"`{name}`", f"{tokens} + {queries}", parameters, f"{size:.1f} MB", card])
    return table(("model", "visual + query tokens", "parameters", "weights", "how well"), rows)


def text_by_size() -> str:
    """What each bundled model reads of signs, by what is asked and the size of the glyphs."""
    models = [name for name in release_nano.released() if "text" in _result(f"{name}_test")["families"]]
    found = {name: _result(f"{name}_test")["families"]["text"]["forms"] for name in models}
    rows = []
    for kind in ("color", "word", "number"):
        for size in HEIGHTS:
            forms = [found[name][f"{kind}.{size}"] for name in models]
            right = [f"{form['accuracy']:.1%}" for form in forms]
            rows.append([kind, size, *right, str(forms[0]["n"])])
    return table(("asked", "glyphs", *models, "questions"), rows)


def nano_pointing() -> str:
    """Where nano's queries look: on the thing that is named, or on another one."""
    rows = []
    for family, score in _result("nano_pointing")["families"].items():
        low, high = score["interval"]
        cells = (f"{score[name]:.1%}" for name in ("mean", "named", "other"))
        rows.append([family, *cells, f"{low:.1%} to {high:.1%}", str(score["n"])])
    return table(("family", "pointing", "when named", "when another is", "95 % interval of pointing", "scenes"), rows)


def fast_pixels() -> str:
    """How far the fast pixels are from the exact ones, and whether nano answers alike."""
    result = _result("fast_pixels")
    kinds = list(next(iter(result["pixels"].values())))
    head = ["presets", *(f"{kind}, {number}" for kind in kinds for number in ("integers", "floats"))]
    rows = [
        [presets, *(_distance(found[kind][number]) for kind in kinds for number in ("integers", "floats"))]
        for presets, found in result["pixels"].items()
    ]
    answers = result["answers"]
    return (
        f"{table(head, rows)}\n\nIn {result['unit']}: mean, 99.9 % quantile, greatest. Of {answers['questions']} "
        f"questions {answers['model']} answers {answers['equal']:.1%} with the same words; right are "
        f"{answers['right_exact']:.1%} with exact and {answers['right_fast']:.1%} with fast pixels. {_made(result)}"
    )


def attention() -> str:
    """Seconds of a training step of nano by attention backend and precision."""
    result = _result("attention_cpu")
    steps = result["seconds_per_step"]
    ways = list(next(iter(steps.values())))
    rows = [[stage, *(f"{seconds[way]:.2f} s" for way in ways)] for stage, seconds in steps.items()]
    rounds = f"Median of {result['rounds']} rounds, {result['threads']} threads."
    return f"{table(['a step of', *ways], rows)}\n\n{rounds} {_made(result)}"


def recipes() -> str:
    """One row for each recipe."""
    lines = [overview(make()) for make in RECIPES.values()]
    rows = [[f"`{one.name}`", *map(", ".join, (one.start or ("nothing",), one.stages, one.data))] for one in lines]
    return table(("recipe", "starts from", "stages", "data"), rows, left=4)


def studies() -> str:
    """One row for each study: where it is from, what it compares."""
    rows = [[f"`{one.name}`", one.source, ", ".join(one.variants), one.presumes or "nano"] for one in STUDIES.values()]
    return table(("study", "of", "compares", "from"), rows, left=4)


SPANS: dict[str, Callable[[], str]] = {
    "bundled": bundled,
    "world-test": lambda: world_scores("test"),
    "world-shifted": lambda: world_scores("shifted"),
    "text-by-size": text_by_size,
    "nano-pointing": nano_pointing,
    "fast-pixels": fast_pixels,
    "attention": attention,
    "recipes": recipes,
    "studies": studies,
    "reference-rows": write_papers.reference_rows,
}


def fill(page: str) -> str:
    """Return a page with everything between its markers written anew; a name that SPANS lacks is a KeyError."""
    return MARKED.sub(lambda found: f"{found[1]}\n{SPANS[found[2]]()}\n\n{found[3]}", page)


def pages() -> Iterator[tuple[Path, str]]:
    """Yield (page, what it should hold) for each page of which something is generated."""
    docs = REPO / "docs"
    whole = {
        docs / "benchmarks.md": write_benchmarks.to_markdown,
        docs / "mixtures.md": write_mixtures.to_markdown,
        docs / "papers.md": write_papers.to_markdown,
    }
    yield from ((page, write()) for page, write in whole.items())
    yield from ((release_nano.ASSETS / name / "README.md", release_nano.card(name)) for name in release_nano.released())
    for page in sorted({REPO / "README.md", *docs.glob("*.md")} - whole.keys()):
        text = page.read_text(encoding="utf-8")
        yield page, fill(write_speed.render(text, write_speed.RESULTS))


def stale() -> list[tuple[Path, str]]:
    """Return the pages that differ from what they should hold, with that."""
    return [(page, text) for page, text in pages() if not page.exists() or page.read_text(encoding="utf-8") != text]


def _result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _right_and_blanked(score: dict[str, Any]) -> tuple[str, str]:
    low, high = score["interval"]
    return f"**{score['accuracy']:.1%}** ({low:.1%} to {high:.1%})", f"{score['blank_accuracy']:.1%}"


def _distance(found: dict[str, float]) -> str:
    return f"{found['mean']:.4f}, {found['p99.9']:g}, {found['max']:g}"


def _made(result: dict[str, Any]) -> str:
    return (
        f"`{result['command']}`: {result['machine']}; torch {result['torch']}, transformers {result['transformers']}, "
        f"commit {result['commit']}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page is out of date")
    check = parser.parse_args().check
    found = stale()
    for page, text in found:
        print(f"{page.relative_to(REPO)} {'is out of date: run python tools/write_docs.py' if check else 'written'}")
        if not check:
            page.write_text(text, encoding="utf-8")
    sys.exit(1 if check and found else 0)


if __name__ == "__main__":
    main()
