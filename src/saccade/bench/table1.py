"""What FlashSloth's Table 1 is measured over, as data: five lists of picture sizes, one for each benchmark.

The benchmarks' pictures cannot be carried here. Each list was searched, among sizes that photographs and screenshots
come in, for the mean number of visual tokens that the paper prints for the two peers whose number depends on the
picture. InternVL2's means are only reached with 6 tiles at most, as its evaluation scripts set it: with the 12 of its
configuration an ordinary 4:3 photograph alone would take 3,328.

Text tokens are what the paper's TFLOPs of LLaVA-1.5-7B leave for text once they are read as multiply-accumulates:
(printed - 0.197 for tower and projector) / 0.00678 a token, less 576.
"""

from dataclasses import dataclass

from saccade.bench.tasks import Ask, Task

NEW_TOKENS = 2  # an answer of one word and its end: what the paper's answers per second leave after the first token
MOST_TILES = 6


@dataclass(frozen=True)
class Published:
    """Mean visual tokens as the paper prints them."""

    qwen2_vl: int
    internvl2: int


def _task(name: str, text_tokens: int, sizes: tuple[tuple[int, int], ...]) -> Task:
    return Task(name, tuple(Ask(width, height, text_tokens) for width, height in sizes))


PUBLISHED = {
    "GQA": Published(352, 1699),
    "TextVQA": Published(977, 1668),
    "MME": Published(646, 1478),
    "MMB": Published(385, 1296),
    "POPE": Published(353, 1666),
}

# fmt: off
TASKS = (
    _task("GQA", 46, (
        (640, 640), (640, 640), (640, 480), (640, 480), (427, 640), (640, 426), (640, 425), (640, 425), (500, 334),
        (500, 333), (500, 332),
    )),
    _task("TextVQA", 96, (
        (1024, 1024), (1024, 819), (1024, 819), (819, 1024), (819, 1024), (1024, 768), (1024, 685), (683, 1024),
        (683, 1024), (1024, 680), (1024, 680), (1024, 576),
    )),
    _task("MME", 49, (
        (1000, 1500), (1000, 1500), (1200, 1200), (1200, 1200), (1024, 683), (600, 800), (600, 600), (480, 640),
        (427, 640), (500, 375), (400, 400), (300, 450), (300, 450),
    )),
    _task("MMB", 97, (
        (800, 600), (800, 600), (800, 600), (850, 480), (850, 480), (750, 500), (750, 500), (600, 600), (600, 600),
        (600, 600), (700, 500), (700, 500), (640, 480), (640, 480), (640, 480), (480, 640), (480, 640), (480, 640),
        (640, 427), (512, 512), (512, 512), (512, 512), (500, 500), (500, 500), (600, 400), (600, 400), (400, 600),
        (400, 600), (512, 384), (512, 384), (450, 300), (300, 300),
    )),
    _task("POPE", 44, (
        (640, 512), (640, 480), (640, 480), (480, 640), (640, 428), (640, 427), (427, 640), (640, 426), (640, 426),
        (640, 425), (640, 425), (500, 375),
    )),
)
# fmt: on
