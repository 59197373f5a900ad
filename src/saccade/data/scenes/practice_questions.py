"""Questions to practice on: where a thing is, and what there is to see. Like the sheets, no test is made of them.

A model that can say where each thing is has learned the harder half of "left or right?" and "which is nearest?", whose
one-word answers alone say little about a place.
"""

from saccade.data.scenes.captions import named, names_all, place_words
from saccade.data.scenes.dice import Dice
from saccade.data.scenes.object_questions import ask_about_objects, ask_all_nearest
from saccade.data.scenes.scene import Question, Scene
from saccade.data.scenes.wording import ask


def ask_again(dice: Dice, scene: Scene) -> tuple[Question, ...]:
    """Draw the questions of a scene of shapes once more; a scene of another family has been asked all it allows.

    With them comes all that can be asked about who is nearest to whom. It is learned last, and a scene's own questions
    hold one of them at most.
    """
    if scene.family != "objects":
        return ()
    height, width = scene.image.shape[:2]
    known = {question.text for question in scene.questions}
    arrangement = (dice, scene.split, scene.objects, width, height)
    drawn = {question.text: question for question in ask_about_objects(*arrangement) + ask_all_nearest(*arrangement)}
    return tuple(question for text, question in drawn.items() if text not in known)


def ask_where(dice: Dice, scene: Scene) -> Question | None:
    """Ask for the place of one thing; None where nothing in the scene has a name of its own."""
    height, width = scene.image.shape[:2]
    for item in dice.shuffled(scene.objects):
        names = named(item, scene.objects)
        if names:
            return ask(dice, scene.split, "where", place_words(item, width, height), dice.pick(names))
    return None


def ask_to_describe(dice: Dice, scene: Scene) -> Question | None:
    """Ask for the caption; None where it names a few things that chance chose, which no picture tells."""
    if not names_all(scene.caption, scene.objects):
        return None
    return ask(dice, scene.split, "describe", scene.caption)
