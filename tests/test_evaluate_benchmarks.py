"""Public sets, read from small stand-ins in the forms they are published in, asked and judged as the tools do."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from published_sets import in_base64, picture, put, put_table, put_tsv
from saccade.errors import DataError
from saccade.evaluate.benchmarks import BENCHMARKS, Benchmark, Sample, benchmark
from saccade.evaluate.benchmarks.choices import rotations
from saccade.image import open_image

pytestmark = pytest.mark.usefixtures("own_table_cache")

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
EN = "There are several options:\n"


def levels(samples: Sequence[Sample]) -> list[int]:
    """Which pictures the samples show, by their gray."""
    found = []
    for sample in samples:
        gray = open_image(sample.pictures[0], 10**6).getpixel((0, 0))[0]
        found.append(gray)
    return found


def judged(of: Benchmark, samples: Sequence[Sample], said: Sequence[str]) -> dict[str, float]:
    return of.summarize(samples, [of.judge(sample, text) for sample, text in zip(samples, said, strict=True)])


def put_pope(folder: Path, form: str) -> None:
    rows = [("1", "Is there a dog in the image?", "yes", 3), ("2", "Is there a cup in the image?", "no", 4)]
    if form == "hub":
        put_table(
            folder / "data/test-00000-of-00001.parquet",
            [
                {"question_id": key, "question": text, "answer": answer, "image_source": f"p{level}",
                 "image": picture(level), "category": "random"}
                for key, text, answer, level in rows
            ],
        )  # fmt: skip
    elif form == "authors":
        lines = [
            json.dumps({"question_id": int(key), "image": f"p{level}.jpg", "text": text, "label": answer})
            for key, text, answer, level in rows
        ]
        put(folder / "coco_pope_random.json", "\n".join(lines))
        for *_, level in rows:
            put(folder / f"val2014/p{level}.jpg", picture(level))
    else:
        put_tsv(
            folder / "POPE.tsv",
            [
                {"index": key, "image": in_base64(level), "question": text, "answer": answer.title(),
                 "category": "random"}
                for key, text, answer, level in rows
            ],
        )  # fmt: skip


@pytest.mark.parametrize("form", ["hub", "authors", "kit"])
def test_pope(tmp_path: Path, form: str) -> None:
    put_pope(tmp_path, form)
    pope = benchmark("pope")
    samples = pope.read(tmp_path, "flashsloth")
    assert [sample.key for sample in samples] == ["random/1", "random/2"]
    assert samples[0].prompt == "Is there a dog in the image?" + SHORT
    assert [sample.answers for sample in samples] == [("yes",), ("no",)]
    units = [sample.unit for sample in samples]
    assert len(set(units)) == 2 if form == "kit" else units == ["p3", "p4"]  # the kit's table names no pictures
    assert levels(samples) == [3, 4]
    scores = judged(pope, samples, ["Yes", "no."])
    assert next(iter(scores)) == "accuracy"
    assert scores["accuracy"] == scores["random accuracy"] == 0.5  # the tool takes "no." for neither

    kit = pope.read(tmp_path, "flashvl")
    assert kit[0].prompt == "Is there a dog in the image?"
    assert judged(pope, kit, ["Yes", "no."])["accuracy"] == 1


def put_mme(folder: Path, form: str) -> None:
    asked = [("Is it A? Please answer yes or no.", "Yes"), ("Is it B? Please answer yes or no.", "No")]
    shown = [("OCR", "x", 3), ("artwork", "y", 4)]
    if form == "authors":
        lines = "".join(f"{question}\t{answer}\n" for question, answer in asked)
        put(folder / "OCR/x.txt", lines)
        put(folder / "OCR/x.jpg", picture(3))
        put(folder / "artwork/questions_answers_YN/y.txt", lines)
        put(folder / "artwork/images/y.jpg", picture(4))
        put(folder / "eval_tool/Your_Results/OCR.txt", "no question")
        return
    rows = [
        {"question_id": f"{task}/{name}.jpg", "question": question, "answer": answer, "category": task, "level": level}
        for task, name, level in shown
        for question, answer in asked
    ]
    if form == "hub":
        put_table(folder / "data/test-0.parquet", [{**row, "image": picture(row.pop("level"))} for row in rows])
    else:
        put_tsv(
            folder / "MME.tsv",
            [
                {"index": n, "image": in_base64(row.pop("level")), "image_path": row.pop("question_id"), **row}
                for n, row in enumerate(rows)
            ],
        )


@pytest.mark.parametrize("form", ["hub", "authors", "kit"])
def test_mme(tmp_path: Path, form: str) -> None:
    put_mme(tmp_path, form)
    mme = benchmark("mme")
    samples = mme.read(tmp_path, "flashsloth")
    assert [sample.group for sample in samples] == ["OCR", "OCR", "artwork", "artwork"]
    assert len({sample.key for sample in samples}) == 4
    assert len({sample.unit for sample in samples}) == 2
    assert levels(samples) == [3, 3, 4, 4]
    assert samples[0].prompt == "Is it A?" + SHORT
    kit = mme.read(tmp_path, "flashvl")[0].prompt
    assert kit == "Is it A? Please answer yes or no. Answer the question using a single word or phrase."
    # OCR: one of two right, 50 + 0. Artwork: both, 100 + 100.
    scores = judged(mme, samples, ["Yes", "Yes", "yes", "No"])
    assert scores == {"points": 250, "perception": 250, "cognition": 0, "OCR": 50, "artwork": 200}
    # Drawn twice, a picture counts twice: (2 * 50 + 0) and the rest as before.
    assert judged(mme, [*samples[:2], *samples[:2]], ["Yes"] * 4)["points"] == 50


def test_half_a_picture_of_mme_is_not_scored(tmp_path: Path) -> None:
    put_mme(tmp_path, "hub")
    samples = benchmark("mme").read(tmp_path, "flashsloth")
    with pytest.raises(DataError, match="one question left"):
        judged(benchmark("mme"), samples[:3], ["Yes"] * 3)


@pytest.mark.parametrize("form", ["hub", "authors"])
def test_textvqa(tmp_path: Path, form: str) -> None:
    row = {
        "question_id": 7,
        "image_id": "i",
        "question": "what does the SIGN say?",
        "answers": ["stop"] * 3 + ["go"] * 7,
    }
    if form == "hub":
        put_table(tmp_path / "data/validation-0.parquet", [{**row, "image": picture(3)}])
    else:
        put(tmp_path / "TextVQA_0.5.1_val.json", {"data": [row]})
        put(tmp_path / "train_images/i.jpg", picture(3))
    textvqa = benchmark("textvqa")
    samples = textvqa.read(tmp_path, "flashsloth")
    assert (samples[0].key, samples[0].unit, levels(samples)) == ("7", "i", [3])
    assert samples[0].prompt == "What does the sign say?" + SHORT  # the tool's str.capitalize
    assert textvqa.read(tmp_path, "flashvl")[0].prompt == "what does the SIGN say?" + SHORT
    assert judged(textvqa, samples, ["Stop"]) == {"accuracy": pytest.approx(0.9)}


@pytest.mark.parametrize("form", ["hub", "authors"])
def test_chartqa(tmp_path: Path, form: str) -> None:
    if form == "hub":
        rows = [("human_test", "How many?", "100", 3), ("augmented_test", "Which color?", "Blue", 4)]
        put_table(
            tmp_path / "data/test-0.parquet",
            [{"type": t, "question": q, "answer": a, "image": picture(level)} for t, q, a, level in rows],
        )
    else:
        put(tmp_path / "test/test_human.json", [{"imgname": "3.png", "query": "How many?", "label": "100"}])
        put(tmp_path / "test/test_augmented.json", [{"imgname": "4.png", "query": "Which color?", "label": "Blue"}])
        for level in (3, 4):
            put(tmp_path / f"test/png/{level}.png", picture(level))
    chartqa = benchmark("chartqa")
    samples = sorted(chartqa.read(tmp_path, "flashsloth"), key=lambda sample: sample.prompt)
    assert samples[0].prompt == "How many?\nAnswer the question with a single word."
    assert levels(samples) == [3, 4]
    assert judged(chartqa, samples, ["104", "red"]) == {
        "relaxed accuracy": 0.5,
        "human questions": 1,
        "augmented questions": 0,
    }


@pytest.mark.parametrize("form", ["hub", "authors"])
def test_docvqa(tmp_path: Path, form: str) -> None:
    row = {"questionId": 5, "question": "Which year?", "docId": 9, "answers": ["1968", "in 1968"]}
    if form == "hub":
        put_table(tmp_path / "DocVQA/validation-0.parquet", [{**row, "questionId": "5", "image": picture(3)}])
    else:
        put(tmp_path / "val_v1.0_withQT.json", {"data": [{**row, "image": "documents/d_1.png"}]})
        put(tmp_path / "spdocvqa_images/d_1.png", picture(3))
    docvqa = benchmark("docvqa")
    samples = docvqa.read(tmp_path, "flashsloth")
    assert (samples[0].key, samples[0].unit, levels(samples)) == ("5", "9", [3])
    assert samples[0].prompt == "Which year?" + SHORT
    assert judged(docvqa, samples, ["1969"]) == {"anls": pytest.approx(0.75)}


@pytest.mark.parametrize("form", ["hub", "authors"])
def test_gqa(tmp_path: Path, form: str) -> None:
    row = {"question": "Is it left?", "imageId": "n1", "answer": "left"}
    if form == "hub":
        put_table(tmp_path / "testdev_balanced_instructions/testdev-0.parquet", [{"id": "q1", **row}])
        images = [{"id": "n0", "image": picture(2)}, {"id": "n1", "image": picture(3)}]
        put_table(tmp_path / "testdev_balanced_images/testdev-0.parquet", images)
    else:
        put(tmp_path / "questions/testdev_balanced_questions.json", {"q1": row})
        put(tmp_path / "images/n1.jpg", picture(3))
    gqa = benchmark("gqa")
    samples = gqa.read(tmp_path, "flashsloth")
    assert (samples[0].key, samples[0].unit, levels(samples)) == ("q1", "n1", [3])
    assert samples[0].prompt == "Is it left?" + SHORT
    assert judged(gqa, samples, ["Left."]) == {"accuracy": 1}
    assert judged(gqa, gqa.read(tmp_path, "flashvl"), ["Left."]) == {"accuracy": 0}  # where punctuation counts


@pytest.mark.parametrize("form", ["hub", "authors", "kit"])
def test_ocrbench(tmp_path: Path, form: str) -> None:
    kinds = ["Regular Text Recognition", "Handwritten Mathematical Expression Recognition"]
    rows = list(zip(["what is written?", "LaTeX?"], kinds, [["CENTRE"], ["x ^ 2"]], [3, 4], strict=True))
    if form == "hub":
        put_table(
            tmp_path / "data/test-0.parquet",
            [{"question": q, "question_type": k, "answer": a, "image": picture(level)} for q, k, a, level in rows],
        )
    elif form == "authors":
        held = [{"question": q, "type": k, "answers": a, "image_path": f"s/{level}.png"} for q, k, a, level in rows]
        put(tmp_path / "OCRBench/OCRBench.json", held)
        for *_, level in rows:
            put(tmp_path / f"OCRBench_Images/s/{level}.png", picture(level))
    else:
        put_tsv(
            tmp_path / "OCRBench.tsv",
            [
                {"index": n, "image": in_base64(level), "question": q, "answer": str(a), "category": k}
                for n, (q, k, a, level) in enumerate(rows)
            ],
        )
    ocrbench = benchmark("ocrbench")
    samples = ocrbench.read(tmp_path, "flashsloth")
    assert [sample.answers for sample in samples] == [("CENTRE",), ("x ^ 2",)]
    assert samples[0].prompt == "what is written?"
    assert ocrbench.read(tmp_path, "flashvl")[0].prompt == "what is written? Anylyze the reason for the answer."
    assert levels(samples) == [3, 4]
    scores = judged(ocrbench, samples, ["It says centre.", "X^2"])  # formulas keep their case
    assert scores == {"points": 500, "accuracy": 0.5, kinds[0]: 1, kinds[1]: 0}


@pytest.mark.parametrize("form", ["hub", "authors", "kit"])
def test_ai2d(tmp_path: Path, form: str) -> None:
    options = ["ear", "nose"]
    if form == "hub":
        row = {"question": "What is A?", "options": options, "answer": "1", "image": picture(3)}
        put_table(tmp_path / "data/test-0.parquet", [row])
    elif form == "authors":
        asked = {"answerTexts": options, "correctAnswer": 1, "questionId": "0.png-0", "abcLabel": True}
        for name in ("0.png", "1.png"):  # the second is not of the test split
            put(tmp_path / f"questions/{name}.json", {"imageName": name, "questions": {"What is A?": asked}})
        put(tmp_path / "ai2d_test_ids.csv", "0\n")
        put(tmp_path / "abc_images/0.png", picture(3))
    else:
        row = {"index": 0, "image": in_base64(3), "question": "What is A?", "A": "ear", "B": "nose", "answer": "B"}
        put_tsv(tmp_path / "AI2D_TEST.tsv", [row])
    ai2d = benchmark("ai2d")
    samples = ai2d.read(tmp_path, "flashsloth")
    assert samples[0].prompt == "What is A?\nA. ear\nB. nose" + LETTER == ai2d.read(tmp_path, "flashvl")[0].prompt
    assert (samples[0].answers, levels(samples)) == (("B",), [3])
    assert judged(ai2d, samples, ["B. nose"]) == {"accuracy": 1}
    assert judged(ai2d, samples, ["nose"]) == {"accuracy": 0}
    assert judged(ai2d, ai2d.read(tmp_path, "flashvl"), ["nose"]) == {"accuracy": 1}
    if form == "authors":
        put(tmp_path / "ai2d_test_ids.csv", "2\n")
        with pytest.raises(DataError, match="no question"):
            ai2d.read(tmp_path, "flashsloth")  # the list is read again


@pytest.mark.parametrize("form", ["hub", "authors"])
def test_scienceqa(tmp_path: Path, form: str) -> None:
    row = {"question": "Which?", "choices": ["dog", "cat"], "answer": 0, "hint": "Look.", "subject": "biology"}
    if form == "hub":
        put_table(tmp_path / "ScienceQA-IMG/test-0.parquet", [{**row, "image": picture(3)}])
    else:
        problems = {
            "1": {**row, "image": "image.png", "split": "train"},
            "2": {**row, "image": None, "split": "test"},
            "3": {**row, "image": "image.png", "split": "test"},
        }
        put(tmp_path / "problems.json", problems)
        put(tmp_path / "images/test/3/image.png", picture(3))
    scienceqa = benchmark("scienceqa")
    samples = scienceqa.read(tmp_path, "flashsloth")
    assert len(samples) == 1  # only the test split, only with pictures
    assert samples[0].prompt == "Context: Look.\nWhich?\nA. dog\nB. cat" + LETTER
    assert scienceqa.read(tmp_path, "flashvl")[0].prompt == "Look.\nWhich?\nA. dog\nB. cat" + LETTER
    assert (samples[0].answers, samples[0].group, levels(samples)) == (("A",), "biology", [3])
    assert judged(scienceqa, samples, ["A. dog"]) == {"accuracy": 1, "biology": 1}


ASKED = {"question": "Which?", "hint": "Look.", "category": "x"}
MMBENCH: list[dict[str, Any]] = [
    {**ASKED, "index": 1, "A": "dog", "B": "cat", "answer": "A", "image": 3},
    {**ASKED, "index": 1000001, "A": "cat", "B": "dog", "answer": "B", "image": 3},
    {
        "question": "\u54ea\u4e2a?",
        "hint": "",
        "category": "y",
        "index": 2,
        "A": "dog",
        "B": "cat",
        "answer": "B",
        "image": 4,
    },
]


@pytest.mark.parametrize("form", ["hub", "kit"])
def test_mmbench_is_right_only_in_every_rotation(tmp_path: Path, form: str) -> None:
    if form == "hub":
        rows = [{**row, "C": "nan", "hint": row["hint"] or "nan", "image": picture(row["image"])} for row in MMBENCH]
        put_table(tmp_path / "en/dev-0.parquet", rows)
        put_table(tmp_path / "cn/dev-0.parquet", rows[:1])
    else:
        images = [in_base64(3), "1", in_base64(4)]  # a rotation names the row that holds its picture
        put_tsv(
            tmp_path / "MMBench_DEV_EN.tsv",
            [{**row, "C": "", "image": image} for row, image in zip(MMBENCH, images, strict=True)],
        )
    mmbench = benchmark("mmbench")
    samples = mmbench.read(tmp_path, "flashsloth")
    assert [sample.unit for sample in samples] == ["1", "1", "2"]
    assert samples[0].prompt == f"Look. Which? {EN}A. dog\nB. cat\n{LETTER}"
    assert samples[2].prompt.startswith(f"\u54ea\u4e2a? {EN}A. dog\nB. cat\n\n\u8bf7")
    assert mmbench.read(tmp_path, "flashvl")[0].prompt == "Look.\nWhich?\nA. dog\nB. cat" + LETTER
    assert levels(samples) == [3, 3, 4]
    # A model that likes A is right once of the first question, so not of it; one that knows is right of both.
    assert judged(mmbench, samples, ["A", "A", "B"]) == {
        "accuracy": 0.5,
        "single rotations": pytest.approx(2 / 3),
        "x": 0,
        "y": 1,
    }
    assert judged(mmbench, samples, ["A", "B", "B"])["accuracy"] == 1
    # Drawn twice, the first question is two of three.
    assert judged(mmbench, [*samples[:2], *samples], ["A", "A", "A", "A", "B"])["accuracy"] == pytest.approx(1 / 3)


def test_own_questions_are_asked_in_every_rotation(tmp_path: Path) -> None:
    row = {"question": "Which?", "options": ["dog", "cat", "cow"], "answer": "B", "image": "a.png"}
    put(tmp_path / "own.jsonl", row)
    put(tmp_path / "a.png", picture(3))
    samples = benchmark("choices").read(tmp_path, "flashvl")
    assert [sample.answers for sample in samples] == [("B",), ("A",), ("C",)]
    assert [sample.details["options"]["A"] for sample in samples] == ["dog", "cat", "cow"]
    assert {sample.unit for sample in samples} == {"0"}
    assert judged(benchmark("choices"), samples, ["cat", "A", "C"])["accuracy"] == 1


def test_rotations() -> None:
    assert rotations({"A": "x", "B": "y"}, "A") == [({"A": "x", "B": "y"}, "A"), ({"A": "y", "B": "x"}, "B")]


def test_questions_about_one_picture_are_drawn_together(tmp_path: Path) -> None:
    row = {"question": "Which?", "A": "x", "B": "y", "answer": "A"}
    images = [in_base64(3), "0", in_base64(4), in_base64(3)]  # by the number of an earlier row, or once more
    put_tsv(tmp_path / "AI2D_TEST.tsv", [{"index": n, "image": image, **row} for n, image in enumerate(images)])
    units = [sample.unit for sample in benchmark("ai2d").read(tmp_path, "flashvl")]
    assert units[0] == units[1] == units[3] != units[2]


def test_tables_of_one_set_are_counted_through(tmp_path: Path) -> None:
    row = {"question": "Which?", "A": "x", "B": "y", "answer": "A", "image": in_base64(3)}
    for name in ("a.tsv", "b.tsv"):
        put_tsv(tmp_path / name, [row])
    keys = [sample.key for sample in benchmark("choices").read(tmp_path, "flashvl")]
    assert keys == ["0/0", "0/1", "1/0", "1/1"]


def test_every_set_is_described_for_both_papers() -> None:
    for name, known in BENCHMARKS.items():
        assert name == known.name
        assert known.title
        assert known.formats
        assert list(known.protocols) == ["flashsloth", "flashvl"]
        assert {known.protocols[paper].tool for paper in known.protocols} == {"lmms-eval", "VLMEvalKit"}
    assert (BENCHMARKS["mme"].full, BENCHMARKS["ocrbench"].full, BENCHMARKS["pope"].full) == (2800, 1000, 1)
