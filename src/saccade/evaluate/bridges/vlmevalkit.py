"""VLMEvalKit asks models of this package.

Example:  python -m saccade.evaluate.bridges.vlmevalkit --model nano --data MME --judge exact_matching

As the toolkit's wrapper asks:  --model FlashVL/FlashVL-2B-Static --prompts FlashVL --first-picture --data MMStar

The toolkit has no entry point for models of others: this adds those that are named to its table, and hands over to its
command line. Pictures, words and scores are the toolkit's. Options that are not listed here go to the toolkit, see
`python -m vlmeval.run --help`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import PurePath
from typing import Any

import vlmeval.config
import vlmeval.run
import vlmeval.vlm
from vlmeval.smp import load_env
from vlmeval.vlm.base import BaseModel

from saccade.errors import ConfigError, SaccadeError
from saccade.evaluate.bridges.asking import Asker
from saccade.evaluate.bridges.talks import Part, conversation
from saccade.evaluate.run import LENGTH
from saccade.vlm import Sampling

MAX_NEW_TOKENS = 512  # as the toolkit's wrapper of Flash-VL sets it


class Asked(BaseModel):
    """A model as the toolkit asks it, in the words that its benchmarks have for everyone.

    Args:
        source: What `saccade.load` opens.
        device: Where it runs.
        dtype: Its precision.
        at_once: Questions that are answered side by side.
        length: Most tokens of a question and its answer together.
        sampling: How its answers are chosen, and how long they may be.
        first_picture: Show the first of several pictures alone, as the toolkit does for models that take one.

    Raises:
        CheckpointError: when there is no such model or it is not whole.
        ConfigError: for a bad argument.
    """

    # What the toolkit tells from a model's class: the pictures of a question come together. (It asks all but the models
    # behind an API one after the other; to be asked several questions at once, a model must say that it is one.)
    INTERLEAVE = False
    is_api = int(os.environ.get("WORLD_SIZE", "1")) == 1
    allowed_types = ("text", "image")

    def __init__(
        self,
        source: str,
        *,
        device: str | None,
        dtype: str | None,
        at_once: int,
        length: int,
        sampling: Sampling,
        first_picture: bool,
    ) -> None:
        BaseModel.__init__(self)  # a wrapper that lends its words would load its own model
        self._asker = Asker(source, device=device, dtype=dtype, at_once=at_once, length=length)
        self._sampling = sampling
        self._first_picture = first_picture

    def generate_inner(self, message: list[dict[str, Any]], dataset: str | None = None) -> str:
        """Answer a question; the toolkit's threads may ask at once."""
        if self._first_picture:
            text, picture = self.message_to_promptimg(message, dataset=dataset)
            parts = [("text", text)] if picture is None else [("image", picture), ("text", text)]
        else:
            parts = _parts(message)
        return self._say([("user", parts)])

    def chat_inner(self, message: list[dict[str, Any]], dataset: str | None = None) -> str:
        """Answer the last turn of a conversation."""
        return self._say([(turn["role"], _parts(turn["content"])) for turn in message])

    def _say(self, turns: list[tuple[str, list[Part]]]) -> str:
        return self._asker.submit(conversation(turns), self._sampling).result().text


def _parts(message: list[dict[str, Any]]) -> list[Part]:
    return [(part["type"], part["value"]) for part in message]


def in_words_of(wrapper: str | None) -> Callable[..., Asked]:
    """Return what makes a model, asked in the words that one of the toolkit's wrappers has for each benchmark.

    Raises:
        ConfigError: when the toolkit has no such wrapper.
    """
    if wrapper is None:
        return Asked
    words = getattr(vlmeval.vlm, wrapper, None)
    if not (isinstance(words, type) and issubclass(words, BaseModel)):
        raise ConfigError(f"VLMEvalKit has no wrapper {wrapper!r}: name a class of vlmeval.vlm, or leave --prompts out")
    return type(f"{Asked.__name__}In{wrapper}", (Asked, words), {})


def add_models(names: list[str], make: Callable[..., Asked]) -> list[str]:
    """Add models to the toolkit's table, and return what it calls them.

    Args:
        names: Of each, what `saccade.load` opens, or NAME=SOURCE to choose what the toolkit calls it; by default it is
            called by the last part of the source.
        make: Makes a model of a source.

    Raises:
        ConfigError: when a model has no name, or that of another: its results would stand in the other's files.
    """
    added: dict[str, Callable[..., Asked]] = {}
    for text in names:
        before, equals, behind = text.partition("=")
        source = behind if equals else text
        name = before if equals else PurePath(source).name
        if not name or not source or name in added:
            raise ConfigError(f"--model {text}: write NAME=SOURCE, with a name that no other model of the run has")
        added[name] = partial(make, source)
    vlmeval.config.supported_VLM.update(added)
    return list(added)


def main() -> None:
    """Add the models of the command line to the toolkit, and run it."""
    options = argparse.ArgumentParser(
        "python -m saccade.evaluate.bridges.vlmevalkit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    options.add_argument("--model", nargs="+", required=True, help="SOURCE or NAME=SOURCE: nano, a folder or a hub id")
    options.add_argument("--prompts", help="ask in the words of this wrapper of the toolkit, a class of vlmeval.vlm")
    options.add_argument("--first-picture", action="store_true", help="show the first of several pictures alone")
    options.add_argument("--max-new-tokens", type=int, default=MAX_NEW_TOKENS, help="most tokens of an answer")
    options.add_argument("--length", type=int, default=LENGTH, help="most tokens of a question and its answer")
    options.add_argument("--api-nproc", type=int, default=8, help="questions that are answered side by side")
    options.add_argument("--device", help="cpu or cuda; by default CUDA where there is one")
    options.add_argument("--dtype", help="precision, such as bfloat16")
    known, rest = options.parse_known_args()
    try:
        make = partial(
            in_words_of(known.prompts),
            device=known.device,
            dtype=known.dtype,
            at_once=known.api_nproc,
            length=known.length,
            sampling=Sampling(max_new_tokens=known.max_new_tokens),
            first_picture=known.first_picture,
        )
        names = add_models(known.model, make)
    except SaccadeError as error:
        sys.exit(str(error))
    sys.argv[1:] = ["--model", *names, "--api-nproc", str(known.api_nproc), *rest]
    load_env()
    vlmeval.run.main()


if __name__ == "__main__":
    main()
