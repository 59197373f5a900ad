"""The papers' mixtures: what their files say, and fetching them from stand-ins in each source's published format."""

import http.server
import io
import json
import shutil
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from saccade.cli import app
from saccade.data.fetch import download_files, fetch
from saccade.data.mixtures import Download, Listing, listing, names
from saccade.data.rows import ChatRow, PreferenceRow, ProblemRow
from saccade.data.sources import open_rows
from saccade.errors import ConfigError, DataError
from test_data_convert import completion, png, write_zip

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import write_mixtures

STAGE_4 = {
    "sharegpt4v", "chartqa", "docvqa", "infographicvqa", "deepform", "kleister", "tabfact", "wikitablequestions",
    "visualmrc", "textcaps", "textvqa", "scigraphqa", "multimath", "mavis", "docstruct4m", "websight", "mmdu",
    "m4-instruct", "m3it", "allava", "sharegpt-4o",
}  # fmt: skip


def test_every_mixture_of_the_papers_is_there() -> None:
    assert names() == [
        "flashsloth", "flashsloth-llava", "flashvl-ablation", "flashvl-reasoning",
        *(f"flashvl-stage{stage}" for stage in range(1, 6)),
    ]  # fmt: skip
    for name in names():
        for entry in listing(name).entries:
            assert entry.rows or entry.note, f"{name}, {entry.name}: neither its rows nor why they are not known"
            assert entry.sure == "exact" or entry.note, f"{name}, {entry.name}: not what the paper names, but why?"


def test_the_papers_numbers_stand_in_the_files() -> None:
    assert {entry.name for entry in listing("flashvl-stage4").entries} == STAGE_4
    rows = {entry.name: entry.rows for name in names() for entry in listing(name).entries}
    assert rows["pretraining"] == 558_128
    assert rows["sharegpt4v-pt"] + rows["allava-caption"] + rows["llava-cc3m"] == 2_551_000  # type: ignore[operator]
    assert rows["vlfeedback"] == 80_258
    tuning = listing("flashsloth-llava").choose(["tuning"])[0]
    assert tuning.drop == {247_644, 245_723}
    assert not listing("flashvl-ablation").choose(["tuning"])[0].drop


def test_the_page_is_written_from_the_files() -> None:
    assert write_mixtures.PAGE.read_text(encoding="utf-8") == write_mixtures.to_markdown(), (
        "docs/mixtures.md is not what `python tools/write_mixtures.py` writes"
    )


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    folder.mkdir()
    return folder


def from_folder(hub: Path) -> Callable[[Download, Path], None]:
    def download(get: Download, folder: Path) -> None:
        shutil.copytree(hub / get.folder, folder, dirs_exist_ok=True)

    return download


def fetched(name: str, hub: Path, only: str, skip_bad: bool = False) -> Any:
    out = hub.parent / "data"
    found = next(fetch(listing(name), out, only=[only], skip_bad=skip_bad, download=from_folder(hub)))
    rows = [open_rows(source) for source in listing(name).sources(out, [only])]
    return found, rows[0]


def publish(hub: Path, name: str, content: Any) -> Path:
    path = hub / "hub" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list):
        lines = path.suffix == ".jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in content) if lines else json.dumps(content))
    return path


def publish_parquet(hub: Path, name: str, rows: list[dict[str, Any]]) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist(rows), publish(hub, name, None))


def said(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def test_llava_pretraining(hub: Path) -> None:
    records = [
        {"id": "004539375", "image": "00453/004539375.jpg", "conversations": said("Render it.\n<image>", "a caption")}
    ]
    publish(hub, "liuhaotian--LLaVA-Pretrain/blip_laion_cc_sbu_558k.json", records)
    write_zip(hub / "hub/liuhaotian--LLaVA-Pretrain/images.zip", {"00453/004539375.jpg": png()})
    _, rows = fetched("flashsloth-llava", hub, "pretraining")
    assert rows[0].caption == "a caption"
    assert Path(rows[0].pictures[0]).read_bytes() == png()


def test_llava_tuning_reads_pictures_of_several_sites(hub: Path) -> None:
    records = [
        {"id": "1", "image": "coco/train2017/1.jpg", "conversations": said("<image>\nwhat?", "that")},
        {"id": "2", "conversations": said("only words?", "yes")},
        {"id": "3", "image": "ocr_vqa/images/3.jpg", "conversations": said("<image>\nwho?", "nobody")},
    ]
    publish(hub, "liuhaotian--LLaVA-Instruct-150K/llava_v1_5_mix665k.json", records)
    for get in listing("flashsloth-llava").choose(["tuning"])[0].get[1:]:
        (hub / get.folder).mkdir(parents=True, exist_ok=True)
        write_zip(hub / get.folder / get.archives[0], {"train2017/1.jpg": png()})
    with pytest.raises(DataError, match=r"mix665k\.json\[2\].*ocr_vqa/images/3\.jpg is missing.*--skip-bad"):
        fetched("flashsloth-llava", hub, "tuning")
    found, rows = fetched("flashsloth-llava", hub, "tuning", skip_bad=True)
    assert (found.progress.rows, len(found.progress.bad)) == (2, 1)
    assert isinstance(rows[0], ChatRow)
    assert ([len(rows[index].pictures) for index in range(2)], rows[0].turns[0].text) == ([1, 0], "what?")


def test_records_named_by_their_position_are_left_out(hub: Path) -> None:
    publish(hub, "a--b/rows.jsonl", [{"conversations": said(f"{number}?", "x")} for number in range(4)])
    entry = {"name": "e", "stage": "1", "kind": "chat", "records": ["rows.jsonl"], "sure": "exact"}
    small = Listing.model_validate(
        {
            "name": "small",
            "title": "t",
            "paper": "p",
            "entries": [entry | {"get": [{"hub": "a/b"}], "format": "conversation", "drop": [0, 2]}],
        }
    )
    next(fetch(small, hub.parent / "data", download=from_folder(hub)))
    rows = open_rows(small.sources(hub.parent / "data")[0])
    assert [rows[index].turns[0].text for index in range(len(rows))] == ["1?", "3?"]  # type: ignore[attr-defined]


def test_documents_come_from_one_file_and_a_tar_in_pieces(hub: Path) -> None:
    def record(name: str, number: int) -> dict[str, Any]:
        messages = [{"role": "user", "content": "<|image|>what?"}, {"role": "assistant", "content": str(number)}]
        return {"image": [f"./imgs/{number}.png"], "messages": messages, "task_name": "qa_sft", "dataset_name": name}

    base = "mPLUG--DocDownstream-1.0"
    publish(hub, f"{base}/train.jsonl", [record("ChartQA", 0), record("KleisterCharity", 1), record("ChartQA", 2)])
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for number in range(3):
            member = tarfile.TarInfo(f"./imgs/{number}.png")
            member.size = len(png(number))
            archive.addfile(member, io.BytesIO(png(number)))
    half = len(file.getvalue()) // 2
    publish(hub, f"{base}/partial-imgs.00", None).write_bytes(file.getvalue()[:half])
    publish(hub, f"{base}/partial-imgs.01", None).write_bytes(file.getvalue()[half:])
    _, charts = fetched("flashvl-stage4", hub, "chartqa")
    _, charities = fetched("flashvl-stage4", hub, "kleister")
    assert ([charts[i].turns[1].text for i in range(2)], charities[0].turns[1].text) == (["0", "2"], "1")
    assert Path(charities[0].pictures[0]).read_bytes() == png(1)
    with pytest.raises(DataError, match="deepform has no usable record among 3"):
        fetched("flashvl-stage4", hub, "deepform")


def test_instructions_in_parquet(hub: Path) -> None:
    row = {"instruction": "Answer.", "inputs": "what?", "outputs": "that", "image": {"bytes": png(), "path": None}}
    publish_parquet(hub, "HuggingFaceM4--M3IT/data/train-0.parquet", [row, row | {"inputs": ""}])
    _, rows = fetched("flashvl-stage4", hub, "m3it")
    assert [rows[index].turns[0].text for index in range(2)] == ["Answer.\nwhat?", "Answer."]


def test_pages_and_their_code(hub: Path) -> None:
    row = {"image": {"bytes": png(), "path": None}, "text": "<html></html>", "llm_generated_idea": "a page"}
    publish_parquet(hub, "HuggingFaceM4--WebSight/v0.2/train-0.parquet", [row])
    _, rows = fetched("flashvl-stage4", hub, "websight")
    assert (rows[0].turns[0].text, rows[0].turns[1].text) == ("Write the HTML code of this page.", "<html></html>")


def test_feedback_becomes_preferences(hub: Path) -> None:
    good, bad = completion("good", "5", "5", "5"), completion("bad", "1", "2", "1")
    records = [
        {"id": "svit-1", "prompt": "what?", "models": ["m"], "completions": [bad, good]},
        {"id": "svit-2", "prompt": "who?", "models": ["m"], "completions": [good, good]},
    ]
    publish(hub, "MMInstruction--VLFeedback/vlfeedback_80k.jsonl", records)
    members = {f"merged_images/svit-{number}.jpg": png(number) for number in (1, 2)}
    write_zip(hub / "hub/MMInstruction--VLFeedback/merged_images.zip", members)
    found, rows = fetched("flashvl-stage5", hub, "vlfeedback")
    assert (len(rows), found.progress.dropped) == (1, {"ties": 1})
    assert isinstance(rows[0], PreferenceRow)
    assert (rows[0].chosen, rows[0].rejected) == ("good", "bad")


def test_only_the_answer_of_reasoning_is_kept(hub: Path) -> None:
    record = {"input": "1+1?", "reasoning_content": "hm", "content": "2", "repo_name": "r", "score": 10}
    publish(hub, "Congliu--Chinese-DeepSeek-R1-Distill-data-110k/distill_r1_110k.jsonl", [record])
    _, rows = fetched("flashvl-reasoning", hub, "r1-distill")
    assert [turn.text for turn in rows[0].turns] == ["1+1?", "2"]
    assert "hm" not in (hub.parent / "data/flashvl-reasoning.r1-distill.jsonl").read_text()


def test_verified_problems(hub: Path) -> None:
    row = {"image": {"bytes": png(), "path": None}, "problem": "angle?", "solution": "<answer>30</answer>"}
    publish_parquet(hub, "lmms-lab--multimodal-open-r1-8k-verified/data/train-0.parquet", [row])
    _, rows = fetched("flashvl-reasoning", hub, "open-r1-8k")
    assert isinstance(rows[0], ProblemRow)
    assert (rows[0].turns[-1].text, rows[0].solution) == ("angle?", "<answer>30</answer>")


def test_shards_are_read_as_they_are(hub: Path) -> None:
    record = {"id": "0", "source": "s", "image": "x.jpg", "conversations": said("<image>\nwhat?", "that")}
    path = publish(hub, "BAAI--Infinity-MM/stage1/captions/00000.tar", None)
    with tarfile.open(path, "w") as archive:
        for name, content in (("0.json", json.dumps(record).encode()), ("0.jpg", png())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    found, rows = fetched("flashvl-stage1", hub, "infinity-mm")
    assert found.progress is None
    assert rows[0].turns[-1].text == "that"


def test_shards_that_came_in_part_are_not_trained_on(hub: Path) -> None:
    out = hub.parent / "data"

    def broken(get: Download, folder: Path) -> None:
        (folder / "stage1" / "captions").mkdir(parents=True)
        (folder / "stage1" / "captions" / "00000.tar").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(fetch(listing("flashvl-stage1"), out, download=broken))
    with pytest.raises(DataError, match=r"infinity-mm is not in .*: fetch it with"):
        listing("flashvl-stage1").sources(out)


def test_what_was_never_published_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="in-house cannot be fetched"):
        list(fetch(listing("flashvl-stage5"), tmp_path, only=["in-house"]))
    assert [one.paths for one in fetch(listing("flashsloth"), tmp_path)] == [()]
    with pytest.raises(DataError, match="neither an entry nor a stage 'stage9'"):
        listing("flashvl-stage5").choose(["stage9"])
    with pytest.raises(DataError, match="fetch it with saccade data fetch flashvl-stage5 --only vlfeedback"):
        listing("flashvl-stage5").sources(tmp_path)
    with pytest.raises(ConfigError, match="no mixture 'flashvl'"):
        listing("flashvl")


@pytest.mark.parametrize(
    ("get", "name"),
    [(Download(hub="no//name"), "no//name"), (Download(url="http://127.0.0.1:9/a.zip"), "127.0.0.1:9/a.zip")],
)
def test_what_cannot_be_reached_is_one_clear_sentence(get: Download, name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{name} cannot be fetched from here .*check the connection.*--dry-run"):
        download_files(get, tmp_path)


CONTENT = bytes(range(256)) * 40


class Site(http.server.BaseHTTPRequestHandler):
    asked: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : len(CONTENT) // 2 if self.path.startswith("/short") else None])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Site.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("there", [0, 1000, len(CONTENT)])
def test_a_download_goes_on_where_it_broke_off(site: str, tmp_path: Path, there: int) -> None:
    if there:
        (tmp_path / "a.bin.part").write_bytes(CONTENT[:there])
    download_files(Download(url=f"{site}/x/a.bin"), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert Site.asked == [f"bytes={there}-" if there else None]
    assert not (tmp_path / "a.bin.part").exists()


def test_a_download_that_breaks_off_is_told(site: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="broke off"):
        download_files(Download(url=f"{site}/short/a.bin"), tmp_path)
    assert not (tmp_path / "a.bin").exists()


def test_a_dry_run_says_what_would_be_fetched(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["data", "fetch", "flashvl-reasoning", "--dry-run", "--json", "--out", str(tmp_path / "data")]
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [(entry["name"], entry["rows"], entry["gigabytes"]) for entry in told["entries"]] == [
        ("r1-distill", 110_000, 0.677),
        ("open-r1-8k", 7690, 0.377),
    ]
    assert not (tmp_path / "data").exists()
    shown = CliRunner().invoke(app, ["data", "fetch", "flashvl-stage4", "--dry-run"], env={"COLUMNS": "200"})
    assert "GB in all" in shown.output
    assert "cc-by-nc-4.0" in shown.output
