"""Stage times drawn one below the other: what a question spends its time on."""

from rich.bar import Bar
from rich.console import Group
from rich.table import Table
from rich.text import Text

from saccade.vlm.answers import Answer

WIDTH = 48  # characters of the longest bar
LABELS = {
    "waiting": "wait for a slot",
    "open": "open picture",
    "preprocess": "preprocess",
    "vision": "vision tower",
    "prompt": "render prompt",
    "compress": "compress + project",
    "prefill": "prefill, first token",
    "decode": "later tokens",
}


def waterfall(answer: Answer) -> Group:
    """Draw the timings of an answer."""
    total = answer.timings.total
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan")
    table.add_column(width=WIDTH)
    table.add_column(justify="right")
    start = 0.0
    for name, seconds in answer.timings.stages().items():
        if not seconds:
            continue
        bar = Bar(total, start, start + seconds, width=WIDTH, color="cyan")
        table.add_row(LABELS[name], bar, milliseconds(seconds))
        start += seconds
    each = answer.seconds_per_token
    parts = [
        f"first token after {milliseconds(answer.timings.first_token)}",
        *([f"{milliseconds(each)} per later token"] if each is not None else []),
        f"{milliseconds(total)} in all",
        f"prompt {answer.prompt_tokens} tokens, {answer.image_tokens} of them visual",
        f"answer {answer.new_tokens}",
    ]
    return Group(table, Text(" · ".join(parts), style="dim"))


def milliseconds(seconds: float) -> str:
    """Format seconds as milliseconds with three significant digits or so."""
    value = seconds * 1000
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 1 else f"{value:.2f} ms"
