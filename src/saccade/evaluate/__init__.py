"""Scores that need no network: a model asked about the rendered world, with its eyes open and shut."""

from saccade.evaluate.world import Item, WorldReport, evaluate_world, items, predict

__all__ = ["Item", "WorldReport", "evaluate_world", "items", "predict"]
