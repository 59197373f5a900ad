"""What figures were made with: the machine, the libraries, the code."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from saccade.vlm.ledger import weights_hash

if TYPE_CHECKING:
    from saccade.vlm import VLM

CPU_NAMES = Path("/proc/cpuinfo")


def made_with() -> dict[str, Any]:
    """Machine, versions of torch and transformers, and the commit."""
    return {
        "machine": machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "commit": commit(),
    }


def scored_with(vlm: VLM) -> dict[str, Any]:
    """The weights that answered, which another model of the name does not have, their dtype, and `made_with`."""
    dtype = str(vlm.model.dtype).removeprefix("torch.")
    return {"dtype": dtype, "weights": weights_hash(vlm.model), **made_with()}


def machine() -> str:
    """What this machine computes with."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    if not CPU_NAMES.exists():
        return platform.platform()
    names = [line.partition(":")[2].strip() for line in CPU_NAMES.read_text().splitlines() if "model name" in line]
    return f"{names[0]}, {len(names)} cores" if names else platform.platform()


def commit() -> str | None:
    """The commit of the checkout this file is part of, "-dirty" behind it where files were changed; else None.

    Only what is run counts, files of its own too; results, and pages made from them, may change.
    """
    here = Path(__file__)
    asked = (
        ["ls-files", "--error-unmatch", here.name],
        ["rev-parse", "--short", "HEAD"],
        ["status", "--porcelain", "--", ":(top)src", ":(top)tools", ":(top)pyproject.toml"],
    )
    try:
        _, head, changed = (
            subprocess.run(
                ["git", "--no-optional-locks", *words], cwd=here.parent, capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}-dirty" if changed else head
