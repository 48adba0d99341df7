"""`video-recovery find`, as a person at night uses it."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from syrupy.assertion import SnapshotAssertion

from tests.integration.conftest import Scene
from tests.support import DEPLOYMENT
from tests.terminal import PLUGIN, run, stable, video_id

pytestmark = pytest.mark.integration


def test_shows_the_stuck_videos_and_what_a_scan_would_do(night: Scene, snapshot: SnapshotAssertion):
    assert stable(night.run("find")) == snapshot


def test_shows_what_was_seen_when_there_is_room(night: Scene, snapshot: SnapshotAssertion):
    assert stable(night.run("find", "-o", "wide")) == snapshot


def test_says_so_when_nothing_is_stuck(scene: Scene, snapshot: SnapshotAssertion):
    assert stable(scene.run("find")) == snapshot


def test_writes_a_documented_object_for_programs(night: Scene):
    before = datetime.now(UTC)
    said = night.run("find", "--json")
    after = datetime.now(UTC)
    data = json.loads(said.out)

    assert list(data) == ["policy", "found", "videos"]
    assert data["found"] == len(data["videos"]) == 4
    assert {tuple(each) for each in data["videos"]} == {
        (
            *("id", "name", "status", "createdAt", "ageSeconds", "tenantId"),
            *("decision", "reason", "message", "attempt"),
        )
    }
    lecture, *others = data["videos"]
    assert (lecture["id"], lecture["decision"], lecture["reason"], lecture["attempt"]) == (
        *(video_id(1), "Recover", None),
        1,
    )
    created = datetime.fromisoformat(lecture["createdAt"])
    assert int((before - created).total_seconds()) <= lecture["ageSeconds"] <= int((after - created).total_seconds())
    assert before - created > timedelta(hours=5, minutes=12)
    assert [each["reason"] for each in others] == [None, "ActiveFlowRun", "RecentlyProcessed"]


def test_json_and_yaml_say_the_same(night: Scene):
    as_json = json.loads(night.run("find", "-o", "json").out)
    as_yaml = yaml.safe_load(night.run("find", "-o", "yaml").out)
    for data in (as_json, as_yaml):
        for each in data["videos"]:
            each.pop("ageSeconds")

    assert as_json == as_yaml


def test_an_empty_object_is_still_one(scene: Scene):
    assert json.loads(scene.run("find", "--json").out)["videos"] == []


def test_names_go_into_other_commands(night: Scene):
    assert night.run("find", "-o", "name").out.split() == [video_id(number) for number in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        pytest.param(["--status", "uploading"], [2], id="by_status"),
        pytest.param(["--tenant", "globex"], [1], id="by_tenant"),
        pytest.param(["--tenant", "globex", "--tenant", "acme", "--status", "pending"], [1, 3, 4], id="by_both"),
        pytest.param(["--age-minutes", "60"], [1], id="by_age"),
        pytest.param(["--age-minutes", "1"], [1, 2, 3, 4, 5], id="by_a_lower_age"),
    ],
)
def test_shows_a_choice(night: Scene, arguments, numbers):
    assert night.run("find", "-o", "name", *arguments).out.split() == [video_id(number) for number in numbers]


def test_the_hint_leads_to_the_same_videos(night: Scene):
    path = night.write_policy()

    said = night.run("find", "-f", str(path), "--age-minutes", "60")

    assert said.out.endswith(f"run:\n  video-recovery retry -f {path} --age-minutes 60\n")


def test_the_plugin_is_the_same_program(night: Scene):
    plain, plugin = night.run("find"), run("find", env=night.env, program=PLUGIN)

    assert plugin.out.replace("kubectl video-recovery", "video-recovery") == plain.out


def test_creates_and_changes_nothing(night: Scene):
    before = night.prefect.count_flow_runs()
    night.run("find")

    assert night.prefect.count_flow_runs() == before
    assert {request.method for request in night.supabase.requests} == {"GET"}


def test_keeps_to_the_policys_limits(night: Scene):
    path = night.write_policy(limits={"perScan": 1})

    data = json.loads(night.run("find", "-f", str(path), "--json").out)

    assert [each["reason"] for each in data["videos"]][:2] == [None, "OverScanLimit"]


def test_shows_names_that_would_break_a_screen_as_text(scene: Scene):
    scene.insert(1, display_path="[red]\x1b[2Ja\nb[/red] :bomb:")

    said = scene.run("find")

    assert "\x1b" not in said.out
    assert "[red]" in said.out
    assert ":bomb:" in said.out
    assert len(said.out.splitlines()) == 9


def test_a_row_that_cannot_be_read_is_shown_with_the_reason(scene: Scene):
    scene.insert(1, created_at="-infinity")
    scene.insert(2)

    videos = json.loads(scene.run("find", "--json").out)["videos"]

    assert [(each["decision"], each["reason"]) for each in videos] == [("Fail", "InvalidRow"), ("Recover", None)]


def test_has_colours_for_a_terminal_only(night: Scene):
    assert "\x1b" not in night.run("find").out


# Bad input


def test_a_deployment_that_prefect_lacks_is_named(scene: Scene, snapshot: SnapshotAssertion):
    scene.insert(1)
    path = scene.write_policy(prefect={"deployment": "no/such"})

    said = scene.run("find", "-f", str(path))

    assert said.code == 1
    assert "Error: spec.prefect.deployment: Prefect has no deployment 'no/such'" in said.err
    assert DEPLOYMENT not in said.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(["--status", "done"], "write uploading or pending", id="a_status_that_is_not_stuck"),
        pytest.param(["--age-minutes", "0"], "0 is not in the range 1<=x<=525600", id="no_age"),
        pytest.param(["--age-minutes", "ten"], "'ten' is not a valid int", id="an_age_in_words"),
        pytest.param(["-o", "csv"], "'json', 'yaml', 'wide', 'name'", id="another_form"),
        pytest.param(["--satus", "x"], "Did you mean '--status'?", id="a_typo"),
    ],
)
def test_wrong_use_says_what_to_write(scene: Scene, arguments, expected):
    said = scene.run("find", *arguments)

    assert said.code == 2
    assert expected in said.err
    assert said.err.splitlines()[-1].startswith("Error: ")
    assert len([line for line in said.err.splitlines() if not line.startswith("Settings: ")]) == 1
