"""lmms-eval asks a model of this package: `lmms-eval eval --model saccade --model_args pretrained=nano --tasks ...`.

The toolkit finds this module by the entry point in its group `lmms_eval.models`; pictures, words and scores are the
toolkit's. Of a task's generation settings those are followed that the papers' runs followed: the longest answer and,
where the temperature is above 0, temperature and top_p. `until` is not one of them: a model ends its answers itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from accelerate import Accelerator
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from tqdm import tqdm

from saccade.errors import ConfigError
from saccade.evaluate.bridges.asking import Asker
from saccade.evaluate.bridges.talks import conversation, sampling
from saccade.evaluate.run import LENGTH
from saccade.vlm import Conversation

MAX_NEW_TOKENS = 2000  # where a task says nothing, as in FlashSloth's evaluation


class Chat(lmms):
    """Asks the messages of a task as a conversation.

    Args:
        pretrained: What `saccade.load` opens: a model inside this package, a folder or a hub id.
        batch_size: Questions that are answered side by side.
        device: Where it runs; in a run of several processes each takes its own accelerator.
        dtype: Its precision, such as "bfloat16"; see `saccade.load`.
        length: Most tokens of a question and its answer together.
        seed: Of the tasks that draw their answers.
        max_batch_size: Not used; the toolkit's command line has it.

    Raises:
        CheckpointError: when there is no such model or it is not whole.
        ConfigError: for a bad argument.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str = "nano",
        batch_size: int | str = 1,
        device: str | None = None,
        dtype: str | None = None,
        length: int = LENGTH,
        seed: int = 0,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if not str(batch_size).isdecimal():
            raise ConfigError(f"batch_size is {batch_size!r}: give a number, no other is tried")
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device if self._world_size > 1 else device
        self._asker = Asker(pretrained, device=self.device, dtype=dtype, at_once=int(batch_size), length=length)
        self._seed = seed

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Answer the questions of a task, in their order."""
        questions = (self._question(request.args) for request in requests)
        answers = self._asker.answers(
            (talk, sampling(settings, MAX_NEW_TOKENS, self._seed)) for talk, settings in questions
        )
        return [answer.text for answer in tqdm(answers, "asking", total=len(requests), disable=self.rank != 0)]

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> NoReturn:
        """Refuse: no task of the papers makes a question of the answer before."""
        raise ConfigError("this bridge asks every question once: choose a task of output type generate_until")

    def loglikelihood(self, requests: Sequence[Instance]) -> NoReturn:
        """Refuse: answers are given, not rated."""
        raise ConfigError("this bridge gives answers and no likelihoods: choose a task of output type generate_until")

    def clean(self) -> None:
        """Let the model go, before a judge needs the room."""
        self._asker.close()
        super().clean()

    def _question(self, args: Sequence[Any]) -> tuple[Conversation, dict[str, Any]]:
        _, messages, settings, doc, task, split = args
        turns = messages(self.task_dict[task][split][doc])
        parts = [
            (turn["role"], [(part["type"], part.get("text", part.get("url"))) for part in turn["content"]])
            for turn in turns
        ]
        return conversation(parts), settings


class Simple(Chat):
    """Asks the words of a task after all its pictures, as FlashSloth's evaluation did: chosen by `--force_simple`."""

    is_simple = True

    def _question(self, args: Sequence[Any]) -> tuple[Conversation, dict[str, Any]]:
        text, settings, pictures, doc, task, split = args
        return Conversation().ask(text, pictures(self.task_dict[task][split][doc]) or ()), settings


def manifest() -> ModelManifest:
    """Tell lmms-eval what it can ask, by the name `saccade`."""
    paths = {f"{kind.__name__.lower()}_class_path": f"{__name__}.{kind.__name__}" for kind in (Chat, Simple)}
    return ModelManifest("saccade", **paths)
