"""All parts together, started side by side."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from devstack.controlplane import ControlPlane
from devstack.prefect import Prefect
from devstack.supabase import Supabase
from devstack.worker import Worker

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stack:
    """Everything that the controller talks to; `seconds` says how long each part took to start."""

    supabase: Supabase
    prefect: Prefect
    worker: Worker | None
    control_plane: ControlPlane | None
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def start(
        cls, workdir: Path | None = None, *, worker: bool = True, control_plane: bool = True, max_rows: int = 1000
    ) -> Iterator["Stack"]:
        """Start Supabase, Prefect, and unless told otherwise a worker and a control plane.

        Raises:
            Unavailable: a part cannot be had here.
            Broken: a part did not start.
        """
        seconds: dict[str, float] = {}
        with ExitStack() as exits, ThreadPoolExecutor() as threads:

            def begin(name: str, part: AbstractContextManager[T]) -> Callable[[], T]:
                """Start a part in a thread; what is returned waits for it."""

                def enter() -> T:
                    started = time.monotonic()
                    running = exits.enter_context(part)
                    seconds[name] = time.monotonic() - started
                    return running

                return threads.submit(enter).result

            cluster = begin("control plane", ControlPlane.start(workdir)) if control_plane else None
            supabase = begin("Supabase", Supabase.start(workdir, max_rows=max_rows))
            prefect = begin("Prefect", Prefect.start(workdir))
            processing = None
            if worker:
                processing = begin("worker", Worker.start(prefect(), supabase().env(), workdir))
            yield cls(
                supabase(),
                prefect(),
                processing() if processing else None,
                cluster() if cluster else None,
                seconds,
            )

    def env(self) -> dict[str, str]:
        """Return the controller's environment: `SUPABASE_…`, `PREFECT_…` and, with a control plane, `KUBECONFIG`."""
        env = {**self.supabase.env(), **self.prefect.env()}
        return env if self.control_plane is None else {**env, "KUBECONFIG": str(self.control_plane.kubeconfig)}
