"""Questions that need no picture: counting and comparing small numbers. Like the sheets, no test is made of them.

They stand between questions about pictures, so that a model learns to leave the picture alone where it is not meant.
"""

from saccade.data.scenes.dice import Dice
from saccade.data.scenes.scene import Question
from saccade.data.scenes.wording import ask

_MOST = 9


def ask_without_picture(dice: Dice, split: str) -> Question:
    """Ask for a sum, a neighbor or the larger of two numbers from 0 to 9; the answer is a number from 0 to 18."""
    one, other = dice.below(_MOST + 1), dice.below(_MOST + 1)
    form = dice.pick(("talk.sum", "talk.after", "talk.larger"))
    if form == "talk.sum":
        return ask(dice, split, form, str(one + other), str(one), str(other))
    if form == "talk.after":
        return ask(dice, split, form, str(one + 1), str(one))
    other = other if other != one else (one + 1) % (_MOST + 1)
    return ask(dice, split, form, str(max(one, other)), str(one), str(other))
