"""What the papers print, as data, and how one's own scores are put beside it."""

from saccade.evaluate.papers.planning import Step, fetch, plan
from saccade.evaluate.papers.tables import Conflict, Paper, Scored, Table, names, paper, printed

__all__ = ["Conflict", "Paper", "Scored", "Step", "Table", "fetch", "names", "paper", "plan", "printed"]
