"""Fast, tiny vision-language models: one composable model, from training to asking.

    import saccade
    vlm = saccade.load()
    print(vlm.ask("photo.jpg", "What color is the circle?"))

Importing the package registers its classes with transformers, so that `AutoModelForImageTextToText.from_pretrained` and
`AutoProcessor.from_pretrained` open its folders. That imports torch and transformers, which takes seconds. The one
exception is the command line (`saccade ...` or `python -m saccade`): it shows its help at once, and registers when a
command opens a model.
"""

import importlib
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saccade.vlm import VLM, load

__all__ = ["VLM", "__version__", "load"]

try:
    __version__ = version("saccade")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "unknown"


def __getattr__(name: str) -> Any:
    """Import the face of the package when it is first used."""
    if name in ("VLM", "load"):
        return getattr(importlib.import_module("saccade.vlm"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _is_command_line() -> bool:
    """Whether Python was started as `saccade ...` or `python -m saccade ...`."""
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # what runpy puts there until it has found the module
        return sys.orig_argv[sys.orig_argv.index("-m") + 1] == __name__
    return PurePath(program).name in (__name__, f"{__name__}.exe")


if not _is_command_line():
    importlib.import_module("saccade.registration")
