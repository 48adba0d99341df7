"""The runner without a cluster, with a clock of its own: when it scans, what it remembers, how it takes a new file."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.api.status import ScanRecord
from controller.errors import ConfigurationError, ErrorReason, Service
from controller.operator.standalone import LoadedPolicy, Standalone
from controller.schedule import Trigger
from tests.support import NEVER, manifest
from tests.unit.fakes import DEPLOYMENT, NOW, SECOND, flow_run, in_jumping_time, raising, unavailable
from tests.unit.scanning import rows
from tests.world.world import World

MINUTE = timedelta(minutes=1)
QUARTERS = "*/15 * * * *"
SLACK = MINUTE + 5 * SECOND
"""By how much a scan may start late: its jitter, and the time between two looks."""

Act = Callable[[], object]


@dataclass
class Play:
    """A policy's file, a runner that began at `NOW`, and what happens when."""

    path: Path
    caplog: pytest.LogCaptureFixture
    world: World = field(default_factory=World)
    asleep: timedelta = timedelta(0)

    def write(self, **spec: Any) -> None:
        """Write the policy; keyword arguments are merged into its spec."""
        self.path.write_text(yaml.dump(manifest(**{"schedule": QUARTERS, **spec})))

    def load(self) -> LoadedPolicy:
        text = self.path.read_text()
        if "broken" in text:
            raise ConfigurationError("the file is broken", reason=ErrorReason.INVALID_SPEC)
        if "defect" in text:
            raise KeyError("a defect")
        return LoadedPolicy(yaml.safe_load(text), self.world, "policy captionacc-prod of the file")

    def run(self, until: timedelta, acts: Mapping[timedelta, Act] | None = None) -> Standalone:
        """Run the runner for some time, and let happen what happens meanwhile."""

        async def play() -> Standalone:
            loop = asyncio.get_running_loop()
            self.runner = Standalone(self.load, [self.path], lambda: NOW + timedelta(seconds=loop.time()) + self.asleep)
            running = asyncio.create_task(self.runner.run())
            for moment, act in sorted((acts or {}).items(), key=lambda item: item[0]):
                await asyncio.sleep(moment.total_seconds() - loop.time())
                act()
            await asyncio.sleep(until.total_seconds() - loop.time())
            self.runner.request_stop()
            await running
            return self.runner

        self.caplog.set_level(logging.INFO, "controller")
        return in_jumping_time(play)[0]


@pytest.fixture
def play(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Play:
    playing = Play(tmp_path / "policy.yaml", caplog)
    playing.write()
    return playing


def scans(runner: Standalone) -> list[ScanRecord]:
    """The scans that ran, the first one first."""
    return list(reversed(runner.status.history))


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


# When it scans


def test_scans_at_its_scheduled_time_and_not_before(play):
    quarter_past = NOW.replace(minute=15, second=0)

    assert scans(play.run(quarter_past - NOW)) == []

    [scan] = scans(play.run(quarter_past - NOW + SLACK))
    assert quarter_past <= scan.start_time <= quarter_past + SLACK
    assert scan.trigger is Trigger.SCHEDULE


def test_scans_again_each_time_that_its_schedule_fires(play):
    runner = play.run(60 * MINUTE)

    assert [scan.start_time.minute for scan in scans(runner)] == [15, 30, 45, 0]
    assert play.world.steps.count("candidates") == 4


def test_a_first_start_does_not_scan_for_a_time_that_is_just_over(play):
    play.asleep = NOW.replace(minute=15, second=1) - NOW

    assert scans(play.run(5 * MINUTE)) == []


def test_says_at_the_start_what_it_runs_and_when_the_next_scan_is(play, caplog):
    play.run(SECOND)

    [line] = lines(caplog, logging.INFO)
    assert line.startswith(
        "running policy captionacc-prod of the file; schedule */15 * * * * (Etc/UTC), mode Enforce; "
        "next scan at 2026-03-10 12:15:"
    )


def test_while_suspended_scans_nothing_and_says_so(play, caplog):
    play.write(suspend=True)

    assert scans(play.run(60 * MINUTE)) == []
    assert "candidates" not in play.world.steps
    assert "suspended: no scan until spec.suspend is false" in caplog.text


def test_a_policy_that_observes_triggers_nothing(play):
    play.world = World(rows(2))
    play.write(mode="Observe")

    [scan] = scans(play.run(10 * MINUTE))

    assert scan.reasons == {"ObserveMode": 2}
    assert play.world.created == []


@pytest.mark.parametrize(
    ("asleep", "triggers", "told"),
    [
        pytest.param(11 * MINUTE, [Trigger.CATCH_UP], "it is caught up now", id="a_short_sleep_is_caught_up"),
        pytest.param(20 * MINUTE, [], "it is not caught up", id="a_long_one_is_not"),
    ],
)
def test_a_scan_that_the_machine_slept_through_is_missed(play, caplog, asleep, triggers, told):
    def sleep() -> None:
        play.asleep = asleep

    runner = play.run(2 * MINUTE, {MINUTE: sleep})

    assert [scan.trigger for scan in scans(runner)] == triggers
    [line] = lines(caplog, logging.WARNING)
    assert line == f"captionacc/captionacc-prod: no scan could start at 2026-03-10 12:15 UTC; {told}"


# What it remembers


def test_a_scan_is_logged_in_one_line(play, caplog):
    play.world = World(rows(2))

    play.run(10 * MINUTE)

    assert lines(caplog, logging.INFO)[1:] == [
        "captionacc/captionacc-prod: Schedule scan: 2 found: 2 recovered, 0 skipped, 0 failed"
    ]


def test_a_backlog_that_was_held_is_taken_up_slowly(play):
    play.world = World(rows(12), deployment=replace(DEPLOYMENT, not_ready="no worker polls its pool"))
    play.write(limits={"perScan": 10})

    def ready() -> None:
        play.world.deployment = DEPLOYMENT

    runner = play.run(40 * MINUTE, {20 * MINUTE: ready})

    assert [scan.recovered for scan in scans(runner)] == [0, 1, 2]
    assert runner.status.ramp_up == 4


def test_a_video_that_used_up_its_attempts_is_announced_once(play, caplog):
    attempts = [flow_run("v0000", "CRASHED", ended=timedelta(hours=n), attempt=4 - n) for n in (3, 2, 1)]
    play.world = World(rows(1), attempts)

    assert len(scans(play.run(40 * MINUTE))) == 3
    [line] = lines(caplog, logging.WARNING)
    assert line.startswith("captionacc/captionacc-prod: 1 videos used up their attempts and are left alone: v0000;")


def test_keeps_no_more_history_than_the_policy_says(play):
    play.write(historyLimit=2)

    runner = play.run(60 * MINUTE)

    assert (len(scans(runner)), runner.status.totals.scans) == (2, 4)


# When something fails


def test_a_service_that_is_down_is_one_warning_and_the_next_scan_comes_on_schedule(play, caplog):
    play.world.on["candidates", 1] = raising(unavailable(Service.SUPABASE))

    first, second = scans(play.run(25 * MINUTE))

    assert first.error == "Supabase answered 503: busy"
    assert (second.start_time.minute, second.error) == (30, None)
    [line] = lines(caplog, logging.WARNING)
    assert line.startswith("captionacc/captionacc-prod: Schedule scan failed: Supabase answered 503: busy; 0 found")


def test_a_defect_is_logged_with_its_traceback_and_the_next_scan_comes_on_schedule(play, caplog):
    play.world.on["candidates", 1] = raising(KeyError("a defect"))

    first, second = scans(play.run(25 * MINUTE))

    assert first.error == "the controller failed: KeyError"
    assert (second.start_time.minute, second.error) == (30, None)
    assert "Traceback" in caplog.text


def test_what_would_end_the_first_scan_is_told_at_the_start(play, caplog):
    play.world.on["check", 1] = raising(unavailable(Service.SUPABASE))

    play.run(MINUTE)

    assert lines(caplog, logging.WARNING) == [
        "captionacc/captionacc-prod cannot be scanned: Supabase answered 503: busy"
    ]


def test_a_defect_in_the_check_at_the_start_keeps_nothing_from_running(play):
    play.world.on["check", 1] = raising(KeyError("a defect"))

    assert len(scans(play.run(10 * MINUTE))) == 1


# A new file


def test_another_schedule_is_planned_anew_and_never_for_the_past(play, caplog):
    play.write(schedule=NEVER)

    runner = play.run(10 * MINUTE, {5 * MINUTE: lambda: play.write(schedule="* * * * *")})

    assert scans(runner)[0].start_time >= NOW + 5 * MINUTE
    assert [scan.start_time.minute for scan in scans(runner)] == [13, 14, 15, 16, 17]
    assert "reloaded policy captionacc-prod of the file; schedule * * * * * (Etc/UTC)" in caplog.text


def test_a_policy_that_is_resumed_scans_at_its_next_time(play):
    play.write(suspend=True)

    runner = play.run(25 * MINUTE, {10 * MINUTE: lambda: play.write(suspend=False)})

    assert [scan.start_time.minute for scan in scans(runner)] == [30]


def test_another_policy_begins_with_an_empty_memory(play):
    def another() -> None:
        policy = manifest(schedule=QUARTERS)
        policy["metadata"]["name"] = "another"
        play.path.write_text(yaml.dump(policy))

    assert play.run(20 * MINUTE, {10 * MINUTE: another}).status.totals.scans == 0
    play.write()
    assert play.run(20 * MINUTE, {10 * MINUTE: lambda: play.write(historyLimit=5)}).status.totals.scans == 1


@pytest.mark.parametrize("path", ["..data/policy.yaml", "policy.yaml"])
def test_a_mounted_file_that_changes_by_a_link_to_another_folder_is_noticed(play, tmp_path, caplog, path):
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "policy.yaml").write_text(yaml.dump(manifest(suspend=folder == "new")))
    data = tmp_path / "..data"
    data.symlink_to("old")
    play.path.unlink()
    play.path.symlink_to("..data/policy.yaml")  # as a ConfigMap is mounted
    play.path = tmp_path / path

    def swap() -> None:
        (tmp_path / "..next").symlink_to("new")
        (tmp_path / "..next").replace(data)

    play.run(2 * MINUTE, {MINUTE: swap})

    assert "reloaded policy captionacc-prod of the file; suspended" in caplog.text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("broken", "not reloaded, the policy stays as it was: the file is broken", id="cannot_be_read"),
        pytest.param(
            yaml.dump(manifest(schedule="61 * * * *")),
            "not reloaded, the policy stays as it was: spec.schedule: '61 * * * *' is no valid cron line",
            id="never_fires",
        ),
        pytest.param("defect", "not reloaded, the policy stays as it was", id="hits_a_defect"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_once_and_the_policy_stays_as_it_was(play, caplog, text, told):
    runner = play.run(
        40 * MINUTE, {MINUTE: lambda: play.path.write_text(text), 20 * MINUTE: lambda: play.write(suspend=True)}
    )

    [line] = lines(caplog, logging.ERROR)
    assert line.startswith(told)
    assert [scan.start_time.minute for scan in scans(runner)] == [15]
    assert "reloaded policy captionacc-prod of the file; suspended" in caplog.text


def test_a_file_that_is_missing_or_half_written_for_a_moment_is_not_complained_about(play, caplog):
    acts: dict[timedelta, Act] = {
        61 * SECOND: play.path.unlink,
        62.5 * SECOND: lambda: play.path.write_text("broken"),
        64.5 * SECOND: lambda: play.write(suspend=True),
    }

    play.run(2 * MINUTE, acts)

    assert lines(caplog, logging.ERROR) == []
    assert "reloaded policy captionacc-prod of the file; suspended" in caplog.text


def test_asked_to_reload_takes_the_file_at_once_and_only_once(play, caplog):
    def edit() -> None:
        play.write(suspend=True)
        play.runner.request_reload()

    play.run(MINUTE + SECOND, {MINUTE: edit})
    assert caplog.text.count("reloaded") == 1
    caplog.clear()

    play.run(5 * MINUTE, {MINUTE: edit, 2 * MINUTE: play.write})
    assert caplog.text.count("reloaded") == 2


def test_asked_to_reload_reads_again_also_what_did_not_change(play, caplog):
    play.run(2 * MINUTE, {MINUTE: lambda: play.runner.request_reload()})

    assert caplog.text.count("reloaded") == 1


def test_new_credentials_are_used_by_the_next_scan(play):
    old, new = World(), World()
    play.world = old

    def rotate() -> None:
        play.world = new
        play.runner.request_reload()

    play.run(25 * MINUTE, {10 * MINUTE: rotate})

    assert (old.steps.count("candidates"), new.steps.count("candidates")) == (1, 1)


def test_a_file_that_cannot_be_used_at_the_start_is_an_error(play):
    play.write(schedule="61 * * * *")

    with pytest.raises(ConfigurationError, match=r"spec\.schedule"):
        Standalone(play.load, [play.path], lambda: NOW)


# The end


def test_asked_to_leave_during_a_scan_it_ends_after_the_batch_and_keeps_the_report(play, caplog):
    play.world = World(rows(150))
    play.write(limits={"perScan": 500})
    play.world.on["answer", 1] = lambda: play.runner.request_stop()

    [scan] = scans(play.run(60 * MINUTE))

    assert (scan.recovered, scan.reasons) == (100, {"Interrupted": 50})
    assert "150 found: 100 recovered, 50 skipped, 0 failed (Interrupted 50)" in caplog.text


def test_asked_to_leave_during_the_check_it_starts_no_scan(play):
    play.write(schedule="* * * * *")
    play.world.on["check", 1] = lambda: play.runner.request_stop()

    assert scans(play.run(5 * MINUTE)) == []


# Only once


async def test_a_single_scan_succeeds_if_nothing_failed(play, caplog):
    play.world = World(rows(2))
    caplog.set_level(logging.INFO, "controller")

    assert await Standalone(play.load, [], lambda: NOW).scan_once()

    assert play.world.created == ["v0000", "v0001"]
    assert lines(caplog, logging.INFO) == [
        "captionacc/captionacc-prod: Request scan: 2 found: 2 recovered, 0 skipped, 0 failed"
    ]


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(World(rows(2), refused={"v0001": "no"}), id="a_video_could_not_be_recovered"),
        pytest.param(World(on={("candidates", 1): raising(unavailable())}), id="a_service_is_down"),
        pytest.param(World(on={("candidates", 1): raising(KeyError("a defect"))}), id="the_program_has_a_defect"),
    ],
)
async def test_a_single_scan_fails_if(play, world):
    play.world = world

    assert not await Standalone(play.load, [], lambda: NOW).scan_once()


async def test_a_single_scan_runs_while_the_policy_is_suspended(play):
    play.world = World(rows(1))
    play.write(suspend=True)

    assert await Standalone(play.load, [], lambda: NOW).scan_once()

    assert play.world.created == ["v0000"]
