"""What a scan concludes for a stuck video: one table, and what holds whatever the input."""

from dataclasses import replace
from datetime import timedelta
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.api.policy import PolicySpec
from controller.decisions.decision import Failure, FailureReason, Recover, Skip, SkipReason
from controller.flow_runs import RELEASED, Deployment
from controller.videos import Video
from tests.support import policy
from tests.unit.deciding import RECOVER, by_name, conclude, of_video, said
from tests.unit.fakes import DEPLOYMENT, MICROSECOND, earlier, flow_run, video

UUID = "6b2d1ef0-5a55-4a3c-9f3e-0f4f6d1a2b3c"
NO_WORKER = Deployment("deployment-1", "flow-1", "no worker polls work pool 'p'; start one", "NoWorkerReady")
MINUTES = timedelta(minutes=1)

AT_WORK = ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"]
OVER = ["COMPLETED", "FAILED", "CANCELLED", "CRASHED"]

NOT_STUCK = "not stuck"


def case(
    name: str, expected: str, subject: Video | None = None, spec: dict[str, Any] | None = None, **facts: Any
) -> Any:
    return pytest.param(subject or video(), spec or {}, facts, expected, id=name.replace(" ", "_"))


def ended(*ages: timedelta, state: str = "CRASHED", created: timedelta = MINUTES, **run: Any) -> dict[str, Any]:
    """Earlier recoveries of v1 that ended so long ago, each created so long before that; the last one has the tags."""
    tags = run.pop("tags", frozenset())
    runs = [flow_run("v1", state, ended=age, created=created, attempt=n, **run) for n, age in enumerate(ages, 1)]
    return {"v1": earlier(*runs[:-1], replace(runs[-1], tags=tags))}


ACTIVE, RECENT = SkipReason.ACTIVE_FLOW_RUN, SkipReason.RECENTLY_PROCESSED
HELD, OBSERVED, INVALID = SkipReason.DEPLOYMENT_NOT_READY, SkipReason.OBSERVE_MODE, FailureReason.INVALID_ROW
ABANDONED, QUARANTINED, BACKING_OFF = SkipReason.ABANDONED_RUN, SkipReason.QUARANTINED, SkipReason.BACKING_OFF
UPLOADING, UPLOAD_ABANDONED = SkipReason.UPLOAD_IN_PROGRESS, SkipReason.UPLOAD_ABANDONED

HOURS = timedelta(hours=1)
REPORT = {"stuck": {"abandonedRunAfter": "6h"}}
REPLACE = {"stuck": {"abandonedRunAfter": "6h", "abandonedRunAction": "Replace"}}
UPLOAD = {"upload": {"bucket": "videos", "objectPath": "{tenant_id}/{id}.mp4", "abandonedAfter": "24h"}}
SILENT = timedelta(hours=6) + MICROSECOND
"""As long as makes a run abandoned."""

TABLE = [
    # How old it is, and in which status
    case("recovers a video that nobody works on", RECOVER),
    case("recovers a video in the other status", RECOVER, video(status="uploading")),
    case("leaves alone a video in another status", NOT_STUCK, video(status="ready")),
    case("leaves alone a status that only resembles one", NOT_STUCK, video(status="Pending")),
    case("leaves alone a video of exactly the age", NOT_STUCK, video(age=10 * MINUTES)),
    case("recovers a video one microsecond over the age", RECOVER, video(age=10 * MINUTES + MICROSECOND)),
    case("leaves alone a video from the future", NOT_STUCK, video(age=-10 * MINUTES)),
    case(
        "leaves alone a video of exactly its own status' age",
        NOT_STUCK,
        video(age=30 * MINUTES),
        {"stuck": {"ageByStatus": {"pending": "30m"}}},
    ),
    case(
        "recovers a video one microsecond over its own status' age",
        RECOVER,
        video(age=30 * MINUTES + MICROSECOND),
        {"stuck": {"ageByStatus": {"pending": "30m"}}},
    ),
    case(
        "lets a status' own age be younger than the age",
        RECOVER,
        video(age=2 * MINUTES),
        {"stuck": {"ageByStatus": {"pending": "1m"}}},
    ),
    case(
        "lets another status' age be another's",
        NOT_STUCK,
        video(age=2 * MINUTES),
        {"stuck": {"ageByStatus": {"uploading": "1m"}}},
    ),
    # Runs that are at work
    *(case(f"skips a video with a {state} flow run", ACTIVE, runs=[flow_run("v1", state)]) for state in AT_WORK),
    *(
        case(
            f"recovers a video whose flow run {state} long ago",
            RECOVER,
            runs=[flow_run("v1", state, ended=60 * MINUTES)],
        )
        for state in OVER
    ),
    case("recovers a video while another one is worked on", RECOVER, runs=[flow_run("v2"), flow_run(None)]),
    case(
        "skips a video whose flow run spells its UUID in capitals",
        ACTIVE,
        video(UUID),
        runs=[flow_run(UUID.upper())],
    ),
    case(
        "skips a video that spells its UUID in capitals",
        ACTIVE,
        video(UUID.upper()),
        runs=[flow_run(UUID)],
    ),
    case("tells ids in text apart by their case", RECOVER, video("Abc"), runs=[flow_run("abc")]),
    case(
        "names the active run where another one ended just now",
        ACTIVE,
        runs=[flow_run("v1", "FAILED", ended=MINUTES), flow_run("v1")],
    ),
    # Runs that ended just now
    *(
        case(f"skips a video whose flow run {state} a moment ago", RECENT, runs=[flow_run("v1", state, ended=MINUTES)])
        for state in OVER
    ),
    case(
        "skips a video whose flow run ended one microsecond within the window",
        RECENT,
        runs=[flow_run("v1", "COMPLETED", ended=5 * MINUTES - MICROSECOND)],
    ),
    case(
        "recovers a video whose flow run ended exactly the window ago",
        RECOVER,
        runs=[flow_run("v1", "COMPLETED", ended=5 * MINUTES)],
    ),
    case(
        "recovers a video whose flow run ended one microsecond before the window",
        RECOVER,
        runs=[flow_run("v1", "COMPLETED", ended=5 * MINUTES + MICROSECOND)],
    ),
    case(
        "skips a video whose flow run ended by a clock that is ahead",
        RECENT,
        runs=[flow_run("v1", "COMPLETED", ended=-MINUTES)],
    ),
    case(
        "skips a video whose older and whose latest flow run ended",
        RECENT,
        runs=[flow_run("v1", "FAILED", ended=60 * MINUTES), flow_run("v1", "COMPLETED", ended=MINUTES)],
    ),
    case(
        "recovers at once after a run that ends now where the window is 0s",
        RECOVER,
        spec={"stuck": {"recentRunWindow": "0s"}},
        runs=[flow_run("v1", "COMPLETED", ended=timedelta(0))],
    ),
    case(
        "recovers at once after a run that ended during the scan where the window is 0s",
        RECOVER,
        spec={"stuck": {"recentRunWindow": "0s"}},
        runs=[flow_run("v1", "COMPLETED", ended=-MINUTES)],
    ),
    case(
        "skips a video with an active flow run also where the window is 0s",
        ACTIVE,
        spec={"stuck": {"recentRunWindow": "0s"}},
        runs=[flow_run("v1")],
    ),
    # Runs that are abandoned
    case("takes a run of exactly the time for active", ACTIVE, spec=REPORT, runs=[flow_run("v1", since=6 * HOURS)]),
    *(
        case(f"reports an abandoned {state} run", ABANDONED, spec=REPORT, runs=[flow_run("v1", state, since=SILENT)])
        for state in AT_WORK
    ),
    *(
        case(f"replaces an abandoned {state} run", RECOVER, spec=REPLACE, runs=[flow_run("v1", state, since=SILENT)])
        for state in AT_WORK
        if state != "CANCELLING"
    ),
    case(
        "asks no run to stop twice",
        ABANDONED,
        spec=REPLACE,
        runs=[flow_run("v1", since=SILENT), flow_run("v1", "CANCELLING", since=SILENT)],
    ),
    case("replaces no run of exactly the time", ACTIVE, spec=REPLACE, runs=[flow_run("v1", since=6 * HOURS)]),
    case("takes no run for abandoned where no time is set", ACTIVE, runs=[flow_run("v1", since=9999 * HOURS)]),
    case(
        "takes a run that gave a sign of life for active",
        ACTIVE,
        spec=REPLACE,
        runs=[flow_run("v1", since=SILENT, run_id="r")],
        alive=["r"],
    ),
    case(
        "hears no sign of life in another run's",
        ABANDONED,
        spec=REPORT,
        runs=[flow_run("v1", since=SILENT, run_id="r")],
        alive=["r2"],
    ),
    case(
        "takes a run of unknown times for active",
        ACTIVE,
        spec=REPLACE,
        runs=[replace(flow_run("v1"), since=None, created=None)],
    ),
    case(
        "takes a run that is to start later for active",
        ACTIVE,
        spec=REPLACE,
        runs=[flow_run("v1", "SCHEDULED", created=9 * HOURS, since=-HOURS)],
    ),
    case(
        "counts an abandoned run's silence and not its age",
        ACTIVE,
        spec=REPLACE,
        runs=[flow_run("v1", created=99 * HOURS, since=HOURS)],
    ),
    case(
        "leaves alone a video with an abandoned run and another at work",
        ACTIVE,
        spec=REPLACE,
        runs=[flow_run("v1", since=SILENT), flow_run("v1", "PENDING")],
    ),
    case(
        "takes an old run that ended for no abandoned one",
        RECOVER,
        spec=REPORT,
        runs=[flow_run("v1", "FAILED", ended=60 * MINUTES, since=SILENT)],
    ),
    case("looks for no abandoned run of another video", RECOVER, spec=REPORT, runs=[flow_run("v2", since=SILENT)]),
    case(
        "reports an abandoned run also to a request by name",
        ABANDONED,
        spec=REPORT,
        runs=[flow_run("v1", since=SILENT)],
        request=by_name(),
    ),
    # Attempts that are used up
    case("recovers a video a third time", RECOVER, recoveries=ended(9 * HOURS, 8 * HOURS)),
    case("quarantines a video after three attempts", QUARANTINED, recoveries=ended(9 * HOURS, 8 * HOURS, 7 * HOURS)),
    *(
        case(
            f"quarantines a video whose last attempt {state}",
            QUARANTINED,
            recoveries=ended(9 * HOURS, 8 * HOURS, 7 * HOURS, state=state),
        )
        for state in OVER
    ),
    case(
        "quarantines a video after one attempt where one is allowed",
        QUARANTINED,
        spec={"retry": {"maxAttempts": 1}},
        recoveries=ended(9 * HOURS),
    ),
    case(
        "recovers a video whose first attempt was created exactly the window ago",
        RECOVER,
        recoveries=ended(72 * HOURS - MINUTES, 8 * HOURS, 7 * HOURS),
    ),
    case(
        "quarantines a video whose first attempt was created one microsecond within the window",
        QUARANTINED,
        recoveries=ended(72 * HOURS - MINUTES - MICROSECOND, 8 * HOURS, 7 * HOURS),
    ),
    case(
        "recovers a video of many attempts before the window",
        RECOVER,
        recoveries=ended(*(n * 100 * HOURS for n in range(9, 0, -1))),
    ),
    case(
        "recovers a quarantined video that is asked for by name",
        RECOVER,
        recoveries=ended(9 * HOURS, 8 * HOURS, 7 * HOURS),
        request=by_name(),
    ),
    case(
        "recovers a video again after its release",
        RECOVER,
        recoveries=ended(9 * HOURS, 8 * HOURS, 7 * HOURS, 6 * HOURS, tags=frozenset({RELEASED})),
    ),
    case(
        "knows no other tag for a release",
        QUARANTINED,
        recoveries=ended(9 * HOURS, 8 * HOURS, 7 * HOURS, 6 * HOURS, tags=frozenset({"recovery"})),
    ),
    case("quarantines no video for another's attempts", RECOVER, video("v2"), recoveries=ended(*[7 * HOURS] * 3)),
    # Attempts that ended too recently; how long exactly is said in test_attempts.py
    case("backs off within the shortest wait", BACKING_OFF, recoveries=ended(12 * MINUTES)),
    case("recovers a video after the longest wait", RECOVER, recoveries=ended(15 * MINUTES)),
    *(
        case(f"backs off after an attempt that {state}", BACKING_OFF, recoveries=ended(9 * MINUTES, state=state))
        for state in OVER
    ),
    case("backs off twice as long after a second attempt", BACKING_OFF, recoveries=ended(9 * HOURS, 24 * MINUTES)),
    case("recovers a video after twice the wait", RECOVER, recoveries=ended(9 * HOURS, 30 * MINUTES)),
    case(
        "backs off no longer than the longest wait",
        RECOVER,
        spec={"retry": {"maxBackoff": "20m"}},
        recoveries=ended(9 * HOURS, 20 * MINUTES),
    ),
    case("waits for nothing when asked by name", RECOVER, recoveries=ended(MINUTES), request=by_name()),
    case("backs off no video for another's attempt", RECOVER, video("v2"), recoveries=ended(9 * MINUTES)),
    # Its file
    case("recovers a video whose file is there", RECOVER, spec=UPLOAD, uploaded=["tenant/v1.mp4"]),
    case("waits for a file that is not there", UPLOADING, spec=UPLOAD),
    case("takes another's file for none", UPLOADING, spec=UPLOAD, uploaded=["tenant/v2.mp4", "v1.mp4"]),
    case("waits for a file for exactly the time", UPLOADING, video(age=24 * HOURS), UPLOAD),
    case("gives a file up one microsecond later", UPLOAD_ABANDONED, video(age=24 * HOURS + MICROSECOND), UPLOAD),
    case(
        "recovers an old video whose file is there",
        RECOVER,
        video(age=999 * HOURS),
        UPLOAD,
        uploaded=["tenant/v1.mp4"],
    ),
    case("looks at no file where nobody asked for that", RECOVER, video(age=999 * HOURS)),
    case("waits for a file also when asked by name", UPLOADING, spec=UPLOAD, request=by_name()),
    case("fails a video whose file's path cannot be", INVALID, video(tenant_id="a/b"), UPLOAD),
    case("fails an old video whose file's path cannot be", INVALID, video(tenant_id=None, age=99 * HOURS), UPLOAD),
    # The deployment
    case("holds a video while the deployment is not ready", HELD, deployment=NO_WORKER),
    case(
        "recovers it all the same where the policy does not hold",
        RECOVER,
        spec={"prefect": {"holdUntilReady": False}},
        deployment=NO_WORKER,
    ),
    case("names the active run before the deployment", ACTIVE, runs=[flow_run("v1")], deployment=NO_WORKER),
    # The row
    case("fails a video whose tenant is null", INVALID, video(tenant_id=None)),
    case("fails a video whose tenant leads out of the path", INVALID, video(tenant_id="..")),
    case("fails a video whose id leads out of the path", INVALID, video("a/../b")),
    case(
        "recovers a video with a slash in its id where no parameter is a path",
        RECOVER,
        video("a/b"),
        {"prefect": {"parameters": {"tenant_id": "{tenant_id}", "storage_key": None}}},
    ),
    case(
        "says of a bad row with an active run that it is active", ACTIVE, video(tenant_id=None), runs=[flow_run("v1")]
    ),
    # Observe
    case("only observes in Observe mode", OBSERVED, spec={"mode": "Observe"}),
    case("says in Observe mode what speaks against it", ACTIVE, spec={"mode": "Observe"}, runs=[flow_run("v1")]),
    case("says in Observe mode that a row is bad", INVALID, video(tenant_id=None), {"mode": "Observe"}),
]


@pytest.mark.parametrize(("subject", "spec", "facts", "expected"), TABLE)
def test_decides(subject, spec, facts, expected):
    concluded = conclude([subject], full_spec(spec), **facts)

    assert [said(decision) for decision in concluded] == ([] if expected == NOT_STUCK else [str(expected)])


@pytest.mark.parametrize(("subject", "spec", "facts", "expected"), TABLE)
def test_decides_the_same_when_it_only_observes(subject, spec, facts, expected):
    concluded = conclude([subject], full_spec({**spec, "mode": "Observe"}), **facts)

    observed = OBSERVED if expected == RECOVER else expected
    assert [said(decision) for decision in concluded] == ([] if expected == NOT_STUCK else [str(observed)])


def full_spec(changes: dict[str, Any]) -> PolicySpec:
    prefect = changes.get("prefect", {})
    if "parameters" in prefect:  # what a policy writes there replaces the default as a whole
        kept = {name: template for name, template in prefect["parameters"].items() if template is not None}
        changes = {**changes, "prefect": {**prefect, "parameters": {"video_id": "{id}", **kept}}}
    return policy(**changes).spec


# Of several reasons the first is named


def objecting(*reasons: str) -> tuple[dict[str, Any], dict[str, Any], Video]:
    """A spec, facts and a video to which all of these reasons apply."""
    last_attempt = MINUTES if BACKING_OFF in reasons else 9 * HOURS
    runs = {
        ACTIVE: flow_run("v1", "PENDING"),
        ABANDONED: flow_run("v1", since=SILENT),
        RECENT: flow_run("v1", "FAILED", ended=MINUTES),
    }
    attempts = ended(*([9 * HOURS] * 2 if QUARANTINED in reasons else []), last_attempt)
    facts = {
        "runs": [run for reason, run in runs.items() if reason in reasons],
        "recoveries": attempts if {QUARANTINED, BACKING_OFF} & set(reasons) else {},
        "deployment": NO_WORKER if HELD in reasons else DEPLOYMENT,
    }
    spec: dict[str, Any] = {**REPORT, "mode": "Observe" if OBSERVED in reasons else "Enforce"}
    if UPLOADING in reasons:
        spec["upload"] = {"bucket": "videos", "objectPath": "{id}.mp4"}
    return spec, facts, video(tenant_id=None) if INVALID in reasons else video()


PRECEDENCE = [ACTIVE, ABANDONED, RECENT, QUARANTINED, BACKING_OFF, HELD, UPLOADING, INVALID, OBSERVED]


@pytest.mark.parametrize(("first", "second"), list(combinations(PRECEDENCE, 2)), ids=str)
def test_names_the_reason_that_takes_precedence(first, second):
    def named(*reasons: str) -> str:
        spec, facts, subject = objecting(*reasons)
        [decision] = conclude([subject], policy(**spec).spec, **facts)
        return said(decision)

    assert named(first, second) == named(first) == first
    assert named(second) == second


# What a decision carries


def test_a_recovery_carries_the_parameters_from_its_row():
    [decision] = conclude([video("v7", tenant_id="t3")], policy().spec)

    assert isinstance(decision, Recover)
    assert decision.parameters == {
        "video_id": "v7",
        "tenant_id": "t3",
        "storage_key": "t3/client/videos/v7/video.mp4",
    }


def test_the_first_recovery_of_a_video_is_attempt_1():
    [decision] = conclude([video()], policy().spec)

    assert isinstance(decision, Recover)
    assert decision.attempt == 1


def test_the_next_recovery_is_one_attempt_more_than_the_highest():
    ended = [flow_run("v1", "CRASHED", ended=timedelta(days=n), run_id=f"r{n}") for n in (2, 1)]

    [decision] = conclude([video()], policy().spec, recoveries={"v1": tuple(reversed(earlier(*ended)))})

    assert isinstance(decision, Recover)
    assert decision.attempt == 3


def test_a_recovery_carries_the_abandoned_runs_of_its_video_that_it_replaces():
    mine = [flow_run("v1", since=SILENT), flow_run("v1", "PENDING", since=SILENT)]
    ended_run, others = flow_run("v1", "FAILED", ended=9 * HOURS), flow_run("v2", since=SILENT)

    [decision] = conclude([video()], policy(**REPLACE).spec, runs=[*mine, ended_run, others])

    assert isinstance(decision, Recover)
    assert decision.replaces == tuple(mine)


def test_a_recovery_replaces_nothing_where_nothing_is_abandoned():
    [decision] = conclude([video()], policy(**REPLACE).spec)

    assert isinstance(decision, Recover)
    assert decision.replaces == ()


def test_a_reported_run_says_how_long_it_has_been_silent_and_what_to_do():
    [decision] = conclude([video()], policy(**REPORT).spec, runs=[flow_run("v1", since=7 * HOURS + 5 * MINUTES)])

    assert isinstance(decision, Skip)
    assert decision.detail == (
        "flow run happy-fox is RUNNING without a sign of life for 7h5m; end it in Prefect if nothing works on it"
    )


def test_an_abandoned_upload_says_where_the_file_belongs_and_what_to_do():
    [decision] = conclude([video(age=25 * HOURS)], policy(**UPLOAD).spec)

    assert isinstance(decision, Skip)
    assert decision.detail == "no file tenant/v1.mp4 after 24h; upload it again"


def test_a_skip_names_the_flow_run_and_its_state():
    [decision] = conclude([video()], policy().spec, runs=[flow_run("v1", "PAUSED")])

    assert isinstance(decision, Skip)
    assert decision.detail == "flow run happy-fox is PAUSED"


def test_a_held_video_says_what_keeps_the_deployment():
    [decision] = conclude([video()], policy().spec, deployment=NO_WORKER)

    assert isinstance(decision, Skip)
    assert decision.detail == NO_WORKER.not_ready


def test_a_bad_row_names_the_column():
    [decision] = conclude([video(tenant_id=None)], policy().spec)

    assert isinstance(decision, Failure)
    assert "'tenant_id'" in decision.detail


def test_an_observed_video_says_which_attempt_it_would_be():
    before = earlier(flow_run("v1", "FAILED", ended=60 * MINUTES))

    [decision] = conclude([video()], policy(mode="Observe").spec, recoveries={"v1": before})

    assert isinstance(decision, Skip)
    assert "attempt 2" in decision.detail


# The limit


def aged(count: int, **columns: object) -> list[Video]:
    return [video(f"v{n}", age=timedelta(hours=100 - n), **columns) for n in range(count)]


@pytest.mark.parametrize(
    ("found", "recovered"),
    [
        pytest.param(2, 2, id="one_below_the_limit"),
        pytest.param(3, 3, id="exactly_the_limit"),
        pytest.param(4, 3, id="one_over_the_limit"),
        pytest.param(30, 3, id="far_over_the_limit"),
    ],
)
def test_recovers_the_oldest_videos_up_to_the_scans_limit(found, recovered):
    decisions = conclude(aged(found), policy(limits={"perScan": 3}).spec)

    assert [said(decision) for decision in decisions] == [RECOVER] * recovered + [SkipReason.OVER_SCAN_LIMIT] * (
        found - recovered
    )
    assert [decision.video.id for decision in decisions if isinstance(decision, Recover)] == [
        f"v{n}" for n in range(recovered)
    ]


def test_a_video_that_cannot_be_recovered_uses_none_of_the_limit():
    bad = video("bad", age=timedelta(hours=200), tenant_id=None)

    decisions = conclude([bad, *aged(4)], policy(limits={"perScan": 2}).spec, runs=[flow_run("v0"), flow_run("v2")])

    assert [said(decision) for decision in decisions] == [INVALID, ACTIVE, ACTIVE, RECOVER, RECOVER]


def test_observe_mode_keeps_to_the_limit_too():
    decisions = conclude(aged(3), policy(mode="Observe", limits={"perScan": 1}).spec)

    assert [said(decision) for decision in decisions] == [OBSERVED, *[SkipReason.OVER_SCAN_LIMIT] * 2]


def test_videos_of_one_age_go_by_their_ids():
    decisions = conclude([video("b"), video("a"), video("c")], policy(limits={"perScan": 2}).spec)

    assert [decision.video.id for decision in decisions if isinstance(decision, Recover)] == ["a", "b"]


# Whatever the input; what holds over repeated scans is in test_properties.py

IDS = [f"v{n}" for n in range(8)]
any_videos = st.lists(
    st.builds(
        video,
        st.sampled_from(IDS),
        age=st.integers(11, 15).map(lambda minutes: timedelta(minutes=minutes)),
        tenant_id=st.sampled_from(["t1", "t2", None, "../etc"]),
        status=st.sampled_from(["pending", "uploading"]),
    ),
    unique_by=lambda each: each.id,
)
active_runs = st.builds(
    flow_run,
    st.sampled_from([*IDS, None]),
    st.sampled_from(AT_WORK),
    since=st.integers(0, 12).map(lambda hours: hours * HOURS),
    run_id=st.sampled_from([f"r{n}" for n in range(8)]),
)
ended_runs = st.builds(
    flow_run,
    st.sampled_from([*IDS, None]),
    st.sampled_from(OVER),
    ended=st.integers(0, 20).map(lambda minutes: timedelta(minutes=minutes)),
)
any_facts = st.fixed_dictionaries(
    {
        "runs": st.lists(active_runs | ended_runs, max_size=8),
        "recoveries": st.dictionaries(
            st.sampled_from(IDS),
            st.lists(ended_runs, min_size=1, max_size=3).map(lambda runs: earlier(*runs)),
            max_size=4,
        ),
        "alive": st.sets(st.sampled_from([f"r{n}" for n in range(8)])),
        "uploaded": st.sets(st.sampled_from([f"{tenant}/{each}.mp4" for tenant in ("t1", "t2") for each in IDS])),
        "deployment": st.sampled_from([DEPLOYMENT, DEPLOYMENT, NO_WORKER]),
    }
)
SPECS = [
    policy(mode=mode, limits={"perScan": limit}, **more).spec
    for mode in ("Enforce", "Observe")
    for limit in (1, 2, 5)
    for more in ({}, REPORT, REPLACE, UPLOAD)
]
whatever = given(videos=any_videos, facts=any_facts, spec=st.sampled_from(SPECS))
calmly = settings(max_examples=60)


@whatever
@calmly
def test_never_recovers_a_video_with_an_active_flow_run_that_it_does_not_replace(videos, facts, spec):
    active = {run for run in {run.id: run for run in facts["runs"]}.values() if run.active}

    for decision in conclude(videos, spec, **facts):
        if isinstance(decision, Recover):
            assert {run for run in active if run.video_id == decision.video.id} <= set(decision.replaces)


@whatever
@calmly
def test_never_recovers_more_than_the_limit_and_none_in_observe_mode(videos, facts, spec):
    recovered = [d for d in conclude(videos, spec, **facts) if isinstance(d, Recover)]

    assert len(recovered) <= (0 if spec.mode == "Observe" else spec.limits.per_scan)


@given(videos=any_videos, facts=any_facts, spec=st.sampled_from(SPECS), request=st.randoms())
@calmly
def test_the_order_of_the_input_does_not_matter(videos, facts, spec, request):
    shuffled = request.sample(videos, len(videos))

    assert conclude(shuffled, spec, **facts) == conclude(videos, spec, **facts)


@whatever
@calmly
def test_concludes_exactly_one_decision_for_each_video(videos, facts, spec):
    decided = [of_video(decision) for decision in conclude(videos, spec, **facts)]

    assert sorted(decided) == sorted(each.id for each in videos)


@whatever
@calmly
def test_those_who_are_left_alone_come_first_and_the_oldest_of_them_in_front(videos, facts, spec):
    decisions = conclude(videos, spec, **facts)
    in_line = {RECOVER, OBSERVED, SkipReason.OVER_SCAN_LIMIT}
    left_alone = [of_video(decision) for decision in decisions if said(decision) not in in_line]

    oldest_first = [each.id for each in sorted(videos, key=lambda each: (each.created_at, each.id))]
    assert left_alone == [video_id for video_id in oldest_first if video_id in left_alone]
    assert left_alone == [of_video(decision) for decision in decisions][: len(left_alone)]


@whatever
@calmly
def test_nothing_over_the_limit_is_older_than_what_is_recovered(videos, facts, spec):
    decisions = conclude(videos, spec, **facts)
    in_line = {RECOVER, OBSERVED, SkipReason.OVER_SCAN_LIMIT}
    turns = [said(decision) for decision in decisions if said(decision) in in_line]
    first_late = turns.index(SkipReason.OVER_SCAN_LIMIT) if SkipReason.OVER_SCAN_LIMIT in turns else len(turns)

    assert set(turns[first_late:]) <= {SkipReason.OVER_SCAN_LIMIT}
    assert first_late == min(spec.limits.per_scan, len(turns)), "the budget is used up before anybody waits"


@whatever
@calmly
def test_never_gives_two_videos_one_attempt_that_exists_already(videos, facts, spec):
    for decision in conclude(videos, spec, **facts):
        if isinstance(decision, Recover):
            known = [recovery.attempt for recovery in facts["recoveries"].get(decision.video.id, ())]
            assert decision.attempt == max(known, default=0) + 1


@given(
    good=st.integers(0, 20),
    bad=st.integers(0, 20),
    busy=st.integers(0, 20),
    limit=st.integers(1, 5),
    ages=st.randoms(),
)
@calmly
def test_repeated_scans_recover_every_video_that_can_be(good, bad, busy, limit, ages):
    spec = policy(limits={"perScan": limit}).spec
    waiting = [video(f"good{n}", age=ages.randint(11, 99) * MINUTES) for n in range(good)]
    stay = [video(f"bad{n}", age=ages.randint(11, 99) * MINUTES, tenant_id=None) for n in range(bad)]
    stay += [video(f"busy{n}", age=ages.randint(11, 99) * MINUTES) for n in range(busy)]
    runs = [flow_run(f"busy{n}") for n in range(busy)]
    scans = 0

    while waiting:
        decisions = conclude([*waiting, *stay], spec, runs=runs)
        recovered = {decision.video.id for decision in decisions if isinstance(decision, Recover)}
        assert recovered, "a scan with a video that can be recovered recovers one"
        waiting = [each for each in waiting if each.id not in recovered]
        scans += 1

    assert scans == -(-good // limit)
