"""Published formats become rows that training reads: stand-ins of a few records, laid out as the sets publish them."""

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saccade.data.convert.archives import unpack
from saccade.data.convert.formats import FORMATS, Columns, Dropped, feedback
from saccade.data.convert.records import read_records
from saccade.data.convert.write import MOST_BAD, write_rows
from saccade.data.records import Record
from saccade.data.rows import RowError
from saccade.data.sources import Source, open_rows
from saccade.errors import DataError

PLAIN = Columns()


def png(shade: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((3, 4, 3), shade % 256, np.uint8)).save(file, "PNG")
    return file.getvalue()


def completion(response: str, *ratings: str) -> dict[str, Any]:
    aspects = ("Helpfulness", "Visual Faithfulness", "Ethical Considerations")
    annotations = {name: {"Rating": rating, "Rationale": ""} for name, rating in zip(aspects, ratings, strict=True)}
    return {"annotations": annotations, "model": "m", "response": response}


def records(count: int, broken: set[int] = frozenset()) -> Iterator[Record | RowError]:  # type: ignore[assignment]
    for index in range(count):
        where = f"some.parquet[{index}]"
        fields = {
            "image": {"bytes": png(index), "path": None},
            "q": f"what {index}?",
            "a": "" if index in broken else "x",
        }
        yield Record(where, fields, None)


def question(fields: Mapping[str, Any]) -> Any:
    return FORMATS["question"](fields, Columns(question=("q",), answer="a"), "chat")


def test_the_best_mean_rating_stands_against_the_worst() -> None:
    answers = [
        completion("middling", "4", "3", "5"),
        completion("best on average, best at nothing", "4", "5", "5"),
        completion("worst", "5", "1", "1"),
        completion("not ranked", "N/A", "5", "5"),
    ]
    row = feedback({"prompt": "what?", "image": "a.jpg", "completions": answers}, PLAIN, "preferences")
    assert row == {
        "image": ["a.jpg"],
        "prompt": "what?",
        "chosen": "best on average, best at nothing",
        "rejected": "worst",
    }


def test_completions_written_column_by_column_are_read_alike() -> None:
    rows = [completion("good", "5", "5", "5"), completion("bad", "1", "1", "1")]
    table = {name: [row[name] for row in rows] for name in rows[0]}
    record = {"prompt": "what?", "image": "a.jpg"}
    assert feedback(record | {"completions": table}, PLAIN, "preferences") == feedback(
        record | {"completions": rows}, PLAIN, "preferences"
    )


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([completion("a", "5", "3", "4"), completion("b", "4", "4", "4")], "ties"),
        ([completion("a", "5", "3", "4"), completion("b", "N/A", "4", "4")], "fewer than two rated answers"),
        ([completion("a", "5", "3", "4"), completion("b", "nan", "4", "4")], "fewer than two rated answers"),
        ([completion("a", "5", "5", "5"), completion("a", "1", "1", "1")], "one answer rated twice"),
    ],
)
def test_answers_that_no_rating_tells_apart_make_no_pair(answers: list[dict[str, Any]], reason: str) -> None:
    row = feedback({"prompt": "what?", "image": "a.jpg", "completions": answers}, PLAIN, "preferences")
    assert row == Dropped(reason)


@pytest.mark.parametrize(
    ("record", "wrong"),
    [
        ({"image": "a.png"}, "no conversation"),
        ({"conversations": [{"from": "bird", "value": "tweet"}]}, "'bird'"),
        ({"conversations": [{"from": "human", "value": " "}]}, "no text"),
        ({"conversations": [{"from": "human", "value": "<image> what?"}]}, "0 pictures but 1"),
        ({"image": ["a.png", "b.png"], "conversations": [{"from": "human", "value": "<image>?"}]}, "2 pictures but 1"),
        ({"image": 7, "conversations": [{"from": "human", "value": "<image>?"}]}, "neither a path nor"),
    ],
)
def test_a_conversation_that_does_not_hold_together_is_an_error(record: dict[str, Any], wrong: str) -> None:
    with pytest.raises(DataError, match=wrong):
        FORMATS["conversation"](record, PLAIN, "chat")


def test_pictures_without_a_placeholder_stand_before_the_first_question() -> None:
    talk = [{"role": "user", "content": "what?"}, {"role": "assistant", "content": "that"}]
    row = FORMATS["conversation"]({"image": ["a", "b"], "messages": talk}, PLAIN, "chat")
    assert isinstance(row, dict)
    assert row["conversations"][0] == {"from": "human", "value": "<image>\n<image>\nwhat?"}


def test_of_several_answers_the_most_frequent_is_taken() -> None:
    fields = {"image": "a.png", "question": "how many?", "answers": ["2", "3", "3", "2", "3"]}
    row = FORMATS["question"](fields, Columns(question=("question",), answer="answers"), "chat")
    assert isinstance(row, dict)
    assert row["conversations"][1]["value"] == "3"


def test_pictures_held_as_bytes_are_stored_beside_the_rows(tmp_path: Path) -> None:
    target = tmp_path / "rows.jsonl"
    progress = write_rows(records(3), question, target, pictures=tmp_path)
    assert (progress.rows, progress.bad) == (3, [])
    rows = open_rows(Source(path=str(target), kind="chat"))
    assert [row.turns[0].text for row in map(rows.__getitem__, range(3))] == ["what 0?", "what 1?", "what 2?"]
    assert Path(rows[2].pictures[0]).read_bytes() == png(2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "rows.jsonl"]


def killed_after(count: int, make: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], Any]:
    left = iter(range(count))

    def make_or_die(fields: Mapping[str, Any]) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return make(fields)

    return make_or_die


@pytest.mark.parametrize("killed", [0, 1, 255, 257, 300])
def test_a_conversion_that_was_killed_ends_as_if_it_had_not_been(tmp_path: Path, killed: int) -> None:
    whole, stopped = tmp_path / "whole" / "rows.jsonl", tmp_path / "stopped" / "rows.jsonl"
    broken = {3, 280}
    first = write_rows(records(310, broken), question, whole, pictures=tmp_path, skip_bad=True)
    with pytest.raises(KeyboardInterrupt):
        write_rows(records(310, broken), killed_after(killed, question), stopped, pictures=tmp_path, skip_bad=True)
    assert not stopped.exists()
    with stopped.with_name("rows.jsonl.part").open("ab") as part:
        part.write(b'{"id": "half a li')
    seen: list[object] = []
    again = write_rows(
        records(310, broken),
        lambda fields: seen.append(fields) or question(fields),
        stopped,
        pictures=tmp_path,
        skip_bad=True,
    )
    assert again == first
    assert stopped.read_bytes() == whole.read_bytes()
    assert len(seen) == (310 if killed < 256 else 54)


def test_a_conversion_whose_rows_were_lost_begins_again(tmp_path: Path) -> None:
    target = tmp_path / "rows.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write_rows(records(300), killed_after(260, question), target, pictures=tmp_path)
    target.with_name("rows.jsonl.part").write_bytes(b"")
    assert write_rows(records(300), question, target, pictures=tmp_path).rows == 300
    assert b"\0" not in target.read_bytes()


@pytest.mark.parametrize(
    ("name", "columns", "fields"),
    [
        ("conversation", PLAIN, {"conversations": "what?"}),
        ("conversation", PLAIN, {"conversations": [{"from": ["human"], "value": "what?"}]}),
        ("question", Columns(picture="{id}.jpg"), {"answer": "x"}),
        ("question", PLAIN, {"answer": [{"text": "x"}]}),
        ("feedback", PLAIN, {"prompt": "what?", "completions": {"response": 3}}),
    ],
)
def test_records_in_another_format_are_bad_and_not_the_end(
    tmp_path: Path, name: str, columns: Columns, fields: dict[str, Any]
) -> None:
    found = [Record("x[0]", fields, None), Record("x[1]", {"question": "?"}, None)]
    progress = write_rows(
        found, lambda one: FORMATS[name](one, columns, "chat"), tmp_path / "r", pictures=tmp_path, skip_bad=True
    )
    assert progress.records == 2
    assert progress.bad[0].startswith("x[0]: is in another format than expected (")


def test_pictures_outside_of_the_folder_and_names_that_are_none_are_bad(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    names = [str(tmp_path / "a.png"), "a" * 300]
    found = [Record(f"x[{n}]", {"image": name, "q": "?", "a": "x"}, None) for n, name in enumerate(names)]
    progress = write_rows(found, question, tmp_path / "in" / "r", pictures=tmp_path / "in", skip_bad=True)
    assert [("lies outside" in bad, "is missing" in bad) for bad in progress.bad] == [(True, False), (False, True)]


def test_bad_records_stop_the_conversion_unless_they_are_skipped(tmp_path: Path) -> None:
    target = tmp_path / "rows.jsonl"
    with pytest.raises(DataError, match=r"2 of 9 records .*\[4\].*no text for a.*\[7\].*--skip-bad"):
        write_rows(records(9, {4, 7}), question, target, pictures=tmp_path)
    assert not target.exists()
    progress = write_rows(records(9, {4, 7}), question, target, pictures=tmp_path, skip_bad=True)
    assert progress.rows == 7
    assert [where.partition(":")[0] for where in progress.bad] == ["some.parquet[4]", "some.parquet[7]"]


def test_bad_records_may_be_mended_and_the_conversion_run_again(tmp_path: Path) -> None:
    target = tmp_path / "rows.jsonl"
    with pytest.raises(DataError):
        write_rows(records(9, {4}), question, target, pictures=tmp_path)
    assert write_rows(records(9), question, target, pictures=tmp_path).rows == 9
    assert len(target.read_text().splitlines()) == 9


def test_a_data_set_in_another_format_is_told_early(tmp_path: Path) -> None:
    drawn: list[object] = []
    endless = (drawn.append(one) or one for one in records(10 * MOST_BAD))
    with pytest.raises(DataError, match=f"{MOST_BAD + 1} of {MOST_BAD + 1} records"):
        write_rows(
            endless, lambda fields: FORMATS["conversation"](fields, PLAIN, "chat"), tmp_path / "r", pictures=tmp_path
        )
    assert len(drawn) == MOST_BAD + 1


def test_a_missing_picture_and_bytes_that_are_none_are_bad(tmp_path: Path) -> None:
    found = [Record("x[0]", {"image": "no.png", "q": "?", "a": "x"}, None)]
    found += [Record("x[1]", {"image": b"GIF89", "q": "?", "a": "x"}, None)]
    progress = write_rows(found, question, tmp_path / "rows.jsonl", pictures=tmp_path / "here", skip_bad=True)
    assert [("missing" in bad, "no picture" in bad) for bad in progress.bad] == [(True, False), (False, True)]


def test_parquet_is_read_where_it_lies(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"image": {"bytes": png(shade), "path": "x.png"}, "problem": f"{shade}?"} for shade in range(70)]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    count, found = read_records(tmp_path / "a.parquet")
    assert count == 70
    assert [one.fields for one in found if isinstance(one, Record)] == rows


def test_lines_that_are_not_json_are_errors_of_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\nnothing\n{"a": 2}\n')
    count, found = read_records(path)
    assert (count, [isinstance(one, RowError) for one in found]) == (3, [False, True, False])
    with pytest.raises(DataError, match=r"\.csv"):
        read_records(tmp_path / "a.csv")


def write_zip(path: Path, members: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_a_tar_in_pieces_is_unpacked_as_one(tmp_path: Path) -> None:
    file = io.BytesIO()
    noise = np.random.default_rng(0).bytes(100_000)
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name in ("imgs/a.bin", "imgs/b.bin"):
            member = tarfile.TarInfo(name)
            member.size = len(noise)
            archive.addfile(member, io.BytesIO(noise))
    content, pieces = file.getvalue(), [tmp_path / "part.00", tmp_path / "part.01"]
    pieces[0].write_bytes(content[:77_777])
    pieces[1].write_bytes(content[77_777:])
    unpack(pieces, tmp_path / "out")
    assert [(tmp_path / "out/imgs" / name).read_bytes() == noise for name in ("a.bin", "b.bin")] == [True, True]


def test_unpacking_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    archive, out = tmp_path / "a.zip", tmp_path / "out"
    write_zip(archive, {"deep/a.txt": b"one", "deep/b.txt": b"two"})
    (out / "deep").mkdir(parents=True)
    (out / "deep/a.txt").write_bytes(b"ONE")  # whole by its size, so it is left alone
    (out / "deep/b.txt").write_bytes(b"t")  # cut off
    unpack([archive], out)
    assert [(out / "deep" / name).read_bytes() for name in ("a.txt", "b.txt")] == [b"ONE", b"two"]
    (out / "deep/b.txt").unlink()
    unpack([archive], out)
    assert not (out / "deep/b.txt").exists(), "an archive that was unpacked is not unpacked again"


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_leave_their_folders_in_every_kind_of_archive(tmp_path: Path, kind: str) -> None:
    if kind == "zip":
        write_zip(tmp_path / "a", {"x/y/a.txt": b"one"})
    else:
        with tarfile.open(tmp_path / "a", "w") as archive:
            member = tarfile.TarInfo("x/y/a.txt")
            member.size = 3
            archive.addfile(member, io.BytesIO(b"one"))
    unpack([tmp_path / "a"], tmp_path / "out", flat=True)
    assert (tmp_path / "out/a.txt").read_bytes() == b"one"


def test_damaged_contents_are_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", np.random.default_rng(0).bytes(999).hex())
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[40:400] = bytes(255 - byte for byte in content[40:400])
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be unpacked .*fetch again"):
        unpack([tmp_path / "a.zip"], tmp_path / "out")


def test_a_damaged_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"nothing of that kind")
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack([tmp_path / "a.zip"], tmp_path / "out")
    assert not (tmp_path / "a.zip.unpacked").exists()
