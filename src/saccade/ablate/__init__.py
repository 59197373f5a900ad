"""Ablations of the papers, repeated on the rendered world: studies as data, a resumable queue, tables with verdicts."""

from saccade.ablate.queue import run_studies
from saccade.ablate.studies import STUDIES, Study, study
from saccade.ablate.table import render

__all__ = ["STUDIES", "Study", "render", "run_studies", "study"]
