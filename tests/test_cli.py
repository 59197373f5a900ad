"""The command line: answers on stdout, everything else on stderr, one sentence for every error."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from helpers_vlm import picture, tiny_vlm
from saccade.cli import app, shell, talk
from saccade.train.recipes import RECIPES
from saccade.vlm import VLM, load

DESCRIPTION = "it knows noise"


def saccade(*words: object, stdin: str | None = None) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words], input=stdin)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model."""
    vlm = tiny_vlm(description=DESCRIPTION)
    path = tmp_path_factory.mktemp("model")
    vlm.model.save_pretrained(path)
    vlm.processor.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    picture(1).save(path)
    return path


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Whatever stands in the list is raised where a model would be opened."""
    errors: list[BaseException] = []

    def fail(*_: Any) -> VLM:
        raise errors[0]

    monkeypatch.setattr(talk, "open_vlm", fail)
    return errors


def test_ask_prints_the_answer_alone_on_stdout(folder: Path, photo: Path) -> None:
    result = saccade("ask", photo, "What?", "--model", folder, "--max-new-tokens", 8)
    expected = load(folder).ask(photo, "What?", max_new_tokens=8).text
    assert result.exit_code == 0
    assert result.stdout == expected + "\n"
    assert result.stderr.count(DESCRIPTION) == 1
    assert "--model" in result.stderr


def test_ask_as_json_is_one_object(folder: Path, photo: Path) -> None:
    result = saccade("ask", photo, "What?", "--model", folder, "--max-new-tokens", 8, "--json", "--seed", 3)
    data = json.loads(result.stdout)
    assert data["text"] == load(folder).ask(photo, "What?", max_new_tokens=8).text
    assert data["model"] == str(folder)
    assert data["description"] == DESCRIPTION
    assert data["new_tokens"] == 8
    assert data["timings"]["total"] > 0
    assert result.stderr == ""


def test_timings_draw_every_stage(folder: Path, photo: Path) -> None:
    result = saccade("ask", photo, "What?", "--model", folder, "--max-new-tokens", 8, "--timings")
    for label in (
        "open picture",
        "vision tower",
        "compress + project",
        "first token",
        "later tokens",
        "of them visual",
    ):
        assert label in result.stderr
    assert "vision tower" not in result.stdout


def test_options_reach_the_model(folder: Path, photo: Path) -> None:
    draws = {
        saccade(
            "ask", photo, "What?", "--model", folder, "--temperature", 2, "--seed", seed, "--max-new-tokens", 9
        ).stdout
        for seed in (1, 1, 2)
    }
    assert len(draws) == 2
    half = saccade("ask", photo, "What?", "--model", folder, "--dtype", "bfloat16", "--device", "cpu", "--json")
    assert half.exit_code == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("ask", "nowhere.png", "What?"), "there is no picture file 'nowhere.png'"),
        (("ask", "{photo}", "What?", "--dtype", "float7"), "dtype 'float7' is not one of torch's"),
        (("ask", "{photo}", "What?", "--max-new-tokens", "0"), "max_new_tokens is 0"),
        (("ask", "{photo}", "x" * 500), "the model holds 400"),
        (("eval", "--families", "cats"), "family 'cats' is not one of"),
        (("eval", "--split", "exam"), "split 'exam' is not one of"),
    ],
)
@pytest.mark.parametrize("debug", [None, "before", "after"])
def test_an_error_is_one_sentence(
    folder: Path, photo: Path, words: tuple[str, ...], sentence: str, debug: str | None
) -> None:
    command = [*(word.format(photo=photo) for word in words), "--model", str(folder)]
    extra = {None: command, "before": ["--debug", *command], "after": [*command, "--debug"]}[debug]
    result = saccade(*extra)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert ("Traceback" in result.stderr) == (debug is not None)
    assert result.stdout == ""
    if debug is None:
        assert len(result.stderr.splitlines()) == 1


def test_a_missing_model_is_told_with_its_name(photo: Path, tmp_path: Path) -> None:
    result = saccade("ask", photo, "What?", "--model", tmp_path)
    assert result.exit_code == 1
    assert str(tmp_path) in result.stderr


def test_an_unexpected_error_names_itself_and_the_way_to_see_more(failing: list[BaseException], photo: Path) -> None:
    failing.append(ZeroDivisionError("by [nothing]"))
    result = saccade("ask", photo, "What?")
    assert result.exit_code == 1
    assert result.stderr == "error: ZeroDivisionError: by [nothing] (run again with --debug to see where)\n"
    assert "in fail" in saccade("ask", photo, "What?", "--debug").stderr


def test_an_interrupt_is_quiet(failing: list[BaseException], photo: Path) -> None:
    failing.append(KeyboardInterrupt())
    result = saccade("ask", photo, "What?")
    assert (result.exit_code, result.output) == (shell.INTERRUPTED, "")


def test_after_two_dashes_debug_is_a_word_like_any_other(folder: Path, photo: Path) -> None:
    asked = saccade("ask", "--model", folder, "--max-new-tokens", 2, "--json", "--", photo, "--debug")
    assert asked.exit_code == 0
    assert (
        json.loads(asked.stdout)["prompt_tokens"] == load(folder).ask(photo, "--debug", max_new_tokens=1).prompt_tokens
    )


def test_chat_remembers_shows_pictures_and_survives_errors(folder: Path, photo: Path) -> None:
    lines = [
        "",
        "What?",
        "/image nowhere.png",
        "And?",
        "/help",
        f"/image {photo}",
        "Now?",
        "/reset",
        "What?",
        "/quit",
        "no",
    ]
    result = saccade("chat", photo, "--model", folder, "--max-new-tokens", 4, stdin="\n".join(lines) + "\n")
    assert result.exit_code == 0
    vlm = load(folder)
    chat = vlm.chat()
    expected = [chat.say("What?", [photo], max_new_tokens=4), chat.say("Now?", [photo], max_new_tokens=4)]
    expected.append(vlm.chat().say("What?", max_new_tokens=4))
    assert result.stdout == "".join(f"{answer.text}\n" for answer in expected)
    assert "no picture file 'nowhere.png'" in result.stderr
    assert result.stderr.count("/image PATH") == 2


def test_chat_ends_with_its_input(folder: Path) -> None:
    result = saccade("chat", "--model", folder, stdin="")
    assert (result.exit_code, result.stdout) == (0, "")


def test_eval_prints_a_table_or_json_and_keeps_every_answer(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    command = ("eval", "--model", folder, "--families", "digits", "--limit", 4, "--out", out)
    table = saccade(*command)
    assert table.exit_code == 0
    assert "digits" in table.stdout
    assert "blanked" in table.stdout
    printed = json.loads(saccade(*command, "--json").stdout)
    assert printed["families"]["digits"]["n"] == 4
    stored = json.loads(out.read_text())
    assert len(stored.pop("samples")) == 4
    assert stored == printed


def test_convert_writes_a_model_that_answers_the_same(folder: Path, photo: Path, tmp_path: Path) -> None:
    target = tmp_path / "converted"
    result = saccade("convert", "--from", folder, "--to", target)
    assert result.exit_code == 0
    assert str(target) in result.stdout
    answers = [load(place).ask(photo, "What?", max_new_tokens=8).text for place in (folder, target)]
    assert answers[0] == answers[1]
    refused = saccade("convert", "--from", folder, "--to", tmp_path / "other", "--layout", "strange")
    assert refused.exit_code == 1
    assert "strange" in refused.stderr


def test_data_show_lists_questions_or_writes_a_sheet(tmp_path: Path) -> None:
    listed = saccade("data", "show", "--family", "digits", "--count", 2)
    assert listed.exit_code == 0
    assert "question" in listed.stdout
    sheet = tmp_path / "sheet.png"
    assert saccade("data", "show", "--count", 2, "--out", sheet).exit_code == 0
    assert sheet.stat().st_size > 1000
    wrong = saccade("data", "show", "--family", "cats")
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert "'cats'" in wrong.stderr


def test_train_show_prints_the_stages_and_an_unknown_recipe_is_refused() -> None:
    shown = saccade("train", "show", "nano")
    assert shown.exit_code == 0
    assert "stages:" in shown.stdout
    for command in (("train", "show", "strange"), ("train", "run", "strange", "--out", "nowhere")):
        refused = saccade(*command)
        assert refused.exit_code == 1
        assert "'strange'" in refused.stderr
    assert not Path("nowhere").exists()


def test_train_show_without_a_name_lists_every_recipe(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    listed = saccade("train", "show")
    assert listed.exit_code == 0
    told = {line["name"]: line for line in json.loads(saccade("train", "show", "--json").stdout)}
    assert list(told) == list(RECIPES)
    assert all(f" {name} " in listed.stdout for name in RECIPES)
    assert told["nano_hd"]["start"] == ["nano"]
    assert told["nano_flashvl_iss"]["start"] == ["model.vision_tower of nano"]
    assert told["nano"] == {"name": "nano", "start": [], "data": ["the rendered world"]} | {
        "stages": ["patches", "reading (patches)", "looking (questions)", "questions", "closer (questions)"]
    }
    unnamed = saccade("train", "show", "--set", "seed=3")
    assert (unnamed.exit_code, unnamed.stdout) == (1, "")
    assert "name one" in unnamed.stderr


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*words, name)
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))


def test_every_help_teaches_by_an_example() -> None:
    import typer

    found = list(commands(typer.main.get_command(app)))
    assert ("data", "show") in found
    for words in found:
        text = saccade(*words, "--help").stdout
        assert f"saccade {words[0]}" in text.partition("Example:")[2], f"no example in the help of {' '.join(words)}"


def test_help_imports_nothing_heavy() -> None:
    """So that it appears at once: what it imports is all that takes time."""
    heavy = {
        "PIL", "accelerate", "datasets", "huggingface_hub", "jinja2", "matplotlib", "numpy", "peft", "pydantic",
        "safetensors", "tokenizers", "torch", "transformers", "trl", "yaml",
    }  # fmt: skip
    code = (
        "import sys; sys.argv = ['saccade', '--help']\n"
        "from saccade.cli import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        f"print(sorted({heavy} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
    assert "Ask one question about a picture" in result.stdout


def test_the_module_is_the_command() -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "saccade", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("saccade ")
    assert "torch" not in result.stderr


def test_importing_the_package_registers_it_with_transformers(folder: Path) -> None:
    code = (
        "import sys, saccade\n"
        "from transformers import AutoModelForImageTextToText, AutoProcessor\n"
        "model = AutoModelForImageTextToText.from_pretrained(sys.argv[1])\n"
        "processor = AutoProcessor.from_pretrained(sys.argv[1])\n"
        "print(saccade.VLM(model, processor).ask(None, 'What?', max_new_tokens=4).prompt_tokens)"
    )
    result = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert int(result.stdout) == load(folder).ask(None, "What?", max_new_tokens=1).prompt_tokens
