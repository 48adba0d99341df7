"""What `doctor` asks of a cluster: API server, CRD, policy, controller, permissions. Reads only.

Each question returns what it saw and raises what is wrong with it; see `controller.cli.doctor.examination`.
"""

import asyncio
from collections.abc import Iterator
from datetime import datetime

from kubernetes.aio.client.exceptions import ApiException

from controller.adapters.kubernetes.cluster import Cluster, Manifest, api_path
from controller.api.crd import custom_resource_definition
from controller.api.manifest import read_status
from controller.api.names import GROUP, PLURAL, REQUESTED_AT, VERSION
from controller.api.status import ConditionType, PolicyStatus
from controller.cli.console import ago, moment
from controller.cli.doctor.examination import DoubtError, Examination, NotAskedError
from controller.cli.errors import Failed
from controller.cli.policies import find_policy, open_cluster
from controller.cli.program import program_name
from controller.operator.settings import FINALIZER, RECHECK
from controller.schedule import MAX_JITTER, ON_TIME, Schedule, request_token

SIGN_WITHIN = 5.0
"""Seconds that a controller is given to show that it is alive: it sees an edit or a request at once."""

POLL = 0.5
"""Seconds between two looks for such a sign."""

CRDS, CRD = "customresourcedefinitions", f"{PLURAL}.{GROUP}"
INSTALL = "kubectl apply --server-side -f manifests/crd.yaml"

ACCOUNT = "system:serviceaccount:video-recovery:video-recovery"
"""What the controller runs as where it is installed with manifests/rbac.yaml."""

YOURS = (
    ("get", PLURAL, "no command will work"),
    ("list", PLURAL, "commands need the NAME of a policy"),
    ("patch", PLURAL, "scan, release, suspend and resume will not work"),
    ("get", "secrets", "find, retry and explain will not work, nor the checks of the services here"),
)
"""What a person needs, and what comes of it if it is missing."""

ITS = {
    PLURAL: ("get", "list", "watch", "patch"),
    f"{PLURAL}/status": ("update",),
    "secrets": ("get",),
    "events": ("create", "get", "patch"),
}
"""What the controller needs; see manifests/rbac.yaml."""

_OWN, _OTHERS = "selfsubjectaccessreviews", "subjectaccessreviews"


async def api_server(it: Examination) -> str:
    """See whether there is a cluster, and which."""
    cluster = await it.stack.enter_async_context(open_cluster(it.where))
    version = await cluster.request("GET", "/version")
    it.cluster = cluster
    return f"{version.get('gitVersion', 'a Kubernetes that does not tell its version')} at {cluster.address}"


async def crd(it: Examination) -> str:
    """See whether the cluster knows policies, with the fields that this program knows."""
    cluster = it.the_cluster()
    try:
        there = await _definition(cluster)
    except ApiException as error:
        if error.status == 404:
            raise Failed(f"there is no {CRD}; install it with: {INSTALL}") from None
        raise
    if problem := none_served(there):
        raise Failed(f"{problem}; install it with: {INSTALL}")
    it.served = True
    if differences := differences_of(there):
        raise DoubtError(f"{CRD} is of another version: {differences}")
    return f"{CRD} serves {VERSION}"


async def _definition(cluster: Cluster) -> Manifest:
    """The CRD; ours, for somebody who may not read it and sees that it is served."""
    try:
        return await cluster.request("GET", api_path("apis/apiextensions.k8s.io/v1", None, CRDS, CRD))
    except ApiException as error:
        if error.status != 403:
            raise
    await cluster.request("GET", f"/apis/{GROUP}/{VERSION}")
    return {**custom_resource_definition(), "status": {"conditions": [{"type": "Established", "status": "True"}]}}


def none_served(there: Manifest) -> str | None:
    """Why nobody can write a policy although the CRD is there."""
    conditions = (there.get("status") or {}).get("conditions") or ()
    if not any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
        return f"{CRD} is not established, which passes or is a clash of names (kubectl describe crd {CRD})"
    if not _schema(there):
        return f"{CRD} does not serve {VERSION}"
    return None


def differences_of(there: Manifest) -> str:
    """Which fields of a spec the cluster does not know, or this program does not, and what to do; empty if none."""
    theirs, ours = (
        set(_fields(_schema(each).get("spec", {}), "spec")) for each in (there, custom_resource_definition())
    )
    lacks, more = sorted(ours - theirs), sorted(theirs - ours)
    parts = [f"it lacks {', '.join(lacks)}; update it with: {INSTALL}"] if lacks else []
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


async def policy(it: Examination) -> str:
    """See whether there is a policy, it is valid, and the controller has nothing against it."""
    cluster = it.the_cluster()
    if not it.served:
        raise NotAskedError("the cluster knows no policies")
    it.found = await find_policy(cluster, it.where)
    it.policy = it.found.policy
    spec = it.policy.spec
    Schedule(spec.schedule, spec.time_zone)
    name, seen = f"{it.policy.namespace}/{it.policy.name}", it.found.status
    stalled = seen.condition(ConditionType.STALLED)
    if stalled is not None and seen.observed_generation == it.policy.generation:
        raise Failed(f"{name} is Stalled: {stalled.message} (looked at again every {RECHECK.total_seconds():g} s)")
    return f"{name} is valid: schedule {spec.schedule} ({spec.time_zone}), mode {spec.mode}"


async def controller(it: Examination) -> str:
    """See whether a controller is alive and looks after the policy."""
    found, loop = it.the_found(), asyncio.get_running_loop()
    until = loop.time() + SIGN_WITHIN
    while (problem := missing_sign(found.manifest, now=it.now)) and loop.time() < until:
        await asyncio.sleep(POLL)
        it.found = found = await found.again()
    if problem:
        raise Failed(f"{problem}; start the controller with `video-recovery run`, or see what its log says")
    return "watches the policy and has seen its latest version"


def missing_sign(manifest: Manifest, *, now: datetime) -> str | None:
    """What a controller that is alive would have done, and nobody has done; there is no other sign of its life."""
    metadata, status = manifest["metadata"], read_status(manifest)
    token = request_token((metadata.get("annotations") or {}).get(REQUESTED_AT))
    if FINALIZER not in metadata.get("finalizers", ()):
        return "no controller watches the policy"
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


async def last_scan(it: Examination) -> str:
    """See whether scans come when they should, and the last one came to its end."""
    found = it.the_found()
    status, arguments = found.status, f"{found.key.name} -n {found.key.namespace}{it.where.cluster_arguments}"
    if _is_suspended(found.manifest):
        raise DoubtError(f"the schedule is suspended; take it up again with: {program_name()} resume {arguments}")
    planned, last = moment(status.next_schedule_time, now=it.now), status.last_scan
    if is_overdue(found.manifest, status, now=it.now):
        raise Failed(f"overdue since {planned}; see whether a controller is running")
    if last is not None and last.error is not None:
        ended = ago(it.now - last.completion_time)
        raise Failed(f"{ended}, ended early: {last.error}; once that is put right: {program_name()} scan {arguments}")
    if status.next_schedule_time is None:
        raise DoubtError("no scan is planned yet; the controller plans it once it has found the policy valid")
    before = f"the last one {moment(last.completion_time, now=it.now)}" if last else "none yet"
    return f"{before}, the next one {planned}"


async def your_permissions(it: Examination) -> str:
    """See whether the person who asks may do what the commands do."""
    cluster = it.the_cluster()
    lacking = [
        f"you may not {verb} {resource}: {result}"
        for verb, resource, result in YOURS
        if not await _may(cluster, _OWN, verb, resource, it.namespace)
    ]
    if lacking:
        raise DoubtError(f"in namespace {it.namespace} {'; '.join(lacking)}; ask for these rights")
    return f"in namespace {it.namespace} you may do all that the commands need"


async def its_permissions(it: Examination) -> str:
    """See whether the controller may do what it does, if it runs as the account that it is installed with."""
    cluster, lacking = it.the_cluster(), []
    try:
        for resource, needs in ITS.items():
            may = {each: await _may(cluster, _OTHERS, each, resource, it.namespace, user=ACCOUNT) for each in needs}
            if not all(may.values()):
                lacking.append(f"{' '.join(each for each in needs if not may[each])} {resource}")
    except ApiException as error:
        if error.status != 403:
            raise
        raise NotAskedError("you may not ask what others may do (create subjectaccessreviews)") from None
    if lacking:
        raise DoubtError(
            f"in namespace {it.namespace} {ACCOUNT} may not {', '.join(lacking)}; unless the controller runs as "
            "another account: kubectl apply -f manifests/rbac.yaml"
        )
    return f"in namespace {it.namespace} {ACCOUNT} may do all that it needs"


async def _may(cluster: Cluster, review: str, verb: str, resource: str, namespace: str, **who: str) -> bool:
    """Ask for a review; none is kept."""
    name, _, subresource = resource.partition("/")
    group = GROUP if name == PLURAL else ""
    what = {"namespace": namespace, "group": group, "resource": name, "subresource": subresource, "verb": verb}
    body = {"spec": {"resourceAttributes": what, **who}}
    answered = await cluster.request("POST", api_path("apis/authorization.k8s.io/v1", None, review), body)
    return bool(answered["status"]["allowed"])
