"""What an answer depends on: the weights, the words, the pictures' way in, the decoding, the libraries, the set."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from saccade.evaluate.benchmarks.benchmark import Sample
from saccade.evaluate.provenance import commit, machine
from saccade.prompt.conversation import parse_messages
from saccade.prompt.encode import stop_token_ids
from saccade.prompt.render import render_chat
from saccade.vlm import Conversation, Sampling
from saccade.vlm.ledger import weights_hash

if TYPE_CHECKING:
    from saccade.engine import Engine
    from saccade.evaluate.benchmarks.benchmark import Benchmark
    from saccade.image.processor import SaccadeProcessor
    from saccade.vlm import VLM

# The fields of a row that say what was asked.
ASKED = ("key", "group", "unit", "prompt", "answers", "details")
LIBRARIES = ("saccade", "torch", "transformers", "tokenizers", "numpy", "pillow")
_APART = {"image", "prompt"}  # parts of a configuration that stand in a record by themselves
_LOADED = {"_name_or_path", "dtype"}  # what it says of where and how it was loaded


@dataclass(frozen=True, slots=True)
class Question:
    """A sample as a model is asked it.

    Attributes:
        number: Its place in the set as it was read.
        sample: The sample, whose picture need not be read.
        prompt: The whole prompt in the model's template, one placeholder for each picture and query set.
    """

    number: int
    sample: Sample
    prompt: str

    def row(self) -> dict[str, Any]:
        """Return the fields `ASKED` of its row, as plain JSON types."""
        sample = self.sample
        held = (sample.key, sample.group, sample.unit, self.prompt, sample.answers, dict(sample.details))
        row: dict[str, Any] = json.loads(json.dumps(dict(zip(ASKED, held, strict=True))))
        return row


def render(prompt: str, pictures: int, processor: SaccadeProcessor) -> str:
    """Return the prompt of a question about some pictures, up to the header of its answer."""
    talk = Conversation().ask(prompt, [b""] * pictures)
    segments = render_chat(parse_messages(talk.messages), processor.prompt, generate=True)
    return "".join(segment.text for segment in segments)


def conditions(
    engine: Engine, benchmark: Benchmark, protocol: str, questions: Sequence[Question], sampling: Sampling
) -> dict[str, Any]:
    """Return what answers depend on, most telling first, as plain JSON types; a run with others is another run.

    Args:
        engine: What answers.
        benchmark: The set.
        protocol: How it is asked.
        questions: What is asked.
        sampling: How tokens are chosen.
    """
    vlm, report = engine.vlm, engine.report()
    config, rows = vlm.model.config, [question.row() for question in questions]
    return {
        "benchmark": benchmark.name,
        "model": {
            "weights": weights_hash(vlm.model),
            "tokenizer": digest([vlm.processor.tokenizer.backend_tokenizer.to_str()]),
            "config": _architecture({name: part for name, part in config.definition().items() if name not in _APART}),
        },
        "prompt": {
            "protocol": protocol,
            **benchmark.protocols[protocol].model_dump(mode="json"),
            "template": vlm.processor.prompt.model_dump(mode="json"),
            "texts": digest(row["prompt"] for row in rows),
        },
        "decoding": _decoding(vlm, sampling, report["length"]),
        "image": config.image.model_dump(mode="json"),
        "dtype": str(vlm.model.dtype).removeprefix("torch."),
        "engine": {"device": vlm.model.device.type, "path": report["path"], "linear": report["linear"]},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}},
        "set": {
            "samples": len(rows),
            "units": len({row["unit"] for row in rows}),
            "fingerprint": digest(
                json.dumps([row[name] for name in ASKED if name != "prompt"], sort_keys=True) for row in rows
            ),
        },
        "made": {"machine": machine(), "commit": commit()},
    }


def digest(texts: Iterable[str]) -> str:
    """Return the SHA-256 of some texts, in hex."""
    whole = hashlib.sha256()
    for text in texts:
        whole.update(text.encode(errors="surrogatepass") + b"\n")
    return whole.hexdigest()


def _decoding(vlm: VLM, sampling: Sampling, length: int) -> dict[str, Any]:
    declared = vlm.model.generation_config.eos_token_id
    return {
        "temperature": sampling.temperature,
        "max_new_tokens": sampling.max_new_tokens,
        "length": length,
        "stop_token_ids": stop_token_ids(vlm.processor.tokenizer, vlm.processor.prompt, declared),
        "never": sorted(vlm.model.config.placeholder_ids),
    }


def _architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in config.items() if name not in _LOADED}
    return {name: _architecture(value) if isinstance(value, dict) else value for name, value in kept.items()}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a source tree that was never installed
        return None
