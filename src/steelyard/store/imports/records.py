"""Rows of JSON, JSON lines and CSV files, one at a time, with their numbers for messages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from steelyard.errors import WorkloadError

Record = dict[str, Any]

_BATCH_ROWS = 50_000
_MAX_SHOWN_CHARS = 60


def records_of(path: Path) -> Iterator[tuple[int, Record]]:
    """Which rows does a file hold?

    CSV and JSON lines are streamed. A JSON file holds a list, or an object with the list under
    `data` (as HTTP interfaces page it); any other object is the one record.

    Args:
        path: A `.csv`, `.jsonl`, `.ndjson` or `.json` file.

    Yields:
        Number from 1, and the fields; fields of CSV files are text, empty ones None.

    Raises:
        WorkloadError: The file or a row cannot be read; the message names it.
    """
    if not path.is_file():
        raise WorkloadError(f"workload {path} does not exist; give a file")
    if path.suffix == ".csv":
        yield from _csv(path)
    elif path.suffix in {".jsonl", ".ndjson"}:
        yield from _lines(path)
    else:
        yield from _json(path)


def _csv(path: Path) -> Iterator[tuple[int, Record]]:
    try:
        # As text: a bad value is then named by its row, not lost in a column's type.
        lazy = pl.scan_csv(path, infer_schema=False)
        number = 0
        for batch in lazy.collect_batches(chunk_size=_BATCH_ROWS):
            for row in batch.iter_rows(named=True):
                number += 1
                yield number, row
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise WorkloadError(
            f"{path} cannot be read as CSV: {reason}; give a header line"
        ) from error


def _lines(path: Path) -> Iterator[tuple[int, Record]]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield number, decoder.decode(line)
                except msgspec.DecodeError as error:
                    raise WorkloadError(
                        f"{path}: line {number} is no JSON object: {error}; write one per line"
                    ) from error


def _json(path: Path) -> Iterator[tuple[int, Record]]:
    held: Any
    try:
        held = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, OSError) as error:
        raise WorkloadError(
            f"{path} cannot be read as JSON: {error}; name JSON lines .jsonl and CSV .csv"
        ) from error
    try:
        page = msgspec.convert(held, Record) if isinstance(held, dict) else {"data": held}
        records = msgspec.convert(page.get("data", [page]), list[Record])
    except msgspec.ValidationError as error:
        raise WorkloadError(
            f"{path}: a record is no object: {error}; give a list of them"
        ) from error
    yield from enumerate(records, start=1)


def field(record: Record, *names: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """The first of these fields that is there and not empty; None if there is none."""
    for name in names:
        value = record.get(name)
        if value is not None and value != "":
            return value
    return None


def nested(record: Record, name: str) -> Record:
    """A field that holds an object, or JSON text of one (as exports to CSV have); empty if none."""
    value = record.get(name)
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            return {}
    nothing: Record = {}
    return msgspec.convert(value, Record) if isinstance(value, dict) else nothing


def list_of(path: Path, where: str, record: Record, name: str) -> list[Any]:
    """A field that holds a list; empty if it is missing.

    Args:
        path: The file, for the message.
        where: Which record, for the message.
        record: Holds the field.
        name: The field.

    Raises:
        WorkloadError: It is something else.
    """
    held: Any = record.get(name)
    if held is None:
        return []
    if not isinstance(held, list):
        raise WorkloadError(f"{path}: {where} {name} is {_short(held)}; it must be a list")
    return msgspec.convert(held, list[Any])


def objects_of(path: Path, where: str, record: Record, name: str) -> list[Record]:
    """A field that holds a list of objects; as `list_of`."""
    held = list_of(path, where, record, name)
    for one in held:
        if not isinstance(one, dict):
            raise WorkloadError(f"{path}: {where} {name} holds {_short(one)}; all must be objects")
    return held


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}..."
