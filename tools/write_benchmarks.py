"""Write docs/benchmarks.md from the papers' tables and the toolkits' tasks.

python tools/write_benchmarks.py
"""

from pathlib import Path

from saccade.evaluate.bridges.tasks import Task, tasks
from saccade.evaluate.papers import names, paper
from saccade.evaluate.papers.tables import Scored

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
HEAD = """# The papers' benchmarks, and how each is asked

FlashSloth was scored by lmms-eval, Flash-VL by VLMEvalKit. Both toolkits can ask any model of this package; each wants
an environment of its own, because they bring torchvision or versions that this package does without. `make
test-lmms-eval` and `make test-vlmevalkit` make such environments in `.venvs` and ask nano there about a small table,
through the toolkit's own command line and without a network: answers and scores equal those of `saccade eval`.
The commands below are those of such an environment, as `.venvs/lmms-eval/bin/lmms-eval`.

```bash
lmms-eval eval --model saccade --model_args pretrained=Tongbo/FlashSloth-3.2B --tasks pope --batch_size 8
python -m saccade.evaluate.bridges.vlmevalkit --model FlashVL/FlashVL-2B-Static --prompts FlashVL --first-picture \\
    --data MMStar --api-nproc 8
```

Both bridges answer several questions at once (`--batch_size`, `--api-nproc`), take several pictures in one question,
and show a model all pictures before the words. lmms-eval sets the pictures of some tasks between words:
`--force_simple` asks those as FlashSloth was asked, pictures first. `--prompts FlashVL` takes the words of the
toolkit's own Flash-VL wrapper, and `--first-picture` drops all pictures but one, as that wrapper does; without them the
benchmark's own words and all pictures are used.

An answer may take as many tokens as the task says. Where that is more than the model has positions left, the bridge
says so, and answers end there.

In the column *here* stands how `saccade eval` scores the benchmark without a toolkit, or why it does not. This page is
written by `python tools/write_benchmarks.py` from [src/saccade/evaluate](../src/saccade/evaluate); none of its tables
is typed by hand."""
COLUMNS = ("benchmark", "task", "split", "prompt", "longest answer", "metric", "here", "today's toolkit also wants")


def to_markdown() -> str:
    """Return the page about all benchmarks."""
    parts = [HEAD]
    for name in names():
        one, asked = paper(name), tasks(name)
        rows = [_row(scored, asked[scored.column]) for scored in one.benchmarks]
        parts += [f"## {one.title}\n\n{one.tool}, {one.cited}", "\n".join([_line(COLUMNS), _line(["---"] * 8), *rows])]
    return "\n\n".join(parts) + "\n"


def _row(scored: Scored, task: Task) -> str:
    drawn = f", drawn at {task.temperature:g}" if task.temperature else ""
    prompt = f"`{task.prompt}`".replace("\n", "⏎")
    options = f"`{task.options}`" if task.options else ""
    length = f"{task.max_new_tokens}{drawn}"
    return _line([scored.column, f"`{scored.task}`", scored.split, prompt, length, task.metric, _here(scored), options])


def _here(scored: Scored) -> str:
    if scored.set is not None:
        return f"`saccade eval {scored.set}`"
    return "no: another model judges the answers" if scored.judge else "no: its files are read by the toolkit alone"


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(to_markdown(), encoding="utf-8")
