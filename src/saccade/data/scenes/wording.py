"""How questions are put into words, and small matters of grammar."""

from dataclasses import replace

from saccade.data.scenes.dice import Dice
from saccade.data.scenes.scene import Question

# A form is a question before it is worded. The part of its name before the dot is the type that scores are reported by.
# `{a}` and `{b}` are what it is about.
_WORDINGS: dict[str, tuple[str, ...]] = {
    "color": (
        "What color is {a}?",
        "What is the color of {a}?",
        "Which color does {a} have?",
        "Name the color of {a}.",
    ),
    "shape": (
        "What shape is {a}?",
        "What is the shape of {a}?",
        "Which shape does {a} have?",
        "Name the shape of {a}.",
    ),
    "shape.ink": (
        "Which shape is painted {a}?",
        "What shape has the color {a}?",
        "Name the shape that is {a}.",
        "Which of the shapes is {a}?",
    ),
    "count": (
        "How many {a} are there?",
        "How many {a} are in the picture?",
        "How many {a} can you see?",
        "Count the {a}.",
        "What is the number of {a}?",
    ),
    "existence": (
        "Is there {a}?",
        "Is there {a} in the picture?",
        "Can you see {a}?",
        "Does the picture show {a}?",
    ),
    "nearest.color": (
        "What color is the object nearest to {a}?",
        "What is the color of the object nearest to {a}?",
        "Which color does the object closest to {a} have?",
        "Name the color of the object closest to {a}.",
    ),
    "nearest.shape": (
        "What shape is the object nearest to {a}?",
        "What is the shape of the object nearest to {a}?",
        "Which shape does the object closest to {a} have?",
        "Name the shape of the object closest to {a}.",
    ),
    "side.horizontal": (
        "Is {a} left or right of {b}?",
        "Is {a} to the left or to the right of {b}?",
        "On which side of {b} is {a}, left or right?",
        "Left or right: where is {a} from {b}?",
    ),
    "side.vertical": (
        "Is {a} above or below {b}?",
        "Where is {a}, above or below {b}?",
        "Above or below: where is {a} from {b}?",
        "Does {a} lie above or below {b}?",
    ),
    "read": (
        "Which digit is this?",
        "What digit is in the picture?",
        "Read the digit.",
        "Name the digit in the picture.",
    ),
    "place": (
        "What is the {a} digit?",
        "Which digit is {b}?",
        "Read the {a} digit.",
        "Name the digit {b}.",
    ),
    "ink": (
        "Which digit is {a}?",
        "What is the {a} digit?",
        "Read the {a} digit.",
        "Name the digit that is {a}.",
    ),
    "number": (
        "What number is this?",
        "Which number is in the picture?",
        "Read the number.",
        "Read the number from left to right.",
    ),
    "sign.word": (
        "What does {a} say?",
        "What word is on {a}?",
        "Read the word on {a}.",
        "Which word stands on {a}?",
    ),
    "sign.number": (
        "What does {a} say?",
        "What number is on {a}?",
        "Read the number on {a}.",
        "Which number stands on {a}?",
    ),
    "value": (
        "What is the value of {a}?",
        "What value does {a} have?",
        "Which value does {a} show?",
        "Read the value of {a}.",
    ),
    "largest.bar": (
        "Which bar is the largest?",
        "What color is the largest bar?",
        "Which color does the tallest bar have?",
        "Name the color of the highest bar.",
    ),
    "largest.point": (
        "Which point is the highest?",
        "What color is the highest point?",
        "Which color does the point with the largest value have?",
        "Name the color of the highest point.",
    ),
    "smallest.bar": (
        "Which bar is the smallest?",
        "What color is the smallest bar?",
        "Which color does the shortest bar have?",
        "Name the color of the lowest bar.",
    ),
    "smallest.point": (
        "Which point is the lowest?",
        "What color is the lowest point?",
        "Which color does the point with the smallest value have?",
        "Name the color of the lowest point.",
    ),
    "difference": (
        "How much higher is {a} than {b}?",
        "By how much is {a} higher than {b}?",
        "What is the difference between {a} and {b}?",
        "How much more does {a} show than {b}?",
    ),
    "sum": ("What is the sum of {a}?", "What do {a} add up to?", "Add {a}.", "How much is the sum of {a}?"),
    "more": (
        "Are there more {a} than {b}?",
        "Are there more {a} than {b} in the picture?",
        "Can you see more {a} than {b}?",
        "Is the number of {a} larger than that of {b}?",
    ),
    "surplus": (
        "How many more {a} than {b} are there?",
        "How many more {a} than {b} are in the picture?",
        "How many more {a} can you see than {b}?",
        "What is the number of {a} less the number of {b}?",
    ),
    "extreme": (
        "What is the {a} value of all digits?",
        "Which digit has the {a} value?",
        "Read the digit with the {a} value.",
        "Name the digit that has the {a} value.",
    ),
    "where": ("Where is {a}?", "Where in the picture is {a}?"),
    "talk.sum": ("What is {a} plus {b}?", "How much is {a} and {b}?", "Add {a} and {b}."),
    "talk.after": ("What number comes after {a}?", "Which number is one more than {a}?"),
    "talk.larger": ("Which is larger, {a} or {b}?", "Which of {a} and {b} is the larger number?"),
    "describe": (
        "Describe the picture.",
        "What is in the picture?",
        "What can you see?",
        "What does the picture show?",
    ),
}
_SHIFTED_WORDINGS: dict[str, tuple[str, ...]] = {
    "color": ("Can you name the color that {a} has?", "Which color is {a}?", "The color of {a} is what?"),
    "shape": ("Can you name the shape that {a} has?", "Which shape is {a}?", "The shape of {a} is what?"),
    "shape.ink": ("Can you name the shape that is {a}?", "The shape in {a} is what?", "What shape is drawn in {a}?"),
    "count": ("Can you count the {a}?", "The picture has how many {a}?", "What number of {a} does the picture show?"),
    "existence": ("Does the picture have {a}?", "Is {a} in the picture?", "Does {a} lie in the picture?"),
    "nearest.color": (
        "Which color is the object closest to {a}?",
        "The object nearest to {a} has which color?",
        "Closest to {a} is an object of what color?",
    ),
    "nearest.shape": (
        "Which shape is the object closest to {a}?",
        "The object nearest to {a} has which shape?",
        "Closest to {a} is an object of what shape?",
    ),
    "side.horizontal": (
        "From {b}, is {a} to the left or the right?",
        "Does {a} lie left or right of {b}?",
        "Where is {a}, left or right of {b}?",
    ),
    "side.vertical": (
        "From {b}, is {a} above or below?",
        "Is the place of {a} above or below {b}?",
        "Can you see {a} above or below {b}?",
    ),
    "read": ("What is this digit?", "Can you read the digit?", "The picture shows which digit?"),
    "place": ("Can you read the {a} digit?", "The digit {b} is what?", "Which is the {a} digit?"),
    "ink": ("Can you read the digit that is {a}?", "The {a} digit is what?", "What digit is {a}?"),
    "number": ("What is this number?", "Can you read the number?", "The picture shows which number?"),
    "sign.word": ("Can you read the word on {a}?", "{a} says what?", "What is the word on {a}?"),
    "sign.number": ("Can you read the number on {a}?", "{a} shows what number?", "What is the number on {a}?"),
    "value": ("Can you read the value of {a}?", "{a} stands for what value?", "How much does {a} show?"),
    "largest.bar": (
        "The tallest bar has which color?",
        "Can you name the color of the largest bar?",
        "Which of the bars is the highest?",
    ),
    "largest.point": (
        "The highest point has which color?",
        "Can you name the color of the highest point?",
        "Which of the points is the highest?",
    ),
    "smallest.bar": (
        "The shortest bar has which color?",
        "Can you name the color of the smallest bar?",
        "Which of the bars is the lowest?",
    ),
    "smallest.point": (
        "The lowest point has which color?",
        "Can you name the color of the lowest point?",
        "Which of the points is the lowest?",
    ),
    "difference": (
        "{a} is higher than {b} by how much?",
        "Can you tell how much higher {a} is than {b}?",
        "How far is {a} above {b}?",
    ),
    "sum": ("Can you add {a}?", "The sum of {a} is what?", "What number do {a} make in all?"),
    "more": (
        "Does the picture have more {a} than {b}?",
        "Does the picture show a larger number of {a} than of {b}?",
        "Is it true that there are more {a} than {b}?",
    ),
    "surplus": (
        "Can you tell how many more {a} than {b} there are?",
        "The picture has how many more {a} than {b}?",
        "By what number are there more {a} than {b}?",
    ),
    "extreme": (
        "Can you read the digit with the {a} value?",
        "The digit with the {a} value is what?",
        "Of all digits, which has the {a} value?",
    ),
    "where": ("What is the place of {a}?", "Can you name the place of {a}?"),
    "talk.sum": ("The sum of {a} and {b} is what?", "What number do {a} and {b} make?"),
    "talk.after": ("What is the number after {a}?", "{a} comes before what number?"),
    "talk.larger": ("Of {a} and {b}, which is the larger?", "What is the larger number, {a} or {b}?"),
    "describe": ("Can you describe the picture?", "The picture shows what?"),
}
_ORDINALS = ("first", "second")


def ask(
    dice: Dice, split: str, form: str, answer: str, a: str = "", b: str = "", prefix: str = "", filed: str = ""
) -> Question:
    """Word a question of a form; `shifted` is worded as no other split is.

    The wording is looked up by the whole name of the form, else by the part before its dot. A prefix (`printed.`) puts
    the same wording under another type; `filed` is the form of a question that goes by another name than its wording.
    """
    wordings = _SHIFTED_WORDINGS if split == "shifted" else _WORDINGS
    template = dice.pick(wordings[form] if form in wordings else wordings[form.partition(".")[0]])
    text = template.format(a=a, b=b)
    form = filed or prefix + form
    return Question(text=text[0].upper() + text[1:], answer=answer, type=form.partition(".")[0], form=form)


def with_article(noun: str) -> str:
    """The noun behind "a" or "an"."""
    return f"an {noun}" if noun[0] in "aeio" else f"a {noun}"


def listed(items: list[str]) -> str:
    """The items as a list in words: "x", "x and y", "x, y and z"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def about_picture(question: Question, place: int) -> Question:
    """The question with the picture it is about named by its place (0 or 1) among two that are shown at once."""
    text = f"In the {_ORDINALS[place]} picture: {question.text[0].lower()}{question.text[1:]}"
    return replace(question, text=text)
