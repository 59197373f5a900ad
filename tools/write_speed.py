"""Fill the tables of docs/speed.md, and draw its plots, from the JSON files in docs/results/speed.

    python tools/write_speed.py

The page says what it expects: between `<!-- results: FOLDER/NAME -->` and `<!-- end -->` stand the tables of that file,
and between `<!-- verdicts: FOLDER -->` and `<!-- end -->` the targets of all files of the folder that the page names.
Where there is no file, the page says that nothing was measured.
"""

import re
from pathlib import Path

from saccade.bench.draw import draw
from saccade.bench.report import TARGET_HEAD, markdown, read_result, table, target_cells

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "speed.md"
RESULTS = DOCS / "results" / "speed"
PLOTS = DOCS / "plots"
UNKNOWN = "Not yet measured."
MARKED = re.compile(r"(<!-- (results|verdicts): ([\w/]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def render(page: str, results: Path) -> str:
    """Return the page with everything between its markers written anew."""
    names = [name for _, kind, name, _ in MARKED.findall(page) if kind == "results"]

    def fill(found: re.Match[str]) -> str:
        begin, kind, name, end = found.groups()
        if kind == "results":
            return f"{begin}\n{_tables(name, results)}\n\n{end}"
        return f"{begin}\n{_verdicts([other for other in names if other.startswith(f'{name}/')], results)}\n\n{end}"

    return MARKED.sub(fill, page)


def plot_name(name: str) -> str:
    """Return the file name of a result's plot."""
    return f"{name.replace('/', '_')}.png"


def _tables(name: str, results: Path) -> str:
    file = results / f"{name}.json"
    if not file.exists():
        return UNKNOWN
    return f"{markdown(read_result(file)).strip()}\n\n![{name}]({PLOTS.name}/{plot_name(name)})"


def _verdicts(names: list[str], results: Path) -> str:
    rows = []
    for name in names:
        file = results / f"{name}.json"
        found = read_result(file)["targets"] if file.exists() else None
        if found is None:
            rows.append([name, "not yet measured", *[""] * (len(TARGET_HEAD) - 1)])
        else:
            rows += [[name, *target_cells(target)] for target in found]
    return table(("file", *TARGET_HEAD), rows)


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(render(page, RESULTS), encoding="utf-8")
    for _, kind, name, _ in MARKED.findall(page):
        file = RESULTS / f"{name}.json"
        if kind == "results" and file.exists():
            draw(read_result(file), PLOTS / plot_name(name))


if __name__ == "__main__":
    main()
