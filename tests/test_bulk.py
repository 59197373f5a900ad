"""Asking about many pictures: in order, each picture seen once, errors in their rows, and gone on with after a kill."""

import errno
import gc
import io
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from helpers_vlm import count_views, picture, tiny_vlm
from saccade.cli import app
from saccade.errors import ConfigError, DataError, ImageError, SaccadeError
from saccade.vlm import VLM, bulk
from saccade.vlm import vlm as vlm_module
from saccade.vlm.bulk import FileRequest, answer_requests, requests_of_file, requests_of_folder
from saccade.vlm.ledger import fingerprint, open_ledger, settings_file

QUESTION, NEW = "What is it?", 6
SETTINGS = {"model": "tiny", "max_new_tokens": NEW}


def stored(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def mixed_pictures(folder: Path, count: int, broken: Sequence[int]) -> None:
    """Write files of many kinds, the numbers in `broken` damaged in one way or another."""
    for number in range(count):
        image = picture(number, 20 + number % 7, 25 - number % 5)
        kinds = (
            ("PNG", image, {}),
            ("JPEG", image, {}),
            ("PNG", image.convert("RGBA"), {}),
            ("WEBP", image, {}),
            ("PNG", image.convert("L"), {}),
            ("GIF", image, {"save_all": True, "append_images": [picture(number + 1, *image.size)]}),
        )
        kind, image, options = kinds[number % len(kinds)]
        content = stored(image, kind, **options)
        if number in broken:
            damages = (b"", b"a shopping list", content[: len(content) // 3], content[100:])
            content = damages[list(broken).index(number) % len(damages)]
        path = folder / f"album {number % 3}" / f"{number:03}.{kind.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return tiny_vlm()


@pytest.fixture
def views(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Views per call of the tower."""
    return count_views(vlm, monkeypatch)


def alone(vlm: VLM, path: Path, question: str = QUESTION) -> str:
    """The answer that asking about one picture gives, or the error it raises."""
    try:
        return vlm.ask(path, question, max_new_tokens=NEW).text
    except SaccadeError as error:
        return f"{type(error).__name__}: {error}"


def said(row: dict[str, Any]) -> str:
    return row["answer"] if "answer" in row else f"{row['error']['type']}: {row['error']['message']}"


def run(vlm: VLM, requests: list[FileRequest], batch_size: int = 4, skip: int = 0) -> list[dict[str, Any]]:
    return [row for rows in answer_requests(vlm, requests, batch_size, NEW, skip=skip) for row in rows]


@pytest.mark.filterwarnings("ignore::saccade.errors.SaccadeWarning")
def test_a_run_that_was_killed_goes_on_without_repeating_work(vlm: VLM, views: list[int], tmp_path: Path) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "answers.jsonl"
    broken = (2, 7, 13, 21, 29)
    mixed_pictures(folder, 30, broken)
    requests = requests_of_folder(folder, QUESTION)
    expected = [alone(vlm, request.path) for request in requests]
    assert sum(text.startswith("ImageError") for text in expected) == len(broken)
    assert len(set(expected)) > 10, "the tiny model must tell these pictures apart"
    views.clear()

    with open_ledger(out, SETTINGS, requests) as ledger:
        for number, rows in enumerate(answer_requests(vlm, requests, 4, NEW)):
            ledger.append(rows)
            if number == 3:
                break
        assert ledger.done == 16
    out.write_bytes(out.read_bytes()[:-9])

    with open_ledger(out, SETTINGS, requests) as again:
        assert again.done == 15
        for rows in answer_requests(vlm, requests, 4, NEW, skip=again.done):
            again.append(rows)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["image"] for row in rows] == [request.path.relative_to(folder).as_posix() for request in requests]
    assert [said(row) for row in rows] == expected
    assert (again.done, again.failed) == (30, 5)
    torn = not expected[15].startswith("ImageError")
    assert sum(views) == 25 + torn, "only the picture of the torn line is seen twice"
    frames = [row["warnings"] for row in rows if "warnings" in row]
    assert len(frames) >= 4
    assert all("several frames" in said for (said,) in frames)


def test_a_picture_is_seen_once_however_far_apart_its_questions_are(vlm: VLM, views: list[int], tmp_path: Path) -> None:
    for number in range(3):
        picture(number).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_text("no picture")
    asked = [(0, "a"), (1, "b"), (3, "c"), (2, "d"), (0, "e"), (0, "f"), (3, "g"), (1, "h"), (0, "i")]
    requests = [FileRequest(tmp_path / f"{n}.png", f"{n}.png", text) for n, text in asked]
    rows = run(vlm, requests, batch_size=2)
    assert sum(views) == 3
    assert [said(row) for row in rows] == [alone(vlm, request.path, request.question) for request in requests]


def test_few_pictures_are_kept(vlm: VLM, views: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        picture(number).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(bulk, "KEPT", 2)
    asked = [0, 1, 0, 2, 0, 1, 3, 3]  # when 2 is seen, 1 is the one that was used longest ago
    requests = [FileRequest(tmp_path / f"{n}.png", f"{n}.png", f"{place}?") for place, n in enumerate(asked)]
    requests += [FileRequest(tmp_path / "2.png", "2.png", "again?")]
    rows = run(vlm, requests, batch_size=1)
    assert sum(views) == 5, "of those asked about twice, only picture 1 had to be seen again"
    assert [said(row) for row in rows] == [alone(vlm, request.path, request.question) for request in requests]


def test_one_picture_at_a_time_is_there_at_its_full_size(
    vlm: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    for module, name in ((vlm_module, "open_image"), (vlm_module, "to_views")):
        call = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, call=call, name=name: (order.append(name), call(*given))[1])
    for number in range(3):
        picture(number).save(tmp_path / f"{number}.png")
    run(vlm, requests_of_folder(tmp_path, QUESTION))
    vlm.encode_batch([tmp_path / f"{number}.png" for number in range(3)])
    assert order == ["open_image", "to_views"] * 6


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system does not list open files")
def test_broken_files_are_closed(vlm: VLM, tmp_path: Path) -> None:
    mixed_pictures(tmp_path, 24, broken=range(24))
    gc.collect()  # what others forgot to close is not closed in between
    before = len(os.listdir("/proc/self/fd"))
    errors = []
    for request in requests_of_folder(tmp_path, QUESTION):
        with pytest.raises(ImageError) as caught:
            vlm.cut(request.path)
        errors.append(caught.value)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("number", "ends"), [(errno.EMFILE, True), (errno.EIO, True), (errno.EACCES, False)])
def test_what_is_wrong_with_the_machine_ends_the_run(
    vlm: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, ends: bool
) -> None:
    for name in "ab":
        picture(1).save(tmp_path / f"{name}.png")

    def failing(file: Path) -> Image.Image:
        raise OSError(number, os.strerror(number), str(file))

    monkeypatch.setattr(Image, "open", failing)
    if ends:
        with pytest.raises(OSError, match=os.strerror(number)):
            run(vlm, requests_of_folder(tmp_path, QUESTION))
    else:
        assert [row["error"]["type"] for row in run(vlm, requests_of_folder(tmp_path, QUESTION))] == ["ImageError"] * 2


def test_a_question_that_does_not_fit_fails_alone(vlm: VLM, tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    questions = ["a?", "x" * 500, "b?", " ", "c?"]
    rows = run(vlm, [FileRequest(tmp_path / "a.png", "a.png", text) for text in questions], batch_size=5)
    assert [row.get("error", {}).get("type") for row in rows] == [None, "PromptError", None, None, None]
    assert "holds 400" in rows[1]["error"]["message"]


def test_what_is_wrong_with_the_options_ends_the_run(vlm: VLM, tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="max_new_tokens"):
        list(answer_requests(vlm, requests_of_folder(tmp_path, "What?"), 2, 0))


def test_a_folder_is_walked_in_order_without_what_is_hidden(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.png", "a.png", ".hidden.png", ".cache/c.png", "b/.d.png", "z.txt", "out.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    found = requests_of_folder(tmp_path, "What?", leave_out=[tmp_path / "out.jsonl"])
    assert [request.image for request in found] == ["a.png", "b/10.png", "b/2.png", "z.txt"]
    assert found[1] == FileRequest(tmp_path / "b" / "10.png", "b/10.png", "What?")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no file below"):
        requests_of_folder(tmp_path / "empty", "What?")
    with pytest.raises(DataError, match=r"nowhere cannot be read whole .*No such file"):
        requests_of_folder(tmp_path / "nowhere", "What?")


def test_a_link_that_leads_nowhere_is_a_row(vlm: VLM, tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "gone.png")
    rows = run(vlm, requests_of_folder(tmp_path, QUESTION))
    assert [row["image"] for row in rows] == ["a.png", "b.png", "c.png"]
    assert rows[0]["answer"] == rows[1]["answer"]
    assert "there is no picture file" in rows[2]["error"]["message"]


def test_a_file_of_requests(tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    lines = '{"image": "a.png", "question": "One\u2028line?", "id": "x"}\n\n{"image": "/b.png"}\r\n'
    file.write_text(lines, encoding="utf-8-sig")  # begins as some editors begin a file
    first, second = requests_of_file(file, "And?")
    assert first == FileRequest(tmp_path / "a.png", "a.png", "One\u2028line?", "x")
    assert first.row() == {"id": "x", "image": "a.png", "question": "One\u2028line?"}
    assert second == FileRequest(Path("/b.png"), "/b.png", "And?")
    with pytest.raises(DataError, match=r"line 3 of .* holds no question"):
        requests_of_file(file)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "holds no request"),
        (b'{"image": "a.png"}\n{"image"', "line 2 of .* is not JSON"),
        (b"[1]", "line 1 of .* is not an object of strings"),
        (b'{"image": 7}', "line 1 of .* is not an object of strings"),
        (b'{"picture": "a.png"}', "line 1 of .* has the unknown fields picture"),
        (b'{"id": "a"}', "line 1 of .* names no image"),
        (b"\xff", "cannot be read"),
    ],
)
def test_a_line_that_is_no_request_is_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "requests.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        requests_of_file(tmp_path / "requests.jsonl", "What?")


REQUESTS = [FileRequest(Path(f"{n}.png"), f"{n}.png", "What?") for n in range(3)]


def written(path: Path) -> Path:
    with open_ledger(path, SETTINGS, REQUESTS) as ledger:
        ledger.append([{**request.row(), "answer": "é"} for request in REQUESTS[:2]])
    return path


def done(path: Path, settings: dict[str, Any] = SETTINGS, requests: Sequence[FileRequest] = REQUESTS) -> int:
    with open_ledger(path, settings, requests) as ledger:
        return ledger.done


def test_a_file_of_answers_belongs_to_its_run(tmp_path: Path) -> None:
    path = written(tmp_path / "deep" / "answers.jsonl")
    assert done(path) == 2
    with pytest.raises(DataError, match="run with max_new_tokens 6, not 7; model 'tiny', not 'large':"):
        done(path, {**SETTINGS, "model": "large", "max_new_tokens": 7})
    with pytest.raises(DataError, match=r"line 1 of .* but request 1 is .*'Why\?'"):
        done(path, requests=[FileRequest(Path("0.png"), "0.png", "Why?"), *REQUESTS[1:]])
    with pytest.raises(DataError, match="2 rows but there are 1 requests"):
        done(path, requests=REQUESTS[:1])
    lines = path.read_text(encoding="utf-8")
    path.write_text("{\n" + lines, encoding="utf-8")
    with pytest.raises(DataError, match=r"line 1 of .* is damaged"):
        done(path)
    settings_file(path).write_text("[1]")
    with pytest.raises(DataError, match="does not tell how it was made"):
        done(path)
    settings_file(path).unlink()
    with pytest.raises(DataError, match="does not tell how it was made"):
        done(path)
    path.unlink()
    assert done(path) == 0
    with pytest.raises(DataError, match="is a folder"):
        done(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be used"):
        done(tmp_path / "file" / "answers.jsonl")


def test_a_line_torn_within_a_letter_is_dropped(tmp_path: Path) -> None:
    path = written(tmp_path / "answers.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex("é".encode()) + 1])
    assert done(path) == 1
    assert path.read_bytes() == whole[: whole.index(b"\n") + 1]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other locks")
def test_two_runs_do_not_write_to_one_file(tmp_path: Path) -> None:
    path = written(tmp_path / "answers.jsonl")
    before = path.read_bytes()
    with open_ledger(path, SETTINGS, REQUESTS) as ledger:
        with pytest.raises(DataError, match="another run is writing to"):
            done(path)
        assert path.read_bytes() == before
        ledger.append([{**REQUESTS[2].row(), "answer": "z"}])
    assert done(path) == 3


def test_other_weights_have_another_fingerprint(vlm: VLM) -> None:
    known = fingerprint(vlm.model)
    assert fingerprint(tiny_vlm().model) == known
    other = tiny_vlm().model
    with torch.no_grad():
        other.get_output_embeddings().weight[3, 4] += 1e-3
    assert fingerprint(other) != known
    other = tiny_vlm().model
    other.config.image = other.config.image.model_copy(update={"resample": "bilinear"})
    assert fingerprint(other) != known


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes there")
def test_a_name_that_is_no_text_comes_back(vlm: VLM, tmp_path: Path) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "answers.jsonl"
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.png")).write_bytes(stored(picture(1), "PNG"))
    requests = requests_of_folder(folder, QUESTION)
    with open_ledger(out, {**SETTINGS, "source": str(requests[0].path)}, requests) as ledger:
        ledger.append(run(vlm, requests))
    assert json.loads(out.read_text(encoding="utf-8"))["image"] == requests[0].image
    assert done(out, {**SETTINGS, "source": str(requests[0].path)}, requests) == 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, vlm: VLM) -> Path:
    path = tmp_path_factory.mktemp("model")
    vlm.model.save_pretrained(path)
    vlm.processor.save_pretrained(path)
    return path


def saccade(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_answers_a_folder_and_goes_on(folder: Path, vlm: VLM, tmp_path: Path) -> None:
    mixed_pictures(tmp_path, 5, broken=(3,))
    out = tmp_path / "answers.jsonl"
    command = ("ask", tmp_path, QUESTION, "--out", out, "--model", folder, "--max-new-tokens", NEW, "--batch-size", 2)
    result = saccade(*command)
    assert result.exit_code == 0
    assert result.stdout == f"4 answered, 1 failed: {out}\n"
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [said(row) for row in rows] == [alone(vlm, tmp_path / row["image"]) for row in rows]
    out.write_bytes(out.read_bytes()[:-5])
    result = saccade(*command, "--strict", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"model": str(folder), "out": str(out), "answered": 4, "failed": 1}
    assert "4 of 5 rows" in result.stderr
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows
    other = saccade(*command[:-4], "--max-new-tokens", NEW + 1)
    assert other.exit_code == 1
    assert "max_new_tokens 6, not 7" in other.stderr
    none = saccade("ask", tmp_path, QUESTION, "--out", tmp_path / "b.jsonl", "--model", folder, "--max-new-tokens", 0)
    assert none.exit_code == 1
    assert not list(tmp_path.glob("b.jsonl*"))


def test_the_command_does_not_take_answers_about_another_folder_or_of_other_weights(
    folder: Path, vlm: VLM, tmp_path: Path
) -> None:
    model, out = Path(shutil.copytree(folder, tmp_path / "model")), tmp_path / "answers.jsonl"
    for number, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        picture(number).save(tmp_path / name / "1.png")

    def asked(name: str) -> Any:
        return saccade("ask", tmp_path / name, QUESTION, "--out", out, "--model", model, "--max-new-tokens", NEW)

    assert asked("a").exit_code == 0
    before = out.read_bytes()
    other = asked("b")
    assert other.exit_code == 1
    assert f"source {str(tmp_path / 'a')!r}, not {str(tmp_path / 'b')!r}" in other.stderr
    tiny_vlm(seed=1).model.save_pretrained(model)
    other = asked("a")
    assert other.exit_code == 1
    assert "belongs to a run with fingerprint" in other.stderr
    assert out.read_bytes() == before


def test_the_command_answers_a_file_of_requests(folder: Path, vlm: VLM, tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    file, out = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    file.write_text('{"image": "a.png", "id": "1"}\n{"image": "a.png", "question": "Why?"}\n')
    result = saccade("ask", file, QUESTION, "--out", out, "--model", folder, "--max-new-tokens", NEW)
    assert result.exit_code == 0
    first, second = (json.loads(line) for line in out.read_text().splitlines())
    assert first == {
        "id": "1",
        "image": "a.png",
        "question": QUESTION,
        "answer": alone(vlm, tmp_path / "a.png"),
        "finish_reason": "length",
    }
    assert second["answer"] == alone(vlm, tmp_path / "a.png", "Why?")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("{folder}", "What?"), "name the file for the answers with --out"),
        (("{folder}", "--out", "{out}"), "say what to ask"),
        (("photo.png", "What?", "--out", "{out}"), "neither a folder nor a .jsonl file"),
        (("photo.png",), "there is no question"),
        (("{folder}", "What?", "--out", "{out}", "--seed", "1"), "--temperature, --seed and --timings"),
        (("photo.png", "What?", "--strict"), "--batch-size and --strict are for many pictures"),
        (("photo.png", "What?", "--batch-size", "16"), "--batch-size and --strict are for many pictures"),
        (("none.jsonl", "What?", "--out", "{out}"), "none.jsonl cannot be read"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    folder: Path, tmp_path: Path, words: tuple[str, ...], complaint: str
) -> None:
    out = tmp_path / "x.jsonl"
    result = saccade("ask", *(word.format(folder=folder, out=out) for word in words))
    assert result.exit_code == 1
    assert complaint in result.stderr
    assert not out.exists()
