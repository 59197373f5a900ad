"""The fast path: many questions at once on the weights of a model that is loaded."""

from saccade.engine.engine import Engine
from saccade.engine.tickets import Ticket

__all__ = ["Engine", "Ticket"]
