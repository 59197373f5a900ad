"""llama.cpp on the weights of a model, through the packages llama-cpp-python and gguf."""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saccade.bench.gguf import write_gguf
from saccade.bench.speakers import Spoken
from saccade.bench.subjects import Timeline
from saccade.errors import ConfigError, EngineError

NAME = "llama.cpp"
PACKAGES = {"llama_cpp": "llama-cpp-python", "gguf": "gguf"}
LAST = -1  # the place of the only logits that are computed
STORY_LINES = 3  # of what llama.cpp says, the last ones, told where it fails
READ_INTO_MEMORY = 0  # a value of load_mode: no map of the file


def check_packages() -> None:
    """Raise ConfigError where a package is missing."""
    missing = [package for module, package in PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise ConfigError(
            f"{NAME} needs {' and '.join(missing)}: pip install llama-cpp-python gguf, which compiles for about ten "
            "minutes, or take --peer none"
        )


@contextmanager
def open_llamacpp(model: Any, length: int) -> Iterator[LlamaCpp]:
    """Run the decoder of a model in llama.cpp, its weights read from a file that is gone before this yields.

    Args:
        model: As `write_gguf` takes it.
        length: Tokens of a prompt and its answer, at most.

    Raises:
        ConfigError: for a missing package, a decoder that GGUF does not cover, or too little room for the file.
        EngineError: when llama.cpp does not take the file.
    """
    check_packages()
    with tempfile.TemporaryDirectory(prefix="saccade-") as folder:
        needed = decoder_bytes(model)
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise ConfigError(
                f"the decoder takes {needed / 1e9:.1f} GB as a file, but {folder} has {free / 1e9:.1f} GB free: name "
                "another folder with the variable TMPDIR"
            )
        file = Path(folder) / "decoder.gguf"
        write_gguf(model, file)
        found = LlamaCpp(file, length, exact=model.dtype == torch.float32)
    try:
        yield found
    finally:
        found.close()


def decoder_bytes(model: Any) -> int:
    """Bytes of decoder, embeddings and output head, tied ones once."""
    parts = {id(one): one.nbytes for part in (model.model.language_model, model.lm_head) for one in part.parameters()}
    return sum(parts.values())


class LlamaCpp:
    """A GGUF file in llama.cpp, on as many threads of this processor as torch has.

    Weights are read into memory, where torch has its own, too: no map of a file that the system may drop.

    Args:
        file: The file, which is not needed afterwards.
        length: Tokens of a prompt and its answer, at most.
        exact: Whether it attends in float32; else as llama.cpp chooses, with a cache in float16.

    Raises:
        EngineError: when llama.cpp does not take the file.
    """

    name = NAME

    def __init__(self, file: Path, length: int, *, exact: bool = False) -> None:
        import llama_cpp

        self._library = llama_cpp
        said, _ = _listen()
        said.clear()
        self._model = llama_cpp.llama_model_load_from_file(str(file).encode(), self._model_settings())
        if not self._model:
            raise EngineError(f"{NAME} does not take the decoder: {' '.join(said)}")
        self._context = llama_cpp.llama_init_from_model(self._model, self._context_settings(length, exact))
        if not self._context:
            llama_cpp.llama_model_free(self._model)
            raise EngineError(f"{NAME} does not begin: {' '.join(said)}")
        self._vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        features = ", ".join(re.findall(r"(\w+) = 1\b", llama_cpp.llama_print_system_info().decode()))
        self.way = (
            f"llama-cpp-python {version('llama-cpp-python')}, {torch.get_num_threads()} threads, "
            f"{'attention in float32' if exact else 'attention and cache as it chooses'}; built for {features}"
        )

    def answer(self, ids: Sequence[int], new_tokens: int) -> Spoken:
        """See `Speaker.answer`."""
        start = perf_counter()
        tokens = [int(self._after(ids).argmax())]
        times = [perf_counter() - start]
        while len(tokens) < new_tokens:
            tokens.append(int(self._feed(tokens[-1:]).argmax()))
            times.append(perf_counter() - start)
        return Spoken(Timeline(tuple(times), {}), tuple(tokens))

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """See `Speaker.logits`."""
        return torch.from_numpy(self._after(ids).copy())

    def close(self) -> None:
        """Give the memory back; nothing can be asked afterwards."""
        self._library.llama_free(self._context)
        self._library.llama_model_free(self._model)

    def _after(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Forget everything, and feed a prompt."""
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), False)
        return self._feed(ids)

    def _feed(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Feed what follows; return the logits after the last id, `[vocab]`, which the next call overwrites."""
        row = (self._library.llama_token * len(ids))(*ids)
        failed = self._library.llama_decode(self._context, self._library.llama_batch_get_one(row, len(ids)))
        if failed:
            raise EngineError(f"{NAME} does not take {len(ids)} more tokens (it returns {failed})")
        found = self._library.llama_get_logits_ith(self._context, LAST)
        logits: NDArray[np.float32] = np.ctypeslib.as_array(found, shape=(self._vocab,))
        return logits

    def _model_settings(self) -> Any:
        settings = self._library.llama_model_default_params()
        settings.n_gpu_layers = 0
        if hasattr(settings, "load_mode"):
            settings.load_mode = READ_INTO_MEMORY
        else:  # what older releases call it
            settings.use_mmap = False
        return settings

    def _context_settings(self, length: int, exact: bool) -> Any:
        settings = self._library.llama_context_default_params()
        settings.n_ctx = settings.n_batch = length
        settings.n_threads = settings.n_threads_batch = torch.get_num_threads()
        if exact:  # its flash attention rounds to float16 inside
            setattr(settings, "flash_attn_type" if hasattr(settings, "flash_attn_type") else "flash_attn", 0)
            settings.type_k = settings.type_v = self._library.GGML_TYPE_F32
        return settings


@functools.cache
def _listen() -> tuple[deque[str], Any]:
    """Keep what llama.cpp says from the terminal.

    Returns:
        Its last lines, and what it calls to say them: both are kept here, for as long as the process lives.
    """
    import llama_cpp

    said: deque[str] = deque(maxlen=STORY_LINES)
    heard = llama_cpp.llama_log_callback(lambda level, text, data: said.append(text.decode(errors="replace").strip()))
    llama_cpp.llama_log_set(heard, ctypes.c_void_p(0))
    return said, heard
