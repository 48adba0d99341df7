"""What the conditions of a policy say from one scan to the next."""

from datetime import timedelta

import pytest

from controller.api.status import Condition, ConditionType
from tests.support import policy
from tests.unit.controlling import NO_WORKER, Controller
from tests.unit.fakes import DEPLOYMENT, raising, unavailable
from tests.unit.scanning import leaves, rows
from tests.world.world import World

PREFECT, READY = ConditionType.PREFECT_REACHABLE, ConditionType.DEPLOYMENT_READY


def said(controller: Controller, kind: ConditionType) -> Condition:
    condition = controller.status.condition(kind)
    assert condition is not None
    return condition


def after_prefect_failed() -> Controller:
    """A controller whose scan found a stuck video and no Prefect."""
    controller = Controller(World(rows(1), on={("deployment", 1): raising(unavailable())}), policy())
    controller.check()
    controller.scan()
    assert said(controller, PREFECT).status == "False"
    return controller


def test_a_complaint_about_prefect_is_in_doubt_once_a_scan_had_no_reason_to_ask_it():
    controller = after_prefect_failed()

    leaves(controller.world, "v0000")
    controller.world.now += timedelta(minutes=15)
    controller.scan()

    condition = said(controller, PREFECT)
    assert (condition.status, condition.reason) == ("Unknown", "NotAsked")
    assert condition.message == "nothing was stuck in the last scan, so Prefect was not asked"
    assert condition.last_transition_time == controller.world.now
    assert said(controller, ConditionType.READY).status == "True"


def test_a_complaint_about_the_deployment_is_in_doubt_too():
    controller = Controller(World(rows(1), deployment=NO_WORKER), policy())
    controller.scan()
    assert said(controller, READY).status == "False"

    leaves(controller.world, "v0000")
    controller.scan()

    assert (said(controller, READY).status, said(controller, READY).reason) == ("Unknown", "NotAsked")
    assert said(controller, PREFECT).status == "True"


def test_a_scan_that_asked_prefect_again_takes_the_complaint_back():
    controller = after_prefect_failed()

    controller.scan()

    assert (said(controller, PREFECT).status, said(controller, PREFECT).reason) == ("True", "Answered")


@pytest.mark.parametrize("kind", [PREFECT, READY])
def test_what_was_well_is_not_doubted_by_a_scan_that_had_no_reason_to_ask(kind):
    controller = Controller(World(rows(1), deployment=DEPLOYMENT), policy())
    controller.scan()
    before = said(controller, kind)

    leaves(controller.world, "v0000")
    controller.scan()

    assert said(controller, kind) == before
    assert before.status == "True"
