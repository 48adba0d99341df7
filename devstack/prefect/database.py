"""Changes a running server's SQLite database where its API has no way: chosen times, thousands of runs."""

import json
import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

_RUN_TIMES = (
    "created",
    "expected_start_time",
    "next_scheduled_start_time",
    "start_time",
    "end_time",
    "state_timestamp",
)
_STATE_TIMES = ("created", "timestamp")


def backdate(path: Path, run_id: str, by: timedelta) -> None:
    """Move all times of a run and of its states into the past."""
    with _transaction(path) as database:
        shift = {"shift": _shift(by), "id": run_id}
        if not database.execute(f"update flow_run set {_moved(_RUN_TIMES)} where id = :id", shift).rowcount:
            raise KeyError(run_id)
        database.execute(f"update flow_run_state set {_moved(_STATE_TIMES)} where flow_run_id = :id", shift)


def clone(path: Path, run_id: str, parameters: Sequence[Mapping[str, Any]], apart: timedelta) -> list[str]:
    """Insert copies of a run, each with its current state; each is `apart` older than the one before."""
    ids: list[str] = []
    with _transaction(path) as database:
        for number, values in enumerate(parameters, start=1):
            run, state = str(uuid.uuid4()), str(uuid.uuid4())
            changes = {"id": run, "state_id": state, "parameters": json.dumps(dict(values)), "idempotency_key": None}
            if not _copy(database, "flow_run", "id = :source", changes, run_id):
                raise KeyError(run_id)
            current = "id = (select state_id from flow_run where id = :source)"
            _copy(database, "flow_run_state", current, {"id": state, "flow_run_id": run}, run_id)
            older = {"shift": _shift(number * apart), "id": run}
            database.execute(f"update flow_run set {_moved(_RUN_TIMES)} where id = :id", older)
            ids.append(run)
    return ids


def clear(path: Path) -> None:
    """Delete all runs with what belongs to them."""
    with _transaction(path) as database:
        for table in ("task_run_state", "task_run", "flow_run_state", "flow_run"):
            database.execute(f"delete from {table}")


def _copy(database: sqlite3.Connection, table: str, where: str, changes: Mapping[str, Any], source: str) -> int:
    columns = [str(row[1]) for row in database.execute(f"pragma table_info({table})")]
    values = ", ".join(f":{name}" if name in changes else name for name in columns)
    statement = f"insert into {table} ({', '.join(columns)}) select {values} from {table} where {where}"
    return database.execute(statement, {**changes, "source": source}).rowcount


def _moved(columns: Sequence[str]) -> str:
    return ", ".join(f"{name} = strftime('%Y-%m-%d %H:%M:%f000', {name}, :shift)" for name in columns)


def _shift(by: timedelta) -> str:
    return f"{-by.total_seconds():+f} seconds"


@contextmanager
def _transaction(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=30)) as database, database:
        database.execute("begin immediate")
        yield database
