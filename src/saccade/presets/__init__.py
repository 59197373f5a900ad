"""Presets: functions that return a full configuration. An ablation is a preset with one field changed.

Only here do published sizes stand; everywhere else they are read from a configuration.
"""

from collections.abc import Callable

from saccade.config import SaccadeConfig
from saccade.errors import ConfigError
from saccade.presets.flashsloth_models import FLASHSLOTH_TILES, flashsloth, flashsloth_hd
from saccade.presets.flashvl_models import (
    CHATML,
    FLASHVL_TILES,
    flashvl_dynamic,
    flashvl_dynamic_siglip2,
    flashvl_iss,
    flashvl_overlapped,
    flashvl_static,
    flashvl_static_2_linear,
    flashvl_static_aimv2,
    flashvl_static_llama,
    flashvl_static_qwen2,
    flashvl_static_siglip2_large,
)
from saccade.presets.nano_models import (
    nano,
    nano_flashvl_dynamic,
    nano_flashvl_iss,
    nano_flashvl_overlapped,
    nano_flashvl_static,
    nano_hd,
)

__all__ = [
    "CHATML",
    "FLASHSLOTH_TILES",
    "FLASHVL_TILES",
    "PRESETS",
    "flashsloth",
    "flashsloth_hd",
    "flashvl_dynamic",
    "flashvl_dynamic_siglip2",
    "flashvl_iss",
    "flashvl_overlapped",
    "flashvl_static",
    "flashvl_static_2_linear",
    "flashvl_static_aimv2",
    "flashvl_static_llama",
    "flashvl_static_qwen2",
    "flashvl_static_siglip2_large",
    "nano",
    "nano_flashvl_dynamic",
    "nano_flashvl_iss",
    "nano_flashvl_overlapped",
    "nano_flashvl_static",
    "nano_hd",
    "preset",
]

PRESETS: dict[str, Callable[[], SaccadeConfig]] = {
    build.__name__: build
    for build in (
        flashsloth,
        flashsloth_hd,
        flashvl_static,
        flashvl_dynamic,
        flashvl_iss,
        flashvl_overlapped,
        flashvl_dynamic_siglip2,
        flashvl_static_aimv2,
        flashvl_static_siglip2_large,
        flashvl_static_2_linear,
        flashvl_static_qwen2,
        flashvl_static_llama,
        nano,
        nano_hd,
        nano_flashvl_static,
        nano_flashvl_dynamic,
        nano_flashvl_overlapped,
        nano_flashvl_iss,
    )
}


def preset(name: str) -> SaccadeConfig:
    """Return a preset by name.

    Raises:
        ConfigError: when there is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]()
