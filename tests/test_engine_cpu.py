"""Linear layers with bfloat16 weights and activations on a CPU, and modules that run on their kernels unchanged."""

import copy
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedModel, Qwen2Config, SiglipVisionConfig, StaticCache

import small
from kernel_checks import ROUNDING, WITH_COMPILER, off, with_threads
from saccade.config import SaccadeConfig
from saccade.engine.cpu import LowPrecisionWeights, build, choose, choose_linear
from saccade.engine.cpu import activate as activate_file
from saccade.engine.cpu import linear as linear_file
from saccade.engine.cpu import scratch as scratch_file
from saccade.errors import ConfigError
from saccade.model import SaccadeForConditionalGeneration

WITH_MANY = pytest.mark.skipif(build.load_kernels().linear_many is None, reason="the library is faster, or alone")


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [*range(1, 18), 65])
def test_the_operator_equals_float64(rows: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(rows)
    for width, out in ((1, 1), (7, 3), (8, 5), (33, 10), (2051, 67), (4100, 2)):
        wide = torch.randn(rows, 2 * width, generator=generator).to(dtype)
        weight = torch.randn(out, width, generator=generator).bfloat16()
        bias = torch.randn(out, generator=generator).bfloat16()
        for x in (wide[:, :width].contiguous(), wide[:, ::2], wide[None, :, :width]):
            for given in (None, bias):
                exact = F.linear(x.double(), weight.double(), None if given is None else given.double())
                found = torch.ops.saccade.linear(x, weight, given)
                assert found.dtype == dtype
                assert found.shape == exact.shape
                assert off(found, exact) < (ROUNDING if dtype == torch.float32 else 2**-7)


@pytest.mark.parametrize("rows", [2, 70])
def test_weights_need_not_be_contiguous(rows: int) -> None:
    x, weights = torch.randn(rows, 24), torch.randn(40, 50).bfloat16()
    for weight in (weights[3:20, 5:29], weights[:24].T, weights[::2, ::2][:, :24]):
        assert off(torch.ops.saccade.linear(x, weight), x.double() @ weight.double().T) < ROUNDING


def test_rows_of_nothing_give_the_bias() -> None:
    weight, bias = torch.empty(3, 0).bfloat16(), torch.randn(3).bfloat16()
    assert torch.equal(torch.ops.saccade.linear(torch.empty(2, 0).bfloat16(), weight, bias), bias.expand(2, 3))


@pytest.mark.parametrize("rows", [2, 70])
def test_shapes_that_do_not_fit_are_refused(rows: int) -> None:
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        torch.ops.saccade.linear(torch.randn(rows, 9), torch.randn(4, 8).bfloat16())


@pytest.mark.parametrize("rows", [2, 70])
def test_gradients_are_refused_rather_than_lost(rows: int) -> None:
    layer, x = torch.nn.Linear(8, 4).bfloat16(), torch.randn(rows, 8)
    with LowPrecisionWeights():
        with pytest.raises(ConfigError, match="inference_mode"):
            layer(x)
        with torch.no_grad():
            assert layer(x).dtype == torch.float32


@WITH_MANY
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("rows", [5, 8, 16, 17, 48, 49, 65, 130, 1030])
def test_many_rows_equal_float64(rows: int) -> None:
    """Widths of one part and of several, columns that fill no vector, weights and bias as they may come."""
    generator = torch.Generator().manual_seed(rows)
    for width, out in ((2, 256), (66, 259), (1538, 300), (3100, 256), (33, 300)):
        x = torch.randn(1, rows, width, generator=generator).bfloat16()
        wide = torch.randn(out, width + 7, generator=generator).bfloat16()
        bias = torch.randn(out, generator=generator).bfloat16()
        for weight, given in ((wide[:, :width], None), (wide[:, 7:].contiguous(), bias)):
            exact = F.linear(x.double(), weight.double(), None if given is None else given.double())
            found = torch.ops.saccade.linear(x, weight, given)
            assert found.dtype == torch.bfloat16
            assert off(found, exact) < 2**-8


@WITH_MANY
def test_a_broken_row_breaks_no_other() -> None:
    x, weight = torch.randn(40, 64).bfloat16(), torch.randn(256, 64).bfloat16()
    x[7, 3], weight[200, 5] = torch.nan, torch.inf
    found = torch.ops.saccade.linear(x, weight)
    assert found[7].isnan().all()
    assert not found[:, 200].isfinite().any()
    rest = torch.ones(40, 256, dtype=torch.bool)
    rest[7], rest[:, 200] = False, False
    assert found[rest].isfinite().all()


@WITH_MANY
def test_what_a_row_gives_does_not_depend_on_those_beside_it() -> None:
    """Sums are made in one of three orders: of few rows, and of more, one pair or two at a time."""
    x, weight = torch.randn(1100, 1536).bfloat16(), torch.randn(256, 1536).bfloat16()
    few = linear_file.FEW_BESIDE_MANY
    for most, fewer in ((few, range(1, few)), (1050, (31, 47, 90)), (1100, (few + 1, 8, 13, 40, 100))):
        whole = torch.ops.saccade.linear(x[:most], weight)
        for rows in fewer:
            for first in (0, most - rows):
                there = slice(first, first + rows)
                assert torch.equal(torch.ops.saccade.linear(x[there], weight), whole[there])


@WITH_MANY
def test_more_threads_than_there_is_work_for() -> None:
    x, weight = torch.randn(20, 64).bfloat16(), torch.randn(48 * 40, 64).bfloat16()
    exact = x.double() @ weight.double().T
    with with_threads(40):
        assert off(torch.ops.saccade.linear(x, weight), exact) < 2**-8
        assert off(torch.ops.saccade.linear(x, weight[:300]), exact[:, :300]) < 2**-8


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("gelu", [False, True])
def test_activations_equal_float64(gelu: bool) -> None:
    x = torch.cat([torch.randn(70_001) * 5, torch.tensor([0.0, -0.0, 1e-30, 3e38, -3e38, 1e10, -1e10, -90, 90])])
    x = x.bfloat16()
    exact = F.gelu(x.double(), approximate="tanh") if gelu else F.silu(x.double())
    found = torch.ops.saccade.activate(x, gelu).double()
    assert ((found - exact).abs() <= exact.abs() * 2**-8 + 1e-7).all()
    broken = torch.ops.saccade.activate(torch.tensor([torch.nan, 1.0]).bfloat16(), gelu)
    assert broken.isnan().tolist() == [True, False]


def test_which_activations_go_to_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bool] = []
    monkeypatch.setattr(
        activate_file, "load_kernels", lambda: build.Kernels("", activate=lambda *_: taken.append(True))
    )
    many = torch.randn(2, activate_file.MANY).bfloat16()
    with LowPrecisionWeights(torch.bfloat16), torch.inference_mode():
        for activation in (partial(F.gelu, approximate="tanh"), F.silu, torch.nn.SiLU()):
            activation(many)
        assert len(taken) == 3
        for x in (many[:, 1:], many.float(), many.T, many[0, 1:]):
            assert torch.equal(F.silu(x), torch._C._nn.silu(x))
        assert torch.equal(F.gelu(many), torch._C._nn.gelu(many))
        F.silu(many.clone(), inplace=True)
        assert len(taken) == 3
    learning = many.clone().requires_grad_()
    with LowPrecisionWeights(torch.bfloat16):
        F.silu(learning).sum().backward()
    assert learning.grad is not None
    with pytest.raises(ConfigError, match="inference_mode"):
        torch.ops.saccade.activate(learning, True)
    torch.library.opcheck(torch.ops.saccade.activate.default, (torch.randn(3, 4), True), test_utils="test_faketensor")


def test_compiled_code_activates_as_eager_code() -> None:
    def activated(x: torch.Tensor) -> torch.Tensor:
        with LowPrecisionWeights(torch.bfloat16):
            return F.silu(x) + F.gelu(x, approximate="tanh")

    torch.compiler.reset()
    compiled = torch.compile(activated, fullgraph=True, backend="eager")
    with torch.inference_mode():
        for rows in (1, 3, 900):
            x = torch.randn(rows, activate_file.MANY // 800).bfloat16()
            assert torch.equal(compiled(x), activated(x))


@pytest.mark.parametrize("mode", [nullcontext, LowPrecisionWeights])
def test_a_tower_leaves_patches_row_by_row(mode: Callable[[], Any]) -> None:
    model = SaccadeForConditionalGeneration(small.config()).to(torch.bfloat16 if mode is LowPrecisionWeights else None)
    found: list[torch.Tensor] = []
    model.model.vision_tower.embeddings.register_forward_hook(lambda *told: found.append(told[2]))
    views = pixels(model.config.vision_config.image_size)["pixel_values"]
    with mode(), torch.inference_mode():
        model.model.encode_views(views)
    assert found[0].is_contiguous()


def test_working_memory_holds_floats_whatever_tensors_are_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch_file, "_local", threading.local())
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert scratch_file.scratch(9).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_many_rows_go_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one weight row, of some that do not divide the rows, and one larger than the matrix."""
    x, weight, bias = torch.randn(70, 48), torch.randn(31, 48).bfloat16(), torch.randn(31).bfloat16()
    exact = F.linear(x.double(), weight.double(), bias.double())
    for size in (1, 4 * 48 * 7, 1 << 20):
        monkeypatch.setattr(linear_file, "BLOCK_BYTES", size)
        assert off(torch.ops.saccade.linear(x, weight, bias), exact) < ROUNDING


@WITH_COMPILER
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_threads_are_those_of_torch() -> None:
    """One OpenMP, and no thread beside those that torch has already started."""

    def tasks() -> set[str]:
        return {task.name for task in Path("/proc/self/task").iterdir()}

    with with_threads(3):
        torch.randn(512, 512) @ torch.randn(512, 512)
        torch.zeros(1 << 20).sin_()
        before = tasks()
        torch.ops.saccade.linear(torch.randn(1, 64), torch.randn(999, 64).bfloat16())
        assert tasks() <= before
    libraries = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "omp.so" in line}
    assert len(libraries) <= 1, libraries


def language_inputs() -> dict[str, Any]:
    return {"input_ids": torch.arange(1, 12).view(1, -1)}


def pixels(side: int) -> dict[str, Any]:
    return {"pixel_values": torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))}


def pair(model: PreTrainedModel) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A model with random bfloat16 weights, and its twin: the same weights as float32."""
    generator = torch.Generator().manual_seed(small.SEED)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    model = model.bfloat16().eval()
    return model, copy.deepcopy(model).float()


LANGUAGE = {name: value for name, value in small.QWEN2.items() if name != "model_type"}
VISION = {"hidden_size": 12, "intermediate_size": 14, "num_hidden_layers": 3, "num_attention_heads": 4}
BACKBONES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "phi": (lambda: small.config().text_config, language_inputs()),
    "qwen2": (lambda: Qwen2Config(**LANGUAGE), language_inputs()),
    "siglip": (lambda: SiglipVisionConfig(**VISION, image_size=30, patch_size=5, vision_use_head=False), pixels(30)),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_run_as_their_float32_twins(name: str) -> None:
    config, inputs = BACKBONES[name]
    model, twin = pair(AutoModel.from_config(config()))
    with torch.inference_mode():
        expected = twin(**inputs).last_hidden_state
        assert off(model(**inputs).last_hidden_state, expected) > ROUNDING
        with LowPrecisionWeights():
            found = model(**inputs).last_hidden_state
    assert found.dtype == torch.float32
    assert off(found, expected) < ROUNDING


@pytest.mark.parametrize(
    "config",
    [
        small.config(),
        small.config(fusion="gate", init="random"),
        small.shuffled(),
        small.cropped(),
        *(
            small.changed(small.config(), compressor={"window": small.WINDOW, "hidden_size": 10, "kind": kind})
            for kind in ("ldp", "ldpv2")
        ),
        small.changed(small.config(), compressor={"kind": "c_abstractor", "side": 4, "hidden_size": 8, "depth": 1}),
        small.changed(
            small.config(),
            compressor={
                "kind": "resampler",
                "num_queries": 16,
                "hidden_size": 8,
                "intermediate_size": 9,
                "num_layers": 2,
                "num_heads": 2,
            },
        ),
    ],
    ids=lambda config: config.compressor.kind,
)
def test_whole_models_run_as_their_float32_twins(config: SaccadeConfig) -> None:
    model, twin = pair(SaccadeForConditionalGeneration(config))
    side = model.config.vision_config.image_size
    inputs = small.batch() if config.query is not None else {"input_ids": torch.arange(1, 12).view(1, -1)}
    views = pixels(side)["pixel_values"].repeat(4, 1, 1, 1)[: small.NUM_VIEWS]
    with torch.inference_mode():
        tokens = twin.get_image_features(views).pooler_output
        with LowPrecisionWeights():
            assert off(model.get_image_features(views).pooler_output, tokens) < ROUNDING
        if config.query is not None:
            inputs["pixel_values"] = views
        expected = twin(**inputs).logits
        with LowPrecisionWeights():
            found = model(**inputs).logits
    assert found.dtype == torch.float32
    real = inputs["attention_mask"].bool() if "attention_mask" in inputs else slice(None)
    assert off(found[real], expected[real]) < ROUNDING


@pytest.mark.parametrize("inside", [False, True], ids=["mode outside", "mode inside"])
def test_a_compiled_step_with_a_static_cache_equals_the_eager_twin(inside: bool) -> None:
    model, twin = pair(SaccadeForConditionalGeneration(small.shuffled()))
    steps = torch.arange(5, 9).view(4, 1, 1)

    def run(model: PreTrainedModel, mode: Callable[[], Any] | None, compiled: bool) -> torch.Tensor:
        cache = StaticCache(config=model.config.get_text_config(), max_cache_len=16)

        def step(ids: torch.Tensor) -> torch.Tensor:
            if mode is not None and inside:
                with mode():
                    return model(input_ids=ids, past_key_values=cache, use_cache=True).logits
            return model(input_ids=ids, past_key_values=cache, use_cache=True).logits

        def whole() -> torch.Tensor:
            first = step(torch.arange(1, 7).view(1, -1))
            faster = torch.compile(step, fullgraph=True, backend="eager") if compiled else step
            return torch.cat([first, *(faster(ids) for ids in steps)], dim=1)

        if mode is not None and not inside:
            with mode(), torch.inference_mode():
                return whole()
        with torch.inference_mode():
            return whole()

    torch.compiler.reset()
    found, expected = run(model, LowPrecisionWeights, True), run(twin, None, False)
    assert found.dtype == torch.float32
    assert off(found, expected) < ROUNDING


def test_what_the_mode_does_not_concern_passes() -> None:
    x, weight = torch.randn(2, 4), torch.randn(3, 4)
    with LowPrecisionWeights():
        assert torch.equal(F.linear(x, weight), torch._C._nn.linear(x, weight))
        assert x.to(torch.float64).dtype == torch.float64
        assert x.to(torch.bfloat16) is x
        assert weight.bfloat16().to(torch.bfloat16).dtype == torch.bfloat16
    with LowPrecisionWeights(torch.bfloat16):
        assert x.to(torch.bfloat16).dtype == torch.bfloat16
        assert F.linear(x.bfloat16(), weight.bfloat16()).dtype == torch.bfloat16


def test_the_reason_names_the_compiler_or_its_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    there, missing = build.Kernels("kernel compiled by gcc 1.2", print), build.Kernels("no C compiler was found")
    for unit, kernel, activations, routed in (
        (None, there, torch.float32, True),
        (None, missing, torch.float32, True),
        ("AMX", there, torch.bfloat16, True),
        ("AMX", missing, torch.bfloat16, False),
    ):
        monkeypatch.setattr(choose, "_matrix_unit", lambda unit=unit: unit)
        monkeypatch.setattr(choose, "load_kernels", lambda kernel=kernel: kernel)
        path = choose_linear(torch.bfloat16, torch.device("cpu"))
        assert (path.activations, path.routed) == (activations, routed)
        assert kernel.story in path.reason
        assert (unit or "no bfloat16 matrix unit") in path.reason
        assert isinstance(path.mode(), LowPrecisionWeights) == routed
    assert choose_linear(torch.float32, torch.device("cpu")).activations == torch.float32
    assert not choose_linear(torch.float32, torch.device("cpu")).routed


def test_what_inference_left_behind_serves_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch_file, "_local", threading.local())
    x, weight = torch.randn(linear_file.FEW_ROWS[torch.float32] + 1, 16), torch.randn(7, 16).bfloat16()
    with torch.inference_mode():
        inside = torch.ops.saccade.linear(x, weight)
    with torch.no_grad():
        assert torch.equal(torch.ops.saccade.linear(x, weight), inside)
