"""The papers' ablations and stages on the rendered world: studies as data, a resumable queue, tables with verdicts."""

from saccade.ablate.queue import run_studies
from saccade.ablate.studies import STUDIES, study
from saccade.ablate.study import Study
from saccade.ablate.table import render

__all__ = ["STUDIES", "Study", "render", "run_studies", "study"]
