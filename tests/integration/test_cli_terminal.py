"""The command line on a real terminal: prompts, a bar, colours, and Ctrl-C."""

import asyncio
import re

import pytest

from tests.integration.conftest import Scene
from tests.integration.test_cli_retry import recoveries
from tests.proxy import Proxy, at, held, serve, silence
from tests.support import stuck_videos
from tests.terminal import Terminal, masked, video_id
from tests.waiting import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def many(scene: Scene) -> Scene:
    """Five stuck videos: more than a few."""
    for number in range(1, 6):
        scene.insert(number)
    return scene


ALL = [video_id(number) for number in range(1, 6)]


def test_asks_before_it_retries_more_than_a_few_and_shows_which(many: Scene):
    terminal = Terminal("retry", env=many.env)
    terminal.wait_for("Trigger 5 flow runs? [y/N]: ")

    assert recoveries(many) == []
    assert all(f"• {each}  pending, <45m> ago, attempt 1" in masked(terminal.text) for each in ALL)
    terminal.child.sendline("y")
    assert terminal.end() == 0
    assert recoveries(many) == ALL
    assert "Triggering" in terminal.text
    assert "5/5" in terminal.text
    assert "Successfully triggered: 5" in terminal.text


@pytest.mark.parametrize("answer", ["n", ""])
def test_a_no_changes_nothing(many: Scene, answer):
    terminal = Terminal("retry", env=many.env)
    terminal.wait_for("[y/N]: ")
    terminal.child.sendline(answer)

    assert terminal.end() == 1
    assert "Nothing was triggered." in terminal.text
    assert recoveries(many) == []


def test_ctrl_c_at_the_question_changes_nothing_and_says_so(many: Scene):
    terminal = Terminal("retry", env=many.env)
    terminal.wait_for("[y/N]: ")
    terminal.child.sendintr()

    assert terminal.end() == 130
    assert "Successfully triggered: 0" in terminal.text
    assert "Traceback" not in terminal.text
    assert recoveries(many) == []


def test_does_not_ask_for_a_few(scene: Scene):
    scene.insert(1)
    terminal = Terminal("retry", env=scene.env)

    assert terminal.end() == 0
    assert "[y/N]" not in terminal.text
    assert recoveries(scene) == [video_id(1)]


def test_does_not_ask_who_has_said_yes(many: Scene):
    terminal = Terminal("retry", "--yes", env=many.env)

    assert terminal.end() == 0
    assert "[y/N]" not in terminal.text
    assert recoveries(many) == ALL


def test_what_happens_while_a_person_thinks_is_seen(many: Scene):
    terminal = Terminal("retry", env=many.env)
    terminal.wait_for("[y/N]: ")
    many.works_on(ALL[0], "RUNNING")
    many.supabase.execute("update captionacc.videos set status = 'ready' where id = %s", [ALL[1]])
    terminal.child.sendline("y")

    assert terminal.end() == 0
    assert recoveries(many) == ALL[2:]
    assert f"Skipping video {ALL[0]}: ActiveFlowRun" in terminal.text
    assert "Total videos found:     4" in terminal.text


def test_is_in_colour_unless_somebody_minds(many: Scene):
    in_colour, plain = Terminal("find", env=many.env), Terminal("find", env={**many.env, "NO_COLOR": "1"})
    assert (in_colour.end(), plain.end()) == (0, 0)

    colours = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")
    assert colours.search(in_colour.raw)
    assert not colours.search(plain.raw)


def test_a_narrow_terminal_still_shows_each_id_whole(many: Scene):
    terminal = Terminal("find", env=many.env, columns=60)

    assert terminal.end() == 0
    assert [line.split()[0] for line in terminal.text.splitlines() if line.startswith("00000000-")] == ALL


@pytest.mark.xfail(reason="columns drop out of a table that is wider than the terminal", strict=True)
def test_a_narrow_terminal_still_says_what_a_scan_would_do(many: Scene):
    terminal = Terminal("find", env=many.env, columns=60)

    assert terminal.end() == 0
    assert [
        line for line in terminal.text.splitlines() if "recover (attempt 1)" in line and line.startswith(tuple(ALL))
    ]


# Ctrl-C at work

CREATIONS = at("create_flow_run")


async def second_batch(proxy: Proxy) -> None:
    """Wait until the second batch is on its way."""
    await asyncio.to_thread(wait_for, lambda: proxy.count(CREATIONS) == 2, what="the second batch")


async def test_ctrl_c_finishes_the_batch_and_says_what_was_done(scene: Scene):
    for tenant in ("acme", "globex", "initech"):
        stuck_videos(scene.supabase, 80, tenant_id=tenant)

    async with serve(scene.prefect.api_url.removesuffix("/api")) as proxy:
        proxy.treat(held, CREATIONS, after=1)
        terminal = Terminal("retry", "--yes", env={**scene.env, "PREFECT_API_URL": f"{proxy.url}/api"})
        await asyncio.to_thread(terminal.wait_for, "100/240")
        await second_batch(proxy)
        terminal.child.sendintr()
        await asyncio.to_thread(terminal.wait_for, "Ctrl-C: the batch under way is finished, then it ends")
        proxy.heal()

        assert await asyncio.to_thread(terminal.end) == 130
    assert len(recoveries(scene)) == 200
    assert "Successfully triggered: 200" in terminal.text
    assert "Interrupted 40" in terminal.text
    assert terminal.text.count("✓ Triggered flow run") == 200


async def test_a_second_ctrl_c_ends_at_once_and_nothing_is_doubled(scene: Scene):
    for tenant in ("acme", "globex"):
        stuck_videos(scene.supabase, 80, tenant_id=tenant)
    async with serve(scene.prefect.api_url.removesuffix("/api")) as proxy:
        proxy.treat(silence, CREATIONS, after=1)
        terminal = Terminal("retry", "--yes", env={**scene.env, "PREFECT_API_URL": f"{proxy.url}/api"})
        await asyncio.to_thread(terminal.wait_for, "100/160")
        await second_batch(proxy)
        terminal.child.sendintr()
        await asyncio.to_thread(terminal.wait_for, "press it again to end at once")
        terminal.child.sendintr()

        assert await asyncio.to_thread(terminal.end) == 130
    assert "Ended in the middle of a batch." in terminal.text
    assert "Traceback" not in terminal.text
    assert scene.run("retry").code == 0
    assert len(recoveries(scene)) == len(set(recoveries(scene))) == 160


async def test_ctrl_c_before_anything_is_created_ends_at_once(many: Scene):
    async with serve(many.prefect.api_url.removesuffix("/api")) as proxy:
        proxy.treat(silence)
        terminal = Terminal("retry", env={**many.env, "PREFECT_API_URL": f"{proxy.url}/api"})
        await asyncio.to_thread(terminal.wait_for, "Asking Supabase and Prefect")
        await asyncio.to_thread(wait_for, lambda: proxy.requests, what="a question to Prefect")
        terminal.child.sendintr()

        assert await asyncio.to_thread(terminal.end) == 130, terminal.text
    assert "Interrupted" in terminal.text
    assert "Traceback" not in terminal.text
    assert recoveries(many) == []
