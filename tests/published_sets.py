"""Stand-ins for public sets, in the forms that these are published in."""

import base64
import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image


def picture(level: int) -> bytes:
    """A PNG of a size and gray that tell it from others; in base64 longer than the index of a row."""
    file = io.BytesIO()
    Image.new("L", (8 + level, 5), level).save(file, "PNG")
    return file.getvalue()


def put(path: Path, content: bytes | str | Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
    path.write_bytes(content)
    return path


def put_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table as the hub holds it; `image` is the bytes of a picture."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    held = [{**row, "image": {"bytes": row["image"], "path": None}} if "image" in row else row for row in rows]
    pq.write_table(pa.Table.from_pylist(held), path)


def put_tsv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        table.writeheader()
        table.writerows(rows)


def in_base64(level: int) -> str:
    return base64.b64encode(picture(level)).decode()
