"""What `doctor` asks of a cluster: API server, CRD, policy, controller, permissions. Reads only.

Each check returns what it saw and raises what is wrong; see `controller.cli.doctor.context`.
"""

import asyncio
from collections.abc import Iterator
from datetime import datetime

from controller.adapters.kubernetes.access import CONTROLLER_RIGHTS, Right, describe_rights, missing_rights
from controller.adapters.kubernetes.client import Cluster, api_path
from controller.api.crd import custom_resource_definition
from controller.api.manifest import Manifest, read_status
from controller.api.names import CRD_NAME, GROUP, PLURAL, REQUESTED_AT, VERSION
from controller.api.status import ConditionType, PolicyStatus
from controller.cli.console import ago, moment
from controller.cli.doctor.context import CheckSkippedError, CheckWarningError, DoctorContext
from controller.cli.errors import Failed
from controller.cli.policies import INSTALL_CRD, find_policy, open_cluster
from controller.cli.program import program_name
from controller.errors import ClusterError
from controller.operator.settings import RECHECK
from controller.schedule import MAX_JITTER, ON_TIME, Schedule, request_token

SIGN_WITHIN = 5.0
"""Seconds that a controller is given to show that it is alive: it sees an edit or a request at once."""

POLL = 0.5
"""Seconds between two looks for such a sign."""


ACCOUNT = "system:serviceaccount:video-recovery:video-recovery"
"""What the controller runs as where it is installed with manifests/rbac.yaml."""

COMMAND_RIGHTS = {
    Right("get", PLURAL): "no command will work",
    Right("list", PLURAL): "commands need the NAME of a policy",
    Right("patch", PLURAL): "scan, release, suspend and resume will not work",
    Right("get", "secrets"): "find, retry and explain will not work, nor the checks of the services here",
}
"""What a person needs, and what comes of it if it is missing."""


async def api_server(context: DoctorContext) -> str:
    """Check whether there is a cluster, and which."""
    cluster = await context.stack.enter_async_context(open_cluster(context.where))
    version = await cluster.request("GET", "/version")
    context.cluster = cluster
    return f"{version.get('gitVersion', 'a Kubernetes that does not tell its version')} at {cluster.address}"


async def crd(context: DoctorContext) -> str:
    """Check whether the cluster knows policies, with the fields that this program knows."""
    cluster = context.require_cluster()
    try:
        there = await _definition(cluster)
    except ClusterError as error:
        if error.status == 404:
            raise Failed(f"there is no {CRD_NAME}", f"install it with: {INSTALL_CRD}") from None
        raise
    if problem := none_served(there):
        raise Failed(problem, f"install it with: {INSTALL_CRD}")
    context.served = True
    if differences := differences_of(there):
        raise CheckWarningError(f"{CRD_NAME} is of another version: {differences}")
    return f"{CRD_NAME} serves {VERSION}"


async def _definition(cluster: Cluster) -> Manifest:
    """The CRD; ours, for somebody who may not read it and sees that it is served."""
    try:
        return await cluster.request(
            "GET", api_path("apis/apiextensions.k8s.io/v1", None, "customresourcedefinitions", CRD_NAME)
        )
    except ClusterError as error:
        if error.status != 403:
            raise
    await cluster.request("GET", f"/apis/{GROUP}/{VERSION}")
    return {**custom_resource_definition(), "status": {"conditions": [{"type": "Established", "status": "True"}]}}


def none_served(there: Manifest) -> str | None:
    """Why nobody can write a policy although the CRD is there."""
    conditions = (there.get("status") or {}).get("conditions") or ()
    if not any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
        return f"{CRD_NAME} is not established, which passes or is a clash of names (kubectl describe crd {CRD_NAME})"
    if not _schema(there):
        return f"{CRD_NAME} does not serve {VERSION}"
    return None


def differences_of(there: Manifest) -> str:
    """Which fields of a spec the cluster does not know, or this program does not, and what to do; empty if none."""
    theirs, ours = (
        set(_fields(_schema(each).get("spec", {}), "spec")) for each in (there, custom_resource_definition())
    )
    lacks, more = sorted(ours - theirs), sorted(theirs - ours)
    parts = [f"it lacks {', '.join(lacks)}; update it with: {INSTALL_CRD}"] if lacks else []
    parts += [f"this program does not know {', '.join(more)}; update this program"] if more else []
    return "; ".join(parts)


def _schema(definition: Manifest) -> Manifest:
    """The properties of our version, if it is served."""
    for version in definition["spec"]["versions"]:
        if version["name"] == VERSION and version["served"]:
            properties: Manifest = version["schema"]["openAPIV3Schema"]["properties"]
            return properties
    return {}


def _fields(schema: Manifest, path: str) -> Iterator[str]:
    for name, field_schema in (schema.get("properties") or {}).items():
        yield f"{path}.{name}"
        yield from _fields(field_schema, f"{path}.{name}")


async def policy(context: DoctorContext) -> str:
    """Check whether there is a policy, it is valid, and the controller has nothing against it."""
    cluster = context.require_cluster()
    if not context.served:
        raise CheckSkippedError("the cluster knows no policies")
    context.found = await find_policy(cluster, context.where)
    context.policy = context.found.policy
    spec = context.policy.spec
    Schedule(spec.schedule, spec.time_zone)
    name, seen = f"{context.policy.namespace}/{context.policy.name}", context.found.status
    stalled = seen.condition(ConditionType.STALLED)
    if stalled is not None and seen.observed_generation == context.policy.generation:
        raise Failed(f"{name} is Stalled: {stalled.message} (looked at again every {RECHECK.total_seconds():g} s)")
    return f"{name} is valid: schedule {spec.schedule} ({spec.time_zone}), mode {spec.mode}"


async def controller(context: DoctorContext) -> str:
    """Check whether a controller runs and reconciles the policy."""
    found, loop = context.require_policy_object(), asyncio.get_running_loop()
    until = loop.time() + SIGN_WITHIN
    while (problem := missing_sign(found.manifest, now=context.now)) and loop.time() < until:
        await asyncio.sleep(POLL)
        context.found = found = await found.again()
    if problem:
        raise Failed(problem, "start the controller with `video-recovery run`, or see what its log says")
    return f"has seen the latest version of {found.key} and owes it nothing"


def missing_sign(manifest: Manifest, *, now: datetime) -> str | None:
    """What a controller that is alive would have done, and nobody has done; there is no other sign of its life."""
    metadata, status = manifest["metadata"], read_status(manifest)
    token = request_token((metadata.get("annotations") or {}).get(REQUESTED_AT))
    if not status.observed_generation:
        return "no controller has seen the policy"
    if status.observed_generation != metadata["generation"]:
        return "no controller has seen the latest version of the policy"
    if token is not None and token != status.last_handled_reconcile_at:
        return f"the scan that was asked for ({token}) has not been done yet"
    if is_overdue(manifest, status, now=now):
        return "no controller was there when the last scan was due"
    return None


def is_overdue(manifest: Manifest, status: PolicyStatus, *, now: datetime) -> bool:
    """Whether a scan should have run by now, as late as one may be, and has not."""
    planned = status.next_schedule_time
    return not _is_suspended(manifest) and planned is not None and planned < now - ON_TIME - MAX_JITTER


def _is_suspended(manifest: Manifest) -> bool:
    return bool(manifest["spec"].get("suspend"))


async def last_scan(context: DoctorContext) -> str:
    """Check whether scans come when they should, and the last one came to its end."""
    found = context.require_policy_object()
    status, arguments = found.status, f"{found.key.name} -n {found.key.namespace}{context.where.cluster_arguments}"
    if _is_suspended(found.manifest):
        raise CheckWarningError(
            f"the schedule is suspended; take it up again with: {program_name()} resume {arguments}"
        )
    planned, last = moment(status.next_schedule_time, now=context.now), status.last_scan
    if is_overdue(found.manifest, status, now=context.now):
        raise Failed(f"overdue since {planned}", "see whether a controller is running")
    if last is not None and last.error is not None:
        ended = ago(context.now - last.completion_time)
        raise Failed(f"{ended}, ended early: {last.error}; once that is put right: {program_name()} scan {arguments}")
    if status.next_schedule_time is None:
        raise CheckWarningError("no scan is planned yet; the controller plans it once it has found the policy valid")
    before = f"the last one {moment(last.completion_time, now=context.now)}" if last else "none yet"
    return f"{before}, the next one {planned}"


async def your_permissions(context: DoctorContext) -> str:
    """Check whether the person who asks may do what the commands do."""
    missing = await missing_rights(context.require_cluster(), COMMAND_RIGHTS, context.namespace)
    if missing:
        lacking = "; ".join(f"you may not {right.verb} {right.target}: {COMMAND_RIGHTS[right]}" for right in missing)
        raise CheckWarningError(f"in namespace {context.namespace} {lacking}; ask for these rights")
    return f"in namespace {context.namespace} you may do all that the commands need"


async def its_permissions(context: DoctorContext) -> str:
    """Check whether the controller may do what it does, if it runs as the account that it is installed with."""
    cluster, namespace = context.require_cluster(), context.namespace
    try:
        missing = await missing_rights(cluster, CONTROLLER_RIGHTS, namespace, user=ACCOUNT)
    except ClusterError as error:
        if error.status != 403:
            raise
        raise CheckSkippedError("you may not ask what others may do (create subjectaccessreviews)") from None
    if missing:
        raise CheckWarningError(
            f"in namespace {namespace} {ACCOUNT} may not {describe_rights(missing)}; unless the controller runs as "
            "another account: kubectl apply -f manifests/rbac.yaml"
        )
    return f"in namespace {namespace} {ACCOUNT} may do all that it needs"
