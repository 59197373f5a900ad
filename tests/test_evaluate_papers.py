"""The papers' tables: means come out again and a model has one figure, but for what is listed; plans and scores."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from published_sets import picture, put
from saccade.bench import table1
from saccade.cli import app
from saccade.errors import ConfigError, DataError
from saccade.evaluate.benchmarks import BENCHMARKS
from saccade.evaluate.papers import names, paper
from saccade.evaluate.papers.planning import fetch, plan
from saccade.evaluate.papers.score import Outcome
from saccade.evaluate.papers.tables import Table
from saccade.evaluate.records import Record, load_record

PAPERS = [paper(name) for name in names()]
# Letters are parsed here where the paper's task asks a judge, and one set is read in two languages.
OTHER_TASKS = {("flashsloth", "MMB"): "mmbench_en_dev_static", ("flashvl", "MMB-cn"): "MMBench_DEV_EN"}
TABLES = [pytest.param(table, id=f"{one.name}-{table.name}") for one in PAPERS for table in one.tables]


def rounding(table: Table) -> float:
    """Half a unit of the last decimal that a table's means are printed with."""
    return 0.5 * 10.0 ** -table.places(len(table.columns) - 1) + 1e-9


@pytest.mark.parametrize("table", TABLES)
def test_printed_means_come_out_again_but_for_those_listed(table: Table) -> None:
    if table.mean is None:
        assert not table.means()
        return
    computed = table.means()
    wrong = {
        row: round(value, table.places(len(table.columns) - 1) + 1)
        for row, value in computed.items()
        if abs(value - table.figures(row)[table.mean.column]) > rounding(table)
    }
    assert wrong == table.mean.differs


def test_the_mean_of_eleven_is_the_one_worked_out_by_hand() -> None:
    """Table 2, static: 43.6 + 78.4 + 74.7 + 53.8 + 59.3 + 74.2 + 47.3 + 43.5 + 76.4 + 61.25 + 73.6 = 686.05; / 11."""
    table = paper("flashvl").table("table2")
    figures = table.figures("Flash-VL-2B static")
    assert table.mean_of(figures) == pytest.approx(686.05 / 11)
    with pytest.raises(ConfigError, match="needs OCRBench"):
        table.mean_of({name: value for name, value in figures.items() if name != "OCRBench"})
    with pytest.raises(ConfigError, match="prints no mean"):
        paper("flashsloth").table("table2").mean_of({})


@pytest.mark.parametrize("one", PAPERS, ids=names())
def test_tables_agree_about_a_model_but_for_what_is_listed(one) -> None:
    said: dict[tuple[str, str], list[float]] = {}
    for table in one.tables:
        for row in table.rows:
            for column, figure in table.figures(row.name).items() if row.model else ():
                said.setdefault((row.model, column), []).append(figure)
    differ = {place: tuple(dict.fromkeys(values)) for place, values in said.items() if len(set(values)) > 1}
    assert differ == {(each.model, each.column): each.values for each in one.conflicts}
    repeated = [values for values in said.values() if len(values) > 1]
    assert repeated, "no model is met twice: the comparison compares nothing"


@pytest.mark.parametrize("one", PAPERS, ids=names())
def test_every_figure_of_a_released_model_belongs_to_a_benchmark(one) -> None:
    columns = {scored.column for scored in one.benchmarks}
    for table in map(one.table, one.headline):
        assert columns >= set(table.columns) - {table.mean.column if table.mean else ""}
    for scored in one.benchmarks:
        assert one.published(scored.column), scored.column
        assert all(0 < figure <= scored.out_of for figure in one.published(scored.column).values())


def test_a_few_figures_are_those_of_the_papers() -> None:
    first, second = paper("flashsloth"), paper("flashvl")
    assert first.published("DocVQA") == {"FlashSloth": 48.6, "FlashSloth-HD": 74.8}
    assert "POPE" not in first.table("table2").figures("InternVL1.5 2.2B")
    assert first.table("table2").figures("InternVL1.5 2.2B")["MME"] == 1902
    assert second.published("OCRBench") == {
        "Flash-VL-2B static": 764, "Flash-VL-2B dynamic": 831, "Flash-VL-2B ISS": 843,
    }  # fmt: skip
    assert second.table("table7").figures("+ SFT + RL")["WeMath"] == 47.18
    assert [len(one.benchmarks) for one in (first, second)] == [14, 11 + 5]


def test_the_bench_measures_over_the_means_of_table_1() -> None:
    tokens = paper("flashsloth").table("table1-tokens")
    for task, published in table1.PUBLISHED.items():
        assert tokens.figures("Qwen2-VL 2B")[task] == published.qwen2_vl
        assert tokens.figures("InternVL2 2B")[task] == published.internvl2


@pytest.mark.parametrize(("call", "said"), [
    (lambda: paper("nothing"), "known are"),
    (lambda: paper("flashvl").table("table99"), "it has table2"),
    (lambda: paper("flashvl").table("table7").figures("nobody"), "it has Flash-VL-2B"),
])  # fmt: skip
def test_what_is_not_there_is_told_with_what_is(call, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        call()


def test_rows_of_one_name_are_refused() -> None:
    table = paper("flashvl").table("table7").model_dump()
    with pytest.raises(ConfigError, match="two rows of one name"):
        Table(**{**table, "rows": [table["rows"][0]] * 2})


@pytest.mark.parametrize("one", PAPERS, ids=names())
def test_what_is_scored_here_is_asked_as_the_paper_asks(one) -> None:
    for scored in one.benchmarks:
        if scored.set is not None:
            protocol = BENCHMARKS[scored.set].protocols[one.name]
            assert protocol.tool == one.tool
            assert OTHER_TASKS.get((one.name, scored.column), scored.task) == protocol.task, scored.column


@pytest.mark.parametrize(("column", "perfect"), [("AI2D", 100), ("MME", 2800), ("OCRBench", 1000)])
def test_a_headline_is_told_as_the_paper_prints_it(column: str, perfect: float) -> None:
    step = next(step for step in plan(paper("flashvl"), "nano", None, Path("out")) if step.scored.column == column)
    full = BENCHMARKS[str(step.scored.set)].full
    score = {"value": full, "interval": [full / 4, full], "blank": full / 2}
    header = {"full": full, "set": {"samples": 7}, "scores": {"right": score, "other": {}}}
    told = Outcome(step, Record(Path("out"), header, ())).to_dict()
    assert (told["name"], told["samples"]) == ("right", 7)
    assert [told["value"], *told["interval"], told["blank"]] == pytest.approx(
        [perfect, perfect / 4, perfect, perfect / 2]
    )


def test_a_plan_finds_local_copies_and_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "mmbench_en.tsv").touch()
    (tmp_path / "mme").mkdir()
    (tmp_path / ".ai2d.part").mkdir()
    steps = {step.scored.column: step for step in plan(paper("flashvl"), "some/model", tmp_path, Path("out"))}
    assert {name: step.copy for name, step in steps.items() if step.state == "here"} == {
        "MMB-en": tmp_path / "mmbench_en.tsv", "MME": tmp_path / "mme",
    }  # fmt: skip
    assert {name for name, step in steps.items() if step.state == "to fetch"} == {"MMB-cn", "AI2D", "OCRBench"}
    assert steps["MME"].command == (
        f"saccade eval mme {tmp_path}/mme --model some/model --protocol flashvl --out out/mme"
    )
    asked = plan(paper("flashvl"), "some/model", tmp_path, Path("out"), ["--limit", "3", "--skip-bad"])
    commands = {step.scored.column: step.command for step in asked}
    assert commands["MME"] == steps["MME"].command.replace("--out", "--limit 3 --skip-bad --out")
    assert commands["MMStar"] == steps["MMStar"].command
    assert steps["MMStar"].state == "toolkit"
    assert "MMStar" in steps["MMStar"].command
    assert "some/model" in steps["MMStar"].command
    assert steps["MME"].seconds(rate=2.0) == 2374
    assert steps["MMStar"].seconds(rate=2.0) == 750
    assert steps["WeMath"].seconds(rate=2.0) is None
    assert json.loads(json.dumps(steps["MME"].to_dict()))["published"]["Flash-VL-2B ISS"] == 1850


def test_a_toolkit_is_told_to_ask_as_the_paper_did(tmp_path: Path) -> None:
    steps = {step.scored.column: step for step in plan(paper("flashsloth"), "nano", tmp_path, Path("out"))}
    assert steps["MMMU"].command.endswith(" --force_simple --gen_kwargs max_new_tokens=16")


def test_two_copies_of_a_set_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pope.parquet").touch()
    (tmp_path / "pope").mkdir()
    with pytest.raises(DataError, match=r"2 copies of pope.*keep one"):
        plan(paper("flashsloth"), "nano", tmp_path, Path("out"))
    with pytest.raises(DataError, match="is not a folder"):
        plan(paper("flashsloth"), "nano", tmp_path / "nowhere", Path("out"))


def test_half_a_download_does_not_pass_for_a_set(tmp_path: Path) -> None:
    (tmp_path / "pope").mkdir()
    asked = []

    def download(get, folder: Path) -> None:
        asked.append(get.name)
        folder.mkdir(parents=True, exist_ok=True)
        if get.name == "lmms-lab/MMBench":
            raise DataError("broke off")

    one = paper("flashsloth")
    with pytest.raises(DataError, match="broke off"):
        list(fetch(plan(one, "nano", tmp_path, Path("out")), tmp_path, download))
    assert asked == ["lmms-lab/MME", "lmms-lab/MMBench"]
    states = {step.scored.column: step.state for step in plan(one, "nano", tmp_path, Path("out"))}
    assert [states[name] for name in ("POPE", "MME", "MMB", "GQA")] == ["here", "here", "to fetch", "to fetch"]


def told(*words: str) -> dict:
    result = CliRunner().invoke(app, ["eval", "paper", *words, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_without_data_and_network_the_plan_is_told(tmp_path: Path) -> None:
    plain = told("flashvl", "--rate", "2")
    assert plain["model"] == "FlashVL/FlashVL-2B-Static"
    by_name = {one["benchmark"]: one for one in plain["benchmarks"]}
    assert len(by_name) == 16
    assert {one["score"] for one in by_name.values()} == {None}
    assert by_name["MME"]["state"] == "to fetch"
    assert by_name["MME"]["download"] == ["lmms-lab/MME"]
    assert by_name["MME"]["gigabytes"] == 0.865
    assert by_name["MME"]["seconds"] == 2374
    shown = CliRunner().invoke(app, ["eval", "paper", "flashsloth"], env={"COLUMNS": "220"})
    assert shown.exit_code == 0, shown.output
    for said in ("by lmms-eval", "Tongbo/FlashSloth-3.2B", "lmms-lab/DocVQA", "unknown", "no --data was given", "pope"):
        assert said in shown.output
    refused = CliRunner().invoke(app, ["eval", "paper", "flashsloth", "--fetch"])
    assert refused.exit_code == 1
    assert "--data" in refused.output


def test_what_lies_here_is_scored_beside_the_paper(tmp_path: Path) -> None:
    pictures = tmp_path / "sets" / "pope" / "val2014"
    pictures.mkdir(parents=True)
    rows = []
    for number in range(3):
        Image.new("RGB", (64, 48), (90 * number, 60, 120)).save(pictures / f"{number}.png")
        for answer in ("yes", "no"):
            text = f"Is there a {'square' if answer == 'yes' else 'dog'} in the image?"
            rows.append({"question_id": len(rows), "image": f"{number}.png", "text": text, "label": answer})
    (pictures.parent / "coco_pope_random.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("flashsloth", "--data", str(tmp_path / "sets"), "--model", "nano", "--out", str(tmp_path / "records"))
    words += ("--batch-size", "4", "--dtype", "float32", "--skip-bad")
    first = told(*words)
    by_name = {one["benchmark"]: one for one in first["benchmarks"]}
    assert [name for name, one in by_name.items() if one["score"]] == ["POPE"]
    score, record = by_name["POPE"]["score"], load_record(tmp_path / "records" / "pope")
    assert score["samples"] == len(rows) == len(record.rows)
    assert score["value"] == pytest.approx(100 * record.headline[1]["value"])
    assert record.header["prompt"]["protocol"] == "flashsloth"
    assert record.header["origin"]["command"] == by_name["POPE"]["command"]
    assert "--batch-size 4 --skip-bad --dtype float32" in by_name["POPE"]["command"]
    assert told(*words) == first
    shown = CliRunner().invoke(app, ["eval", "paper", *words], env={"COLUMNS": "220"})
    assert "6 of 9,000" in shown.output
    assert "86.3" in shown.output
    (tmp_path / "sets" / "mme").mkdir()
    refused = CliRunner().invoke(app, ["eval", "paper", *words, "--model", str(tmp_path / "none")])
    assert refused.exit_code == 1
    assert "holds no MME" in " ".join(refused.output.split()), "said before the model is looked for"


def test_answers_without_the_papers_room_are_told(tmp_path: Path) -> None:
    row = {"question_id": 7, "image_id": "i", "question": "What color is the circle?", "answers": ["red"] * 10}
    put(tmp_path / "sets/textvqa/TextVQA_0.5.1_val.json", {"data": [row]})
    put(tmp_path / "sets/textvqa/train_images/i.jpg", picture(3))
    words = ["--data", tmp_path / "sets", "--out", tmp_path / "records", "--model", "nano"]
    shown = CliRunner().invoke(app, ["eval", "paper", "flashsloth", *map(str, words)], env={"COLUMNS": "220"})
    assert shown.exit_code == 0, shown.output
    header = load_record(tmp_path / "records" / "textvqa").header
    assert (header["shortened"], header["decoding"]["max_new_tokens"]) == (1, 2000)
    assert (
        f"1 answers had room for fewer than 2000 tokens, since {header['decoding']['length']} are all that a question "
        f"and its answer may take: {tmp_path}/records/textvqa"
    ) in shown.output
