"""Policies carry no finalizer: whatever becomes of the controller, nothing that is deleted hangs."""

import asyncio
import json
import signal
from datetime import timedelta
from typing import Any

import kopf
import pytest

from controller.operator import handlers
from controller.operator.handlers import make_kopf_settings, make_registry
from controller.operator.settings import Settings
from tests.e2e.conftest import Namespace, run_controller
from tests.waiting import wait_for

OLD_FINALIZER = "recovery.captiona.cc/controller"


def finalizers(namespace: Namespace) -> list[str]:
    found: list[str] = namespace.get()["metadata"].get("finalizers", [])
    return found


def delete(namespace: Namespace) -> None:
    """Delete the policy; fails if it is not gone within 10 s."""
    namespace.kubectl("delete", "vrp/policy", "--timeout=10s")


def test_a_policy_never_has_a_finalizer_and_nobody_writes_to_it_but_its_status(namespace, controller, supabase):
    namespace.apply()
    namespace.wait_condition("Ready", "True")
    namespace.request()

    policy = json.loads(namespace.kubectl("get", "vrp/policy", "-o", "json", "--show-managed-fields"))

    assert "finalizers" not in policy["metadata"]
    writers = {(each["manager"], each.get("subresource")) for each in policy["metadata"]["managedFields"]}
    assert ("video-recovery", "status") in writers
    assert {manager for manager, subresource in writers if subresource is None} <= {
        "kubectl-client-side-apply",
        "kubectl-annotate",
    }


@pytest.mark.parametrize("end", ["runs", "stopped", "killed"])
def test_a_policy_is_gone_at_once_whatever_became_of_the_controller(namespace, kubeconfig, tmp_path, end):
    with run_controller(kubeconfig, tmp_path / "log", "--namespace", namespace.name) as controller:
        namespace.apply()
        namespace.wait_condition("Ready", "True")
        if end != "runs":
            controller.stop(signal.SIGKILL if end == "killed" else signal.SIGTERM)

        delete(namespace)


def test_a_policy_that_no_controller_ever_saw_is_gone_at_once(namespace):
    namespace.apply()

    delete(namespace)


def test_a_policy_made_anew_under_its_name_is_served(namespace, controller):
    namespace.apply()
    namespace.wait_condition("Ready", "True")
    delete(namespace)

    namespace.apply()

    namespace.wait_condition("Ready", "True")
    namespace.request()


# What an older version left


def may_patch(namespace: Namespace) -> None:
    """Give the controller's account the right to patch policies, which it is not installed with."""
    role = ("create", "role", "cleanup", "--verb=patch", "--resource=videorecoverypolicies.recovery.captiona.cc")
    namespace.kubectl(*role)
    namespace.kubectl(
        "create", "rolebinding", "cleanup", "--role=cleanup", "--serviceaccount=video-recovery:video-recovery"
    )


def leave_finalizer(namespace: Namespace, *others: str) -> None:
    patch = {"metadata": {"finalizers": [OLD_FINALIZER, *others]}}
    namespace.kubectl("patch", "vrp/policy", "--type=merge", "-p", json.dumps(patch))


@pytest.mark.parametrize("when", ["before_the_controller_starts", "while_the_controller_runs"])
def test_the_finalizer_of_an_older_version_is_taken_off_and_no_other(namespace, kubeconfig, tmp_path, when):
    may_patch(namespace)
    namespace.apply()
    if when == "before_the_controller_starts":
        leave_finalizer(namespace, "example.com/other")
    with run_controller(kubeconfig, tmp_path / "log", "--namespace", namespace.name) as controller:
        namespace.wait_condition("Ready", "True")
        if when == "while_the_controller_runs":
            leave_finalizer(namespace, "example.com/other")

        wait_for(lambda: finalizers(namespace) == ["example.com/other"], what="the old finalizer to be taken off")

        wait_for(lambda: "took off the finalizer" in controller.log, what="a line in the log")
        namespace.kubectl("patch", "vrp/policy", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')


def test_a_policy_that_is_being_deleted_is_let_go(namespace, kubeconfig, tmp_path):
    may_patch(namespace)
    namespace.apply()
    leave_finalizer(namespace)
    namespace.kubectl("delete", "vrp/policy", "--wait=false")

    with run_controller(kubeconfig, tmp_path / "log", "--namespace", namespace.name):
        namespace.kubectl("wait", "--for=delete", "vrp/policy", "--timeout=20s")


def test_without_the_right_to_take_it_off_it_says_what_a_person_can_do_and_works_on(namespace, controller):
    namespace.apply()
    leave_finalizer(namespace)

    namespace.wait_condition("Ready", "True")
    wait_for(lambda: OLD_FINALIZER in controller.log, what="a warning")
    namespace.request()

    assert controller.log.count(f"kubectl patch vrp policy -n {namespace.name} --type=merge") == 1
    assert finalizers(namespace) == [OLD_FINALIZER]
    namespace.kubectl("patch", "vrp", "policy", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    delete(namespace)


# Kopf's timers


class Ticks:
    """Stands in for the dispatcher, and counts kopf's ticks; an event comes as a dictionary, a tick does not."""

    def __init__(self) -> None:
        self.count = 0

    def enqueue_if_due(self, manifest: Any) -> None:
        self.count += not isinstance(manifest, dict)

    async def see(self, manifest: Any) -> None:
        pass

    async def wait(self, more: int = 3) -> None:
        wanted = self.count + more
        async with asyncio.timeout(60):
            while self.count < wanted:  # noqa: ASYNC110 - kopf ticks, and tells nobody
                await asyncio.sleep(0.05)


@pytest.fixture
def fast_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks that need no patience."""
    monkeypatch.setattr(handlers, "TICK", timedelta(seconds=0.1))


async def test_the_timer_of_a_policy_ends_when_the_policy_is_deleted(namespace, kubeconfig, fast_ticks):
    ticks, stop = Ticks(), asyncio.Event()
    operator = asyncio.create_task(
        kopf.operator(
            registry=make_registry(ticks, Settings(kubeconfig=kubeconfig), ticks.see),  # type: ignore[arg-type]
            settings=make_kopf_settings(),
            namespaces=[namespace.name],
            stop_flag=stop,
        )
    )
    try:
        await asyncio.to_thread(namespace.apply)
        await ticks.wait()
        await asyncio.to_thread(delete, namespace)
        await asyncio.sleep(1)  # a tick under way
        count = ticks.count
        await asyncio.sleep(2)
        assert ticks.count == count

        await asyncio.to_thread(namespace.apply)
        await ticks.wait()  # the same operator still ticks for others
    finally:
        stop.set()
        await operator
