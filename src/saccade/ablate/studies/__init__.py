"""The studies by name: what is varied, what the paper found, and on what it is tried here."""

from saccade.ablate.studies.architecture import ABLATIONS
from saccade.ablate.studies.training import TRAININGS
from saccade.ablate.study import Study
from saccade.errors import ConfigError

STUDIES: dict[str, Study] = {study.name: study for study in (*ABLATIONS, *TRAININGS)}


def study(name: str) -> Study:
    """Return a study by name.

    Raises:
        ConfigError: when there is none of that name.
    """
    if name not in STUDIES:
        raise ConfigError(f"there is no study {name!r}: choose one of {', '.join(STUDIES)}")
    return STUDIES[name]
