"""A Prefect worker that really processes videos: a process pool, one small flow, rows that change their status."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from devstack.prefect import Deployment, Prefect, environment
from devstack.process import Child
from devstack.workdir import part_directory

FLOW = "captionacc-video-initial-processing"
DEPLOYMENT = f"{FLOW}/captionacc-prod-video-initial-processing"
POOL = "video-processing"
QUEUES = ("default", "recovery")
SOCKET = "runs.sock"
_INSIDE = Path(environment.__file__).with_name("inside")


class Worker:
    """A running worker of the pool `video-processing`, and the `deployment` whose runs it executes."""

    def __init__(self, deployment: Deployment, directory: Path, variables: Mapping[str, str]) -> None:
        self.deployment = deployment
        self._directory, self._variables = directory, variables
        self._children: list[Child] = []

    @classmethod
    @contextmanager
    def start(
        cls,
        prefect: Prefect,
        supabase: Mapping[str, str],
        workdir: Path | None = None,
        *,
        limit: int = 3,
        processing_seconds: float = 0.2,
    ) -> Iterator["Worker"]:
        """Create the deployment and start the worker; wait until the pool is READY.

        `supabase` are the variables `SUPABASE_URL` and `SUPABASE_SERVICE_ROLE_KEY` (`Supabase.env()`), `limit` the
        number of runs at a time: each works for `processing_seconds`, and takes half a second more.

        Raises:
            Broken: the worker did not start.
        """
        with ExitStack() as stack:
            directory = stack.enter_context(part_directory(workdir, "worker"))
            settings = {
                **prefect.env(),
                **supabase,
                "PROCESSING_SECONDS": str(processing_seconds),
                "PREFECT_WORKER_QUERY_SECONDS": "0.5",
                "PREFECT_LOGGING_TO_API_ENABLED": "false",
            }
            worker = cls(_create_deployment(prefect, directory), directory, environment.variables(directory, settings))
            stack.callback(worker.stop)
            worker._start_runs()
            worker._start_worker(prefect, limit)
            yield worker

    def stop(self) -> None:
        """End the worker and its runs."""
        for child in reversed(self._children):
            child.stop()

    def kill(self) -> None:
        """Kill the worker and its runs, as a crash of the machine would: its runs stay RUNNING for ever."""
        for child in reversed(self._children):
            child.kill()

    def _start_runs(self) -> None:
        self._start(
            "the server of flow runs", [_INSIDE / "runs.py", self._directory], (self._directory / SOCKET).exists
        )

    def _start_worker(self, prefect: Prefect, limit: int) -> None:
        command = [
            *("-m", "prefect", "worker", "start", "--type", "process"),
            *("--pool", POOL, "--limit", str(limit), "--name", "devstack"),
            *(word for queue in QUEUES for word in ("--work-queue", queue)),
        ]
        self._start("the Prefect worker", command, lambda: prefect.deployment(DEPLOYMENT)["status"] == "READY")

    def _start(self, name: str, arguments: Sequence[str | Path], ready: Callable[[], bool]) -> None:
        child = Child.start(
            name,
            [environment.python(), "-P", *arguments],
            log=self._directory / "worker.log",
            env=self._variables,
            cwd=self._directory,
            ready=ready,
        )
        self._children.append(child)


def _create_deployment(prefect: Prefect, directory: Path) -> Deployment:
    command = [environment.python(), "-IS", _INSIDE / "run.py", directory]
    return prefect.create_deployment(
        DEPLOYMENT,
        work_pool=POOL,
        queues=QUEUES[1:],
        entrypoint="process_video.py:process_video",
        path=str(_INSIDE),
        job_variables={"command": shlex.join(str(word) for word in command)},
    )
