"""What Flash-VL's Figure 1 and Appendix A.4 are measured over, as data: MMMU-like pictures and prompts, 128 tokens.

The benchmark's pictures cannot be carried here. These are sizes like theirs, from small diagrams over wide plots to
scanned pages, with prompts as long as a question with its options in a chat template; a list of plausible sizes, not a
sample. Two single pictures stand beside it: one that dynamic peers cut into many tokens, and one as small as a view.
"""

from saccade.bench.tasks import Ask, Task

NEW_TOKENS = 128
TEXT_TOKENS = 48

TASKS = (
    Task(
        "MMMU-like",
        (
            Ask(733, 237, 96),
            Ask(340, 291, 74),
            Ask(1025, 279, 133),
            Ask(600, 450, 88),
            Ask(517, 358, 121),
            Ask(1126, 1032, 147),
            Ask(452, 610, 69),
            Ask(800, 600, 104),
            Ask(1600, 1200, 92),
            Ask(250, 180, 158),
            Ask(960, 540, 112),
            Ask(640, 905, 81),
            Ask(1280, 394, 176),
            Ask(420, 420, 99),
            Ask(876, 583, 127),
            Ask(1700, 2200, 85),
        ),
    ),
    Task("1024 x 768", (Ask(1024, 768, TEXT_TOKENS),)),
    Task("448 x 448", (Ask(448, 448, TEXT_TOKENS),)),
)
