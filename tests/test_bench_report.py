"""What people read of a result: numbers in full, and labels of which none lies over another."""

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from saccade.bench import draw
from saccade.bench.report import in_full


@pytest.mark.parametrize(
    ("value", "digits", "written"),
    [
        (0.12345, 4, "0.1235"),
        (3715.4, 4, "3715"),
        (9999.4, 4, "9999"),
        (9999.6, 4, "10,000"),
        (13_554.0, 4, "13,550"),
        (1289.6, 3, "1,290"),
        (-13_554.0, 4, "-13,550"),
    ],
)
def test_large_numbers_have_no_power_of_ten(value: float, digits: int, written: str) -> None:
    assert in_full(value, digits) == written


def test_labels_of_neighbors_stand_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    kept: list[Any] = []
    finish = draw._finish
    monkeypatch.setattr(draw, "_finish", lambda figure, *rest: (kept.append(figure), finish(figure, *rest)))
    row = {"task": "t", "visual_tokens": 81, "query_tokens": 9, "memory_bytes": 6e9, "weight_bytes": 6e9}
    places = (("one", 2.40), ("one, engine", 2.41), ("two", 2.44), ("far", 9.0))
    rows = [row | {"subject": name, "ttft": {"median": seconds}} for name, seconds in places]
    draw.draw({"bench": "table1", "machine": "m", "dtype": "float32", "rows": rows}, tmp_path / "plot.png")
    boxes = [text.get_window_extent() for text in kept[0].axes[0].texts]
    assert len(boxes) == len(places)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
