"""Weights in bfloat16 on a CPU: decoding at the rate memory gives them, prefill at that of the library's matrices."""

from saccade.engine.cpu.choose import LinearPath, choose_linear
from saccade.engine.cpu.mode import LowPrecisionWeights

__all__ = ["LinearPath", "LowPrecisionWeights", "choose_linear"]
