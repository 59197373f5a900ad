"""What a model costs: closed forms against torch's counter, ceilings, the bill before anything runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import small
from released_flashsloth import LAYOUT, released_folder
from saccade.bench import ceilings, plan
from saccade.bench.ceilings import Ceilings, measure_ceilings, read_ceilings, steps_of
from saccade.bench.count import Analysis, Workload
from saccade.bench.counted import count_flops
from saccade.bench.memory import free_bytes, peak_memory
from saccade.bench.opening import open_own
from saccade.bench.plan import Question, configuration, make_plan, shapes_of
from saccade.bench.skeleton import parameters, random_model
from saccade.bench.tasks import picture
from saccade.cli import app
from saccade.config import ConvAbstractorConfig, LdpConfig, LdpV2Config, ProjectorConfig, ResamplerConfig, SaccadeConfig
from saccade.errors import CheckpointError, ConfigError, PromptError
from saccade.model import SaccadeForConditionalGeneration
from saccade.presets import preset

CPU = torch.device("cpu")
WORK = Workload(views=3, text_tokens=17, batch=2)
MACHINE = Ceilings("a machine", "cpu", 1, "bfloat16", memory_read=1e9, square=1e10, matrix={}, shapes={})


def compressed_by(compressor: Any) -> SaccadeConfig:
    width = small.config().text_config.hidden_size
    own = isinstance(compressor, LdpConfig | LdpV2Config)
    return small.changed(
        small.config(), compressor=compressor, projector=ProjectorConfig(hidden_sizes=None if own else (width,))
    )


CONFIGS = {
    "small": small.config(num_layers=2, before_layers=(0, 2)),
    "gate": small.config(fusion="gate"),
    "cropped": small.cropped(),
    "static": preset("nano_flashvl_static"),
    "ldpv2": compressed_by(LdpV2Config(window=2, hidden_size=20)),
    "convolutions": compressed_by(ConvAbstractorConfig(side=3, hidden_size=10, depth=1)),
    "resampler": compressed_by(
        ResamplerConfig(num_queries=5, hidden_size=12, num_heads=3, num_layers=2, intermediate_size=16)
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_closed_forms_equal_what_torch_counts(name: str) -> None:
    config = CONFIGS[name]
    analysis = Analysis(config)
    macs = analysis.first_token(WORK)
    for part in ("vision", "compress", "prefill"):
        assert 2 * macs[part] == count_flops(config, part, WORK), part
    if config.query is not None:
        assert 2 * macs["embedded query"] == count_flops(config, "embedded query", WORK)
    assert 2 * analysis.step(WORK, past=23) == count_flops(config, "step", WORK, past=23)


def test_a_whole_answer_takes_the_sum_of_its_stages() -> None:
    subject = open_own("preset:nano_flashvl_iss", "cpu", torch.float32, seed=0)
    prepared = subject.prepare([picture(200, 100, seed=0)] * 2, text_tokens=20)
    analysis = Analysis(preset("nano_flashvl_iss"))
    work = Workload(views=3, text_tokens=20, batch=2)
    assert prepared.prompt_tokens == analysis.prompt_tokens(work)
    assert subject.count(prepared) == 2 * sum(analysis.first_token(work).values())


def test_parameters_are_those_of_the_published_model() -> None:
    analysis = Analysis(preset("flashsloth"))
    assert sum(analysis.parameters.values()) == 3_196_373_985
    assert analysis.parameters["vision tower"] == 397_745_440
    assert analysis.kv_elements == 2 * 32 * 2560


def test_a_tied_head_costs_no_memory_but_is_read_in_every_step() -> None:
    free, tied = preset("nano_flashvl_static"), preset("nano_flashvl_static")
    free.tie_word_embeddings = False
    one, two = Analysis(free), Analysis(tied)
    table = 768 * 192
    assert sum(one.parameters.values()) - sum(two.parameters.values()) == table
    assert one.step_elements == two.step_elements
    assert parameters(tied) == sum(two.parameters.values())


def test_experts_are_refused() -> None:
    config = preset("nano_flashvl_static")
    config.text_config = SaccadeConfig(
        text_config={
            "model_type": "qwen2_moe",
            "hidden_size": 192,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
            "vocab_size": 768,
        }
    ).text_config
    with pytest.raises(ConfigError, match="cannot be planned"):
        Analysis(config)


def test_random_weights_keep_ties_buffers_and_the_seed() -> None:
    config = preset("nano_flashvl_static")
    model, again, other = (random_model(config, "cpu", torch.bfloat16, seed) for seed in (1, 1, 2))
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert model.lm_head.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert torch.equal(model.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(model.lm_head.weight, other.lm_head.weight)
    built = SaccadeForConditionalGeneration(config)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    for name, buffer in built.named_buffers():
        found = model.get_buffer(name)
        assert found.dtype == buffer.dtype
        assert torch.equal(found, buffer), name


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ceilings of a machine in no time, and not its true ones."""
    monkeypatch.setitem(ceilings.READ_BYTES, "cpu", 1 << 16)
    monkeypatch.setitem(ceilings.SQUARES, "cpu", (16, 32))
    monkeypatch.setattr(ceilings, "LEAST_SECONDS", 1e-5)


@pytest.mark.usefixtures("quick")
def test_ceilings_survive_a_file(tmp_path: Path) -> None:
    steps: list[None] = []
    shapes = shapes_of(small.config(), WORK)
    found = measure_ceilings(CPU, torch.float32, shapes, lambda: steps.append(None))
    assert found.shapes == {"vision": [384, 12, 14], "prefill": [130, 20, 22], "per token": [2, 20, 22]}
    assert min(found.memory_read, found.square, *found.matrix.values()) > 0
    assert len(steps) == steps_of(CPU, torch.float32, shapes) == 1 + len(shapes) + 2
    file = tmp_path / "bench.json"
    file.write_text(json.dumps({"ceilings": found.to_dict()}))
    assert read_ceilings(file).to_dict() == found.to_dict()
    file.write_text("{}")
    with pytest.raises(ConfigError, match="holds no ceilings"):
        read_ceilings(file)


@pytest.mark.usefixtures("quick")
def test_the_matrix_ceiling_of_a_processor_is_that_of_its_faster_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {torch.bfloat16: 1e9, torch.float32: 3e9}
    monkeypatch.setattr(ceilings, "_matrix_rate", lambda _, dtype, shape: rates[dtype])
    steps: list[None] = []
    assert measure_ceilings(CPU, torch.bfloat16, {}, lambda: steps.append(None)).square == 3e9
    assert len(steps) == steps_of(CPU, torch.bfloat16, {}) == 1 + 2 * 2


def test_work_is_bound_by_the_later_of_matrices_and_memory() -> None:
    assert MACHINE.least_seconds(flops=2e10, read=1e9) == 2
    assert MACHINE.least_seconds(flops=1e9, read=3e9) == 3


def test_a_plan_adds_up() -> None:
    config = small.config()
    bill = make_plan(config, [Question((100, 50), text_tokens=17, new_tokens=10, batch=2)], torch.bfloat16, MACHINE)
    (question,) = bill["questions"]
    analysis = Analysis(config)
    work = Workload(views=1, text_tokens=17, batch=2)
    assert bill["weights"]["total"] == 2 * bill["parameters"] == 2 * parameters(config)
    assert question["prompt_tokens"] == 17 + small.TOKENS_PER_VIEW + small.NUM_QUERIES
    assert question["kv_bytes"] == bill["kv_bytes_per_token"] * 2 * (question["prompt_tokens"] + 10)
    *stages, first, each = question["stages"]
    assert first["macs"] == sum(stage["macs"] for stage in stages) == sum(analysis.first_token(work).values())
    assert first["flops"] == 2 * first["macs"]
    assert first["least_seconds"] == pytest.approx(sum(stage["least_seconds"] for stage in stages), rel=1e-4)
    past = question["prompt_tokens"] + 5
    assert each["bytes_read"] == 2 * analysis.step_elements + bill["kv_bytes_per_token"] * past * 2
    known = bill["weights"]["total"] + question["kv_bytes"] + question["activation_bytes_at_most"]
    assert question["bytes_at_most"] == known


def test_a_plan_in_another_dtype_than_its_ceilings_is_refused() -> None:
    with pytest.raises(ConfigError, match="measured in bfloat16"):
        make_plan(small.config(), [], torch.float32, MACHINE)


def test_a_plan_beyond_the_positions_is_refused() -> None:
    with pytest.raises(PromptError, match="holds 128 in all"):
        make_plan(small.config(), [Question((10, 10), text_tokens=100, new_tokens=90)], torch.bfloat16)


def test_configurations_are_read_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "LAYOUTS", (LAYOUT,))
    config = small.config()
    config.save_pretrained(tmp_path / "native")
    assert configuration(str(tmp_path / "native")).definition() == config.definition()
    tensors = LAYOUT.table.to_theirs(small.model().state_dict())
    released = configuration(str(released_folder(tmp_path / "released", tensors, config)))
    assert Analysis(released).parameters == Analysis(config).parameters
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "saccade", "vision_config": 3}')
    with pytest.raises(CheckpointError, match="no usable configuration"):
        configuration(str(tmp_path / "broken"))
    with pytest.raises(ConfigError, match="no preset"):
        configuration("preset:nothing")


def test_the_plan_command_prints_tables_or_one_object() -> None:
    words = ["plan", "--model", "preset:flashvl_iss", "--picture", "1024x768", "--picture", "448x448"]
    result = CliRunner().invoke(app, [*words, "--json"])
    bill = json.loads(result.stdout)
    assert [question["visual_tokens"] for question in bill["questions"]] == [2880, 576]
    assert bill["ceilings"] is None
    tables = CliRunner().invoke(app, words).stdout
    assert "2880 visual and 0 query tokens" in tables
    assert "2,532,538,880 parameters" in tables


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--picture", "640"], "WIDTHxHEIGHT"),
        (["--model", "preset:nothing"], "no preset"),
        (["--dtype", "float7"], "float7"),
        (["--ceilings", "missing.json"], "holds no ceilings"),
        (["--ceilings", "missing.json", "--measure"], "give one"),
    ],
)
def test_a_plan_that_cannot_be_made_is_one_sentence(words: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["plan", *words])
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stdout == ""


def test_the_peak_of_a_block_is_what_it_took() -> None:
    with peak_memory(CPU) as peak:
        taken = torch.ones(64 << 20, dtype=torch.uint8)
    if peak.working is None:
        pytest.skip("this system does not tell a process's peak")
    assert peak.working >= 0.9 * taken.nbytes
    del taken
    with peak_memory(CPU) as after:
        pass
    assert after.working is not None
    assert after.working < 32 << 20
    assert free_bytes(CPU) > 0
