"""Weights in bfloat16 on a CPU: decoding at the rate memory gives them, towers and prompts at that of its products."""

from saccade.engine.cpu.choose import LinearPath, choose_linear
from saccade.engine.cpu.mode import LowPrecisionWeights

__all__ = ["LinearPath", "LowPrecisionWeights", "choose_linear"]
