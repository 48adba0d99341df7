"""Scans in a row, within a second: each recovery is counted once."""

from datetime import UTC, datetime

import pytest

from tests.crash.conftest import MakeSandbox
from tests.crash.crashing_controller import CrashPlan
from tests.crash.harness import Harness

pytestmark = pytest.mark.crash

SCENARIOS = 5


def test_a_recovery_is_counted_once_however_soon_the_next_scan_follows(make_sandbox: MakeSandbox):
    harness = Harness(make_sandbox("in-a-row"))
    with harness.at_work():
        for _ in range(SCENARIOS):
            requested = harness.begin(CrashPlan())
            requested.wait()
            requested.again().wait()
            harness.sandbox.prefect.wait_until_told(datetime.now(UTC))
            problems = requested.again().problems()
            assert problems.pop("scans") == (3, 1)
            assert problems == {}, problems
    harness.sandbox.assert_good_order()
