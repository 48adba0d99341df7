"""What holds over repeated scans, whatever people, workers and users do meanwhile.

A machine lets videos and flow runs come, go, fail and hang in any order, edits the policy, breaks scans off and kills
them, and after each scan checks the promises. That a scan never creates a second active run of a video is checked by
the world itself at each creation.
"""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from controller.api.policy import AbandonedRunAction, Mode
from controller.decisions.decision import Failure, Skip, SkipReason
from controller.flow_runs import RELEASED, FlowRun, StateType, is_recovery
from controller.outcome import Outcome, Recovered
from tests.support import policy
from tests.unit.controlling import FLOW, NO_WORKER, Controller, KilledError, slow_world
from tests.unit.fakes import DEPLOYMENT, SECOND, unavailable
from tests.world.world import World

MINUTE = timedelta(minutes=1)
WAITING = {SkipReason.OVER_TENANT_LIMIT, SkipReason.OVER_ACTIVE_LIMIT, SkipReason.OVER_SCAN_LIMIT}
REPLACED_IN_VAIN = {SkipReason.ABANDONED_RUN, SkipReason.RECENTLY_PROCESSED, SkipReason.ACTIVE_FLOW_RUN}

specs = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["Enforce", "Enforce", "Enforce", "Observe"]),
        "limits": st.fixed_dictionaries(
            {"perScan": st.integers(1, 6), "perTenant": st.integers(1, 3), "active": st.integers(1, 8)}
        ),
        "retry": st.fixed_dictionaries(
            {
                "maxAttempts": st.integers(1, 3),
                "window": st.sampled_from(["1h", "6h", "72h"]),
                "backoff": st.sampled_from(["1m", "20m"]),
                "maxBackoff": st.sampled_from(["20m", "1h"]),
            }
        ),
        "stuck": st.fixed_dictionaries(
            {
                "recentRunWindow": st.sampled_from(["0s", "5m"]),
                "abandonedRunAfter": st.sampled_from(["30m", "2h"]),
                "abandonedRunAction": st.sampled_from(["Report", "Replace", "Replace"]),
            }
        ),
        "upload": st.none() | st.just({"bucket": "videos", "objectPath": "{id}.mp4"}),
    }
)
picks = st.integers(0, 99)


def outcome_of(result: Any) -> str:
    return "Recovered" if isinstance(result, Recovered) else str(result.reason)


def results(outcome: Outcome) -> dict[str, str]:
    return {result.video_id: outcome_of(result) for result in outcome.results}


def fail(error: Exception) -> Callable[[], object]:
    def happen() -> None:
        raise error

    return happen


class RepeatedScans(RuleBasedStateMachine):
    """One policy and its services over some hours."""

    @initialize(spec=specs, skew=st.sampled_from([-40, 0, 40]), bulk=st.booleans())
    def set_up(self, spec: dict[str, Any], skew: int, bulk: bool) -> None:
        self.world = slow_world(skew=skew * SECOND, bulk=bulk)
        self.controller = Controller(self.world, policy(**spec))
        self.controller.check()
        self.by_hand: set[str] = set()
        self.asked_for: set[str] = set()
        for tenant in (0, 0, 0, 0, 0, 1, 1, 2):
            self.arrive(tenant, 60, has_file=True, is_bad=False)

    # What happens

    @rule(
        tenant=picks, minutes=st.integers(0, 600), has_file=st.booleans(), is_bad=st.sampled_from([False] * 5 + [True])
    )
    def arrive(self, tenant: int, minutes: int, has_file: bool, is_bad: bool) -> None:
        video_id = f"v{len(self.world.rows)}"
        self.world.upload(video_id, None if is_bad else f"t{tenant % 3}", minutes * MINUTE)
        if has_file:
            self.world.files.add(f"{video_id}.mp4")

    @rule(minutes=st.sampled_from([1, 10, 30, 60, 300]))
    def wait(self, minutes: int) -> None:
        self.world.now += minutes * MINUTE

    @rule(pick=picks)
    def file_arrives(self, pick: int) -> None:
        self.world.files.add(f"{self.some_video(pick)}.mp4")

    @rule(pick=picks, status=st.sampled_from(["ready", "pending", "uploading"]))
    def change_video(self, pick: int, status: str) -> None:
        self.world.set_status(self.some_video(pick), status)

    @rule(pick=picks)
    def delete_video(self, pick: int) -> None:
        self.world.delete(self.some_video(pick))

    @rule(pick=picks)
    def start(self, pick: int) -> None:
        self.change(pick, StateType.RUNNING)

    @rule(pick=picks, state=st.sampled_from(["PAUSED", "PENDING", "CANCELLING"]))
    def hang(self, pick: int, state: str) -> None:
        self.change(pick, StateType(state))

    @rule(pick=picks, state=st.sampled_from(["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]), leaves=st.booleans())
    def end(self, pick: int, state: str, leaves: bool) -> None:
        run = self.change(pick, StateType(state))
        if run is not None and leaves and run.video_id is not None:
            self.world.set_status(run.video_id, "ready")

    @rule()
    def crash_all_workers(self) -> None:
        self.world.stop_all_beats()
        self.world.deployment = NO_WORKER

    @rule()
    def workers_return(self) -> None:
        self.world.deployment = DEPLOYMENT

    @rule(pick=picks, beats=st.booleans())
    def beat(self, pick: int, beats: bool) -> None:
        run = self.some_active(pick)
        if run is not None:
            self.world.beat(run.id, goes_on=beats)

    @rule(pick=picks)
    def be_stubborn(self, pick: int) -> None:
        run = self.some_active(pick)
        if run is not None:
            self.world.stops[run.id] = "CANCELLING"

    @rule(pick=picks)
    def run_by_hand(self, pick: int) -> None:
        self.by_hand.add(self.world.begin(self.some_video(pick)))

    @rule(pick=picks)
    def retry_by_hand(self, pick: int) -> None:
        ended = [run for run in self.world.runs.values() if not run.active]
        if ended:
            run = ended[pick % len(ended)]
            self.world.become(run.id, StateType.SCHEDULED)
            self.by_hand.add(run.id)

    @rule(spec=specs)
    def edit(self, spec: dict[str, Any]) -> None:
        self.controller.policy = policy(**spec)

    # Scans

    @rule()
    def scan(self) -> None:
        watching, turned = self.beside(mode=Mode.OBSERVE), self.beside()
        turned.world.rows.reverse()

        outcome = self.scan_and_check()

        assert outcome is not None
        self.check_order_of_input(outcome, turned)
        self.check_observing(outcome, watching)

    @rule()
    def scan_after_a_while(self) -> None:
        self.world.now += 15 * MINUTE
        self.scan()

    @rule(minutes=st.sampled_from([5, 30, 70]))
    def scan_after_all_recoveries_crashed(self, minutes: int) -> None:
        for run in list(self.world.runs.values()):
            if run.active and is_recovery(run, FLOW):
                self.world.become(run.id, StateType.CRASHED)
        self.world.now += minutes * MINUTE
        self.scan()

    @rule(pick=picks, stubborn=st.booleans(), beats=st.booleans())
    def scan_after_all_runs_hung(self, pick: int, stubborn: bool, beats: bool) -> None:
        for run in list(self.world.runs.values()):
            if run.active:
                self.world.become(run.id, StateType.RUNNING)
        self.beat(pick, beats)
        if stubborn:
            self.be_stubborn(pick)
        self.world.deployment = DEPLOYMENT
        self.world.now += timedelta(hours=3)
        self.scan()

    @rule(pick=picks)
    def request(self, pick: int) -> None:
        video_id = self.some_video(pick)
        self.asked_for.add(video_id)
        outcome = self.scan_and_check(video_id)
        assert outcome is not None
        assert set(results(outcome)) <= {video_id}

    @rule(question=st.integers(0, 14), kills=st.booleans())
    def scan_that_breaks_off(self, question: int, kills: bool) -> None:
        self.world.happens[question] = fail(KilledError() if kills else unavailable())
        self.scan_and_check()

    @rule(question=st.integers(2, 9), pick=picks)
    def scan_while_somebody_runs_a_video_by_hand(self, question: int, pick: int) -> None:
        self.world.happens[question] = lambda: self.run_by_hand(pick)
        self.scan_and_check()

    @rule(question=st.integers(0, 9), pick=picks, what=st.sampled_from(["end", "leave", "delete", "start"]))
    def scan_while_something_happens(self, question: int, pick: int, what: str) -> None:
        happen: dict[str, Callable[[], object]] = {
            "end": lambda: self.end(pick, "FAILED", leaves=False),
            "leave": lambda: self.change_video(pick, "ready"),
            "delete": lambda: self.delete_video(pick),
            "start": lambda: self.start(pick),
        }
        self.world.happens[question] = happen[what]
        self.scan_and_check()

    @rule(question=st.integers(0, 9), hours=st.sampled_from([0, 3]))
    def scan_while_another_controller_scans(self, question: int, hours: int) -> None:
        """The limits are then each controller's own; that no video is at work twice is everybody's."""
        self.world.now += timedelta(hours=hours)
        other = replace(self.controller, announced=[])

        def at_once() -> None:
            with ThreadPoolExecutor(1) as thread:  # a loop of its own
                thread.submit(other.scan).result()

        self.world.happens[question] = at_once
        self.controller.scan()

    def scan_and_check(self, video_id: str | None = None) -> Outcome | None:
        world, allowance, flying = self.world, self.controller.status.ramp_up, self.world.in_flight()
        runs_before, writes_before = set(world.runs), len(world.writes)

        outcome = self.controller.scan(video_id)

        created = [run for run_id, run in world.runs.items() if run_id not in runs_before and is_recovery(run, FLOW)]
        self.check_limits(created, allowance, flying)
        self.check_writes(world.writes[writes_before:])
        for run in created:
            self.check_attempts(run)
            assert self.controller.policy.spec.upload is None or f"{run.video_id}.mp4" in world.files
        if outcome is not None:
            self.check_results(outcome)
        return outcome

    # What has to hold

    def check_limits(self, created: list[FlowRun], allowance: int | None, flying: int) -> None:
        limits = self.controller.policy.spec.limits
        assert len(created) <= min(limits.per_scan, allowance or limits.per_scan)
        tenants = Counter(self.world.row(str(run.video_id))["tenant_id"] for run in created)
        assert max(tenants.values(), default=0) <= limits.per_tenant
        assert self.world.in_flight() <= max(limits.active, flying)

    def check_writes(self, writes: list[str]) -> None:
        spec = self.controller.policy.spec
        may_stop = spec.stuck.abandoned_run_action is AbandonedRunAction.REPLACE
        if spec.mode is Mode.OBSERVE or self.world.deployment.not_ready:
            assert writes == []
        assert may_stop or not [write for write in writes if write.startswith("stop")]

    def check_attempts(self, run: FlowRun) -> None:
        """As many within the window as are allowed; more only where somebody asked for the video by name."""
        retry = self.controller.policy.spec.retry
        recoveries = self.world.recoveries(str(run.video_id))
        assert [recovery.attempt for recovery in recoveries] == list(range(1, len(recoveries) + 1))
        assert recoveries[-1].run == run
        assert run.created is not None
        horizon = run.created - retry.window + 2 * MINUTE  # the scan took a while, and the clocks differ
        recent = [each.run for each in recoveries if each.run.created and each.run.created > horizon]
        released = [number for number, each in enumerate(recent) if RELEASED in each.tags]
        assert len(recent[released[-1] :] if released else recent) <= retry.max_attempts
        assert run.video_id in self.asked_for or not released

    def check_results(self, outcome: Outcome) -> None:
        """Exactly one for each stuck video that is still one, and for each row that cannot be read."""
        counts = Counter(result.video_id for result in outcome.results)
        assert set(counts.values()) <= {1}
        assert set(counts) == {video.id for video in outcome.stuck or ()}

    def check_order_of_input(self, outcome: Outcome, turned: Controller) -> None:
        other = turned.scan()
        assert other is not None
        assert list(results(other).items()) == list(results(outcome).items())
        assert turned.world.writes == self.world.writes

    def check_observing(self, outcome: Outcome, watching: Controller) -> None:
        """The same decisions but for what creating brings to light, and not one write."""
        before = list(watching.world.writes)
        other = watching.scan()
        assert other is not None
        assert watching.world.writes == before
        done, seen = results(outcome), results(other)
        assert set(done) == set(seen)
        for video_id, reason in seen.items():
            if reason != SkipReason.OBSERVE_MODE:
                assert done[video_id] == reason
            elif self.controller.policy.spec.mode is Mode.ENFORCE:
                assert done[video_id] == "Recovered" or done[video_id] in REPLACED_IN_VAIN

    @invariant()
    def no_video_has_two_active_recoveries(self) -> None:
        for video_id in self.videos():
            active = [run for run in self.world.active(video_id) if run.id not in self.by_hand]
            assert len(active) <= 1

    @invariant()
    def the_totals_make_sense(self) -> None:
        totals = self.controller.status.totals
        assert 0 <= totals.confirmed + totals.failed <= totals.recovered
        assert min(totals.confirmed, totals.failed) >= 0
        assert totals.recovered <= sum(is_recovery(run, FLOW) for run in self.world.runs.values())

    # Help

    def beside(self, *, mode: Mode | None = None) -> Controller:
        """The same controller in a world of its own."""
        spec = self.controller.policy.spec
        changed = spec if mode is None else spec.model_copy(update={"mode": mode})
        return replace(
            self.controller, world=self.world.copy(), policy=replace(self.controller.policy, spec=changed), announced=[]
        )

    def change(self, pick: int, state: StateType) -> FlowRun | None:
        run = self.some_active(pick)
        if run is not None:
            self.world.become(run.id, state)
        return run

    def some_active(self, pick: int) -> FlowRun | None:
        active = [run for run in self.world.runs.values() if run.active]
        return active[pick % len(active)] if active else None

    def some_video(self, pick: int) -> str:
        return self.videos()[pick % len(self.world.rows)]

    def videos(self) -> list[str]:
        return [str(row["id"]) for row in self.world.rows]


RepeatedScans.TestCase.settings = settings(max_examples=50, stateful_step_count=30)
TestRepeatedScans = RepeatedScans.TestCase


# Nobody starves

HOPELESS = ["no tenant", "no file", "always at work"]


@given(
    videos=st.lists(
        st.tuples(st.integers(0, 3), st.integers(11, 999), st.sampled_from(["crashes", "crashes", "works", *HOPELESS])),
        min_size=1,
        max_size=12,
    ),
    newcomers=st.integers(0, 3),
    limits=st.fixed_dictionaries(
        {"perScan": st.integers(1, 3), "perTenant": st.integers(1, 2), "active": st.integers(1, 3)}
    ),
)
@settings(max_examples=25)
def test_no_video_waits_for_more_scans_than_there_are_videos_in_front_of_it(videos, newcomers, limits):
    world = slow_world()
    spec = {
        "limits": limits,
        "stuck": {"recentRunWindow": "0s"},
        "retry": {"maxAttempts": 20, "backoff": "1m", "maxBackoff": "1m"},
        "upload": {"bucket": "videos", "objectPath": "{id}.mp4"},
    }
    controller = Controller(world, policy(**spec))
    for tenant, minutes, kind in videos:
        add(world, f"t{tenant}", minutes, kind)
    waits: dict[str, int] = {}
    in_front: dict[str, int] = {}

    for scan in range(16):
        outcome = controller.scan()
        assert outcome is not None
        for result in outcome.results:
            assert isinstance(result, Recovered | Failure | Skip)
            if not (isinstance(result, Skip) and result.reason in WAITING):
                waits.pop(result.video_id, None)
                continue
            waits[result.video_id] = waits.get(result.video_id, 0) + 1
            in_front.setdefault(result.video_id, 0)
            if waits[result.video_id] == 1:
                in_front[result.video_id] = len(outcome.stuck or ()) - 1
            assert waits[result.video_id] <= in_front[result.video_id]
        end_all(world)
        world.now += 15 * MINUTE
        for n in range(newcomers):
            add(world, f"t{(scan + n) % 5}", 11, "crashes")


def add(world: World, tenant: str, minutes: int, kind: str) -> None:
    """A video of some kind; its name says what becomes of its recoveries."""
    video_id = f"{kind} {len(world.rows)}"
    world.upload(video_id, None if kind == "no tenant" else tenant, minutes * MINUTE)
    if kind != "no file":
        world.files.add(f"{video_id}.mp4")
    if kind == "always at work":
        world.begin(video_id)


def end_all(world: World) -> None:
    """All recoveries end: some work, the others leave their videos stuck."""
    for run in list(world.runs.values()):
        if run.active and is_recovery(run, FLOW):
            works = str(run.video_id).startswith("works")
            world.become(run.id, StateType.COMPLETED if works else StateType.CRASHED)
            if works:
                world.set_status(str(run.video_id), "ready")
