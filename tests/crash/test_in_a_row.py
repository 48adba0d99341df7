"""Scans in a row, within a second: each recovery is counted once."""

from datetime import UTC, datetime

import pytest

from tests.crash.conftest import MakeLane
from tests.crash.dying import Plan
from tests.crash.play import Play

pytestmark = pytest.mark.crash

SCENES = 5


def test_a_recovery_is_counted_once_however_soon_the_next_scan_follows(make_lane: MakeLane):
    play = Play(make_lane("in-a-row"))
    with play.at_work():
        for _ in range(SCENES):
            act = play.begin(Plan())
            act.wait()
            act.again().wait()
            play.lane.prefect.wait_until_told(datetime.now(UTC))
            problems = act.again().problems()
            assert problems.pop("scans") == (3, 1)
            assert problems == {}, problems
    play.lane.assert_good_order()
