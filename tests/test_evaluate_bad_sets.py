"""Public sets that cannot be read or asked: the error names the place and the remedy."""

from pathlib import Path
from typing import Any

import pytest

from published_sets import in_base64, picture, put, put_table, put_tsv
from saccade.errors import DataError
from saccade.evaluate.benchmarks import benchmark
from saccade.evaluate.rendered import any_benchmark

pytestmark = pytest.mark.usefixtures("own_table_cache")
POPE_ROW = {"question_id": "1", "question": "Is it?", "answer": "yes", "image_source": "p", "category": "random"}


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"question": None}, r"test-0.parquet\[1\], column 'question', holds no text: fetch"),
        ({"answer": "maybe"}, r"\[1\], column 'answer', is 'maybe', neither yes nor no"),
        ({"question_id": "1"}, "random/1 of POPE twice"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: dict[str, Any], match: str) -> None:
    good = {**POPE_ROW, "image": picture(3)}
    put_table(tmp_path / "data/test-0.parquet", [good, {**good, "question_id": "2", **row}])
    with pytest.raises(DataError, match=match):
        benchmark("pope").read(tmp_path, "flashsloth")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no POPE: looked for data/test-\*.parquet.*hf:lmms-lab/POPE"):
        benchmark("pope").read(tmp_path, "flashsloth")
    with pytest.raises(DataError, match=r"there is no .*nowhere: fetch POPE"):
        benchmark("pope").read(tmp_path / "nowhere", "flashsloth")
    with pytest.raises(DataError, match="choose one of flashsloth, flashvl"):
        benchmark("pope").read(tmp_path, "other")
    with pytest.raises(DataError, match="choose one of pope, mme"):
        benchmark("vqa")
    put(tmp_path / "coco_pope_random.json", {"question_id": 1, "image": "p.jpg", "text": "Is it?", "label": "yes"})
    with pytest.raises(DataError, match=r"no picture .*val2014/p.jpg"):
        benchmark("pope").read(tmp_path, "flashsloth")


def test_bad_tables_are_named(tmp_path: Path) -> None:
    row = {"index": 1, "image": "7", "question": "Which?", "A": "x", "B": "y", "answer": "C"}
    table = tmp_path / "MMBench_DEV_EN.tsv"
    put_tsv(table, [row])
    with pytest.raises(DataError, match="no picture and no index of one"):
        benchmark("mmbench").read(table, "flashvl")
    put_tsv(table, [{**row, "image": in_base64(3)}])
    with pytest.raises(DataError, match="is 'C', none of A, B"):
        benchmark("mmbench").read(table, "flashvl")
    put_tsv(table, [{**row, "image": in_base64(3), "answer": ""}])
    with pytest.raises(DataError, match="name a split with answers"):
        benchmark("mmbench").read(table, "flashvl")
    put_tsv(table, [{**row, "image": "!" * 80, "answer": "A"}])
    with pytest.raises(DataError, match="is not base64"):
        benchmark("mmbench").read(table, "flashvl")[0]

    put_tsv(table, [{**row, "image": "\u00e9" * 80, "answer": "A"}])
    with pytest.raises(DataError, match="is not base64"):
        benchmark("mmbench").read(table, "flashvl")[0]
    put(table, "index\tquestion\n1\tWhich?\tanother cell\n")
    with pytest.raises(DataError, match=r"EN.tsv\[0\] has more cells than the table has columns"):
        benchmark("mmbench").read(table, "flashvl")


def test_gqa_says_that_its_pictures_are_missing(tmp_path: Path) -> None:
    put_table(tmp_path / "testdev_balanced_instructions/testdev-0.parquet", [{"id": "q1", "imageId": "n1"}])
    with pytest.raises(DataError, match="testdev_balanced_images"):
        benchmark("gqa").read(tmp_path, "flashsloth")


def test_options_that_would_not_be_found_are_refused(tmp_path: Path) -> None:
    row = {"question": "Which?", "options": list("vwxyz"), "answer": "E", "image": "a.png"}
    put(tmp_path / "own.jsonl", row)
    put(tmp_path / "a.png", picture(3))
    with pytest.raises(DataError, match=r"5 options.*finds 4: ask as VLMEvalKit does, with --protocol"):
        benchmark("choices").read(tmp_path, "flashsloth")
    assert len(benchmark("choices").read(tmp_path, "flashvl")) == 5
    put(tmp_path / "own.jsonl", {**row, "options": ["x"] * 27})
    with pytest.raises(DataError, match="holds 27 options"):
        benchmark("choices").read(tmp_path, "flashvl")


@pytest.mark.parametrize(
    ("name", "file", "content", "match"),
    [
        ("ai2d", "questions/0.json", {"imageName": "0.png", "questions": {"Which?": 3}}, "Which. is a int"),
        ("scienceqa", "problems.json", {"1": 3}, "is a int, no question"),
        ("gqa", "testdev_balanced_questions.json", {"1": 3}, "is a int, no question"),
        ("docvqa", "val_v1.0.json", {"data": [3]}, r"json\[0\] is a int, no question"),
        ("mme", "OCR/x.txt", b"Is it \xe9?\tYes\n", "x.txt cannot be read as text"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, file: str, content: Any, match: str) -> None:
    put(tmp_path / file, content)
    put(tmp_path / "ai2d_test_ids.csv", "0\n")
    with pytest.raises(DataError, match=match):
        benchmark(name).read(tmp_path, "flashsloth")


def test_the_rendered_world_has_no_paper_s_words() -> None:
    with pytest.raises(DataError, match="choose one of world"):
        any_benchmark("world").read(Path("test"), "flashvl")
