"""Where rows come from: JSON files, shards, tables and mixtures, each read by its place, and bad ones told with it."""

import io
import json
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llava_talks import SHOWN, TALK
from saccade.data.json_files import find_elements, find_lines
from saccade.data.mixed import Mixed
from saccade.data.records import Joined
from saccade.data.rows import RowError, Rows
from saccade.data.sources import Source, open_rows
from saccade.errors import DataError
from saccade.prompt import Turn


def written(path: Path, rows: list[Any]) -> str:
    text = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return str(path)


def png(width: int = 4, height: int = 3) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


def shard(path: Path, members: dict[str, bytes]) -> str:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return str(path)


def chat(path: str, **fields: Any) -> Rows:
    return open_rows(Source(path=path, kind="chat", **fields))


# JSON files

values = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('a"\\[]{},: \n\u00e9\u4e2d\U0001f600')),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('k"\\,', max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(values, max_size=5), st.sampled_from([None, 1]), st.booleans(), st.integers(1, 40))
def test_elements_of_an_array_are_found_with_any_buffer(rows, indent, ascii, chunk):
    text = f" \n{json.dumps(rows, indent=indent, ensure_ascii=ascii)}\n".encode()
    starts, ends = find_elements(io.BytesIO(text), 0, chunk, lambda done: None)
    assert [json.loads(text[start:end]) for start, end in zip(starts, ends, strict=True)] == rows


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("ab\u4e2d \t", max_size=4), max_size=6), st.booleans(), st.integers(1, 9))
def test_lines_are_found_with_any_buffer(lines, ends, chunk):
    text = ("\n".join(lines) + "\n" * ends).encode()
    starts, stops = find_lines(io.BytesIO(text), 0, chunk, lambda done: None)
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    assert [text[start:stop].decode() for start, stop in zip(starts, stops, strict=True)] == lines


@pytest.mark.parametrize("text", ["[{}, {}", '[{"a": "b]', "[{}] [{}]", "[{}]]", "["])
def test_arrays_that_are_not_whole_are_refused(text, tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(DataError, match="is not one JSON array"):
        chat(str(path))


@pytest.mark.parametrize(("name", "where"), [("talks.jsonl", ":2"), ("talks.json", "[1]")])
def test_json_rows_know_their_place(name, where, tmp_path):
    rows = chat(written(tmp_path / name, [{"conversations": TALK}, {"image": "a.png", "conversations": SHOWN}]))
    assert len(rows) == 2
    assert rows[1].where == f"{tmp_path / name}{where}"
    assert rows[1].pictures == (tmp_path / "a.png",)
    with pytest.raises(IndexError):
        rows[2]


def test_a_bad_line_is_an_error_of_its_row_alone(tmp_path):
    path = tmp_path / "talks.jsonl"
    good = json.dumps({"conversations": TALK})
    path.write_bytes(b"\xef\xbb\xbf" + "\n".join([good, "", "{", "[]", good, "\n"]).encode() + b"\n")
    rows = chat(str(path))
    assert len(rows) == 5
    assert rows[0].turns == rows[4].turns
    for index, said in ((1, ":2: is empty"), (2, ":3: is not JSON"), (3, ":4: is a list")):
        with pytest.raises(RowError, match=said):
            rows[index]


def test_half_a_character_is_an_error_of_its_row_alone(tmp_path):
    texts = ["\ud800", "\U0001f600"]
    talks = [{"conversations": [TALK[0], {"from": "gpt", "value": text}]} for text in texts]
    rows = chat(written(tmp_path / "talks.jsonl", talks))
    with pytest.raises(RowError, match=r"talks\.jsonl:1: is not JSON .*surrogates not allowed"):
        rows[0]
    assert rows[1].turns[1].text == texts[1]


def test_sources_say_what_they_are(tmp_path):
    written(tmp_path / "a.jsonl", [{"conversations": TALK}] * 3)
    written(tmp_path / "b.jsonl", [{"image": "a.png", "conversations": SHOWN}] * 2)
    both = chat(str(tmp_path / "*.jsonl"), pictures=str(tmp_path / "pictures"))
    assert len(both) == 5
    assert both[3].pictures == (tmp_path / "pictures" / "a.png",)
    assert len(chat(str(tmp_path / "*.jsonl"), limit=4)) == 4
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "rows.csv").write_text("a")
    for path, said in (("empty.jsonl", "no row"), ("none.jsonl", "no file of rows"), ("rows.csv", r"files of '\.csv'")):
        with pytest.raises(DataError, match=said):
            chat(str(tmp_path / path))
    with pytest.raises(DataError, match=r"no folder of shards or tables: .* a pattern such as .*\*\.jsonl"):
        chat(str(tmp_path))
    with pytest.raises(DataError, match="hf: names no data set"):
        chat("hf:")


# Shards


def test_shards_are_read_in_place(tmp_path):
    first = {
        "0.json": json.dumps({"image": "coco/7.jpg", "conversations": SHOWN}).encode(),
        "0.jpg": png(),
        "1.json": json.dumps({"conversations": TALK}).encode(),
        "1.jpg": b"",  # how shards are packed whose rows must all have a picture
    }
    long = "d" * 150 + "/0"
    second = {f"{long}.PNG": png(5), f"{long}.json": json.dumps({"conversations": SHOWN}).encode(), "x.cls": b"1"}
    shard(tmp_path / "0.tar", first)
    shard(tmp_path / "1.tar", second)
    for path in (tmp_path, tmp_path / "*.tar"):
        rows = chat(str(path))
        assert [len(rows[index].pictures) for index in range(len(rows))] == [1, 0, 1]
    assert rows[0].where == f"{tmp_path / '0.tar'}:0.json"
    assert (rows[0].pictures, rows[2].pictures) == ((png(),), (png(5),))


def test_a_text_in_a_shard_is_a_caption(tmp_path):
    path = shard(tmp_path / "0.tar", {"a/0.webp": png(), "a/0.txt": b"a cat\n", "a/1.jpg": png(5), "a/1.txt": b"\xff"})
    rows = open_rows(Source(path=path, kind="captions"))
    assert (rows[0].caption, rows[0].pictures) == ("a cat", (png(),))
    with pytest.raises(RowError, match=r"1\.txt: is not text in UTF-8"):
        rows[1]


def test_several_pictures_in_a_shard_come_in_the_order_that_the_record_names(tmp_path):
    talk = [{"from": "human", "value": "<image><image>What?"}, TALK[1]]
    named = [["b/0.1.png", "0.0.png"], None, ["x.png", "y.png"], ["0.png"]]
    members = {}
    for key, names in enumerate(named):
        members |= {f"{key}.{n}.png": png(5 + n) for n in range(2)}
        members[f"{key}.json"] = json.dumps({"image": names, "conversations": talk}).encode()
    rows = chat(shard(tmp_path / "0.tar", members))
    assert rows[0].pictures == (png(6), png(5))
    assert rows[1].pictures == (png(5), png(6))
    for index, said in ((2, "name these in order"), (3, "names 1 pictures, 2 lie beside it")):
        with pytest.raises(RowError, match=said):
            rows[index]
    members["0.json"] = json.dumps({"images": named[0], "conversations": talk}).encode()
    members["1.json"] = json.dumps({"image": "", "conversations": talk}).encode()
    rows = chat(shard(tmp_path / "0.tar", members))
    assert [rows[index].pictures for index in range(2)] == [(png(6), png(5)), (png(5), png(6))]


@pytest.mark.parametrize("damage", ["header", "cut", "joined"])
def test_a_shard_that_would_end_early_is_refused(damage, tmp_path):
    members = {f"{number}.json": json.dumps({"conversations": TALK}).encode() for number in range(4)}
    path = Path(shard(tmp_path / "0.tar", members))
    whole = bytearray(path.read_bytes())
    third = whole.index(b"2.json")
    if damage == "header":
        whole[third + 150] ^= 255
    path.write_bytes({"header": whole, "cut": whole[:third], "joined": whole * 2}[damage])
    with pytest.raises(DataError, match=r"0\.tar is not a whole tar file \(at byte \d+ it neither goes on nor ends"):
        chat(str(path))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.text("ab\u00e9", min_size=1, max_size=120), st.integers(0, 3)), max_size=5))
def test_shards_of_any_names_hold_their_rows(tmp_path_factory, samples):
    members: dict[str, bytes] = {"first.json": json.dumps({"conversations": TALK}).encode()}
    for number, (name, pictures) in enumerate(samples):
        talk = [{"from": "human", "value": "<image>" * pictures + "What?"}, TALK[1]]
        members[f"{number}{name}.json"] = json.dumps({"conversations": talk}).encode()
        members |= {f"{number}{name}.{n}.png": png(1 + n, 1 + number) for n in range(pictures)}
    rows = chat(shard(tmp_path_factory.mktemp("shards") / "0.tar", members))
    expected = [(), *(tuple(png(1 + n, 1 + number) for n in range(count)) for number, (_, count) in enumerate(samples))]
    assert [rows[index].pictures for index in range(len(rows))] == expected


def test_what_is_no_whole_row_or_shard_is_refused(tmp_path):
    rows = chat(shard(tmp_path / "0.tar", {"0.jpg": png()}))
    with pytest.raises(RowError, match=r"0\.jpg: has neither a \.json nor a \.txt"):
        rows[0]
    whole = Path(shard(tmp_path / "1.tar", {"0.json": b"{}", "0.jpg": png() * 40})).read_bytes()
    (tmp_path / "1.tar").write_bytes(whole[:2000])
    with pytest.raises(DataError, match=r"1\.tar is not a whole tar file"):
        chat(str(tmp_path / "1.tar"))


# Tables


def test_data_sets_are_read_from_parquet_and_from_saved_folders(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    picture = Image.new("RGB", (6, 5), (9, 8, 7))
    talks = [[{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "a cat"}]] * 2
    data = datasets.Dataset.from_dict({"images": [[picture], [picture]], "messages": talks}).cast_column(
        "images", datasets.List(datasets.Image())
    )
    data.to_parquet(tmp_path / "part.parquet")
    datasets.DatasetDict({"train": data}).save_to_disk(tmp_path / "saved")
    for path in ("part.parquet", "saved"):
        rows = chat(str(tmp_path / path))
        assert len(rows) == 2
        assert rows[1].where == f"{tmp_path / path}[1]"
        assert rows[1].turns[0] == Turn("user", "What?", images=1)
        assert Image.open(io.BytesIO(rows[1].pictures[0])).size == (6, 5)
    with pytest.raises(DataError, match="no split 'test': choose one of train"):
        chat(str(tmp_path / "saved"), split="test")


# Mixtures


class Numbered:
    """Rows that are only told apart."""

    def __init__(self, name: str, length: int) -> None:
        self.name, self.length = name, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return f"{self.name}{range(self.length)[index]}"


def test_joined_rows_stand_one_after_the_other():
    rows = Joined([Numbered("a", 2), Numbered("b", 0), Numbered("c", 3)])
    assert [rows[index] for index in range(len(rows))] == ["a0", "a1", "c0", "c1", "c2"]
    with pytest.raises(IndexError):
        rows[5]


def test_a_pass_without_shares_shows_every_row_once_in_an_order_of_its_own():
    mixture = Mixed([Numbered("a", 7), Numbered("b", 4)], [None, None], seed=5)
    passes = [[mixture[11 * epoch + place] for place in range(11)] for epoch in range(3)]
    assert len(mixture) == 11
    assert all(sorted(one) == sorted(passes[0]) and len(set(one)) == 11 for one in passes)
    assert passes[0] != passes[1] != passes[2]
    again = Mixed([Numbered("a", 7), Numbered("b", 4)], [None, None], seed=5)
    assert [again[place] for place in (25, 3, 14)] == [passes[2][3], passes[0][3], passes[1][3]]
    other = Mixed([Numbered("a", 7), Numbered("b", 4)], [None, None], seed=6)
    assert [other[place] for place in range(11)] != passes[0]


def test_shares_divide_a_pass_and_no_row_comes_twice_before_all_came_once():
    mixture = Mixed([Numbered("a", 30), Numbered("b", 4)], [1.0, 1.0], seed=1)
    assert mixture.counts == [17, 17]
    drawn: Counter[str] = Counter()
    for epoch in range(6):
        names = [mixture[34 * epoch + place] for place in range(34)]
        assert Counter(name[0] for name in names) == {"a": 17, "b": 17}
        drawn.update(names)
        for source in "ab":
            counts = [count for name, count in drawn.items() if name[0] == source]
            assert max(counts) - (min(counts) if len(counts) == len(mixture.parts["ab".index(source)]) else 0) <= 1


def test_shares_that_make_no_sense_are_refused():
    with pytest.raises(DataError, match="1 of 2 sources have a share"):
        Mixed([Numbered("a", 3), Numbered("b", 3)], [1.0, None], seed=0)
    with pytest.raises(DataError, match="share of source 2 is below one row in 6"):
        Mixed([Numbered("a", 3), Numbered("b", 3)], [1.0, 0.01], seed=0)


def test_a_mixture_opens_its_sources(tmp_path):
    path = written(tmp_path / "talks.jsonl", [{"conversations": TALK}] * 3)
    mixture = Mixed.of([Source(path=path, kind="chat"), Source(path=path, kind="captions")], seed=0)
    assert len(mixture) == 6
    found = [mixture.locate(number) for number in range(6)]
    assert sorted(found) == [(part, index) for part in range(2) for index in range(3)]
    assert len({mixture[n].where for n, (part, _) in enumerate(found) if part == 0}) == 3


def test_a_data_set_that_cannot_be_fetched_is_one_error():
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match="hf:nobody/nothing:small, split 'train', cannot be fetched"):
        chat("hf:nobody/nothing:small")


def test_tables_say_which_library_they_need(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "part.parquet").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"part\.parquet is read by the datasets library.*pip install 'saccade\[train\]'"
    ):
        chat(str(tmp_path))
