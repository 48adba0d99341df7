"""The real parts that tests share, each started once in a session and only where a test asks for it.

In every test, whatever is logged, printed or concluded by a scan is searched for keys: see `tests.secrets`.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

import hypothesis
import pytest
from hypothesis import is_hypothesis_test, settings
from hypothesis.stateful import RuleBasedStateMachine

from controller.outcome import Outcome
from controller.scan import run_scan
from devstack import Broken, ControlPlane, Prefect, Supabase, Unavailable
from tests import secrets, support
from tests.secrets import pytest_runtest_makereport, pytest_unconfigure  # noqa: F401 - pytest's hooks
from tests.support import DEPLOYMENT

T = TypeVar("T")

# Properties

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("fresh", derandomize=False, deadline=None, database=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fresh-seed", type=int, metavar="SEED", help="run only the properties, with examples drawn from this seed"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Take the examples of each run from the same seed, unless another one is asked for."""
    settings.load_profile("fixed" if config.getoption("fresh_seed") is None else "fresh")
    secrets.pytest_configure(config)


def pytest_report_header(config: pytest.Config) -> str | None:
    seed = config.getoption("fresh_seed")
    return None if seed is None else f"properties with fresh examples; to have these again: make test-fresh SEED={seed}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With a seed, keep the properties, and draw their examples from it, whatever their own settings say."""
    seed = config.getoption("fresh_seed")
    if seed is None:
        return
    properties = [item for item in items if isinstance(item, pytest.Function) and is_hypothesis_test(item.obj)]
    for item in properties:
        draw_from(seed, item)
    config.hook.pytest_deselected(items=[item for item in items if item not in properties])
    items[:] = properties


def draw_from(seed: int, item: pytest.Function) -> None:
    """Give a property a seed; one of a state machine is on the machine's class."""
    machines = [
        each
        for each in vars(item.module).values()
        if isinstance(each, type) and issubclass(each, RuleBasedStateMachine) and each is not RuleBasedStateMachine
    ]
    for target in (getattr(item.obj, "__func__", item.obj), *machines):
        hypothesis.seed(seed)(target)


# Parts


def serve(part: AbstractContextManager[T]) -> Iterator[T]:
    """Yield a running part; skip with the reason where it cannot be had, but fail in CI: a tier must not go missing.

    A part that can be had and does not start fails its tests everywhere.
    """
    try:
        running = part.__enter__()
    except Broken:
        raise
    except Unavailable as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(reason))
    secrets.know_part(running)
    try:
        yield running
    finally:
        part.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def outcomes_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No scan of a test says a key, neither in what ended it nor of any video."""

    async def run_and_look(*args: Any, **kwargs: Any) -> Outcome:
        outcome = await run_scan(*args, **kwargs)
        secrets.refuse(f"{outcome.error!r} {outcome.results}", "the outcome of a scan")
        return outcome

    monkeypatch.setattr(support, "run_scan", run_and_look)


@pytest.fixture(scope="session")
def supabase_server() -> Iterator[Supabase]:
    yield from serve(Supabase.start())


def steady_prefect(
    *, auth_string: str | None = None, settings: Mapping[str, str] | None = None
) -> AbstractContextManager[Prefect]:
    """A Prefect on which a worker that polled once stays online, and runs stay as a test has made them.

    Otherwise a pool counts as deserted after a minute, and a busy machine may take longer for a test.
    """
    steady = {
        "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
        # A run that tests make hours old is else cancelled for good whenever the clean-up comes by, every 20 s.
        "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": str(30 * 24 * 3600),
    }
    return Prefect.start(auth_string=auth_string, settings={**steady, **(settings or {})})


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[Prefect]:
    yield from serve(steady_prefect())


StartPrefect = Callable[..., Prefect]


@pytest.fixture(scope="module")
def start_prefect() -> Iterator[StartPrefect]:
    """Starts servers that do nothing to runs by themselves, and run until the module ends.

    What they would do, such as calling runs late, takes half of the time of a server with thousands of them. With
    `events=False` they keep no events either.
    """
    with ExitStack() as running:

        def start(*, events: bool = True) -> Prefect:
            services = [
                "LATE_RUNS",
                "SCHEDULER",
                "TRIGGERS",
                "TASK_RUN_RECORDER",
                *([] if events else ["EVENT_PERSISTER"]),
            ]
            settings = {f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false" for service in services}
            return running.enter_context(contextmanager(serve)(steady_prefect(settings=settings)))

        yield start


@pytest.fixture(scope="session")
def cluster() -> Iterator[ControlPlane]:
    yield from serve(ControlPlane.start())


@pytest.fixture
def supabase(supabase_server: Supabase) -> Supabase:
    """The running Supabase with an empty table of videos, no buckets and nothing in its log of requests."""
    supabase_server.execute("truncate captionacc.videos")
    supabase_server.clear_storage()
    supabase_server.reset_requests()
    return supabase_server


@pytest.fixture
def prefect(prefect_server: Prefect) -> Prefect:
    """The running Prefect with the deployment, its pool polled by a worker, and no flow runs."""
    prefect_server.create_deployment(DEPLOYMENT)
    prefect_server.clear_flow_runs()
    prefect_server.pretend_worker()
    return prefect_server
