"""Checkpoints: open native and released ones, and convert between them."""

from saccade.checkpoint.convert import convert
from saccade.checkpoint.files import bundled_models
from saccade.checkpoint.layouts import Layout
from saccade.checkpoint.load import LAYOUTS, open_checkpoint

__all__ = ["LAYOUTS", "Layout", "bundled_models", "convert", "open_checkpoint"]
