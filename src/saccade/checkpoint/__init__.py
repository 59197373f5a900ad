"""Checkpoints: open native and released ones, and convert between them."""

from saccade.checkpoint.convert import convert
from saccade.checkpoint.layouts import Layout
from saccade.checkpoint.load import LAYOUTS, open_checkpoint

__all__ = ["LAYOUTS", "Layout", "convert", "open_checkpoint"]
