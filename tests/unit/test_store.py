"""The status of a policy in a cluster: computed from what is there, written once, whoever else writes meanwhile."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from controller.adapters.kubernetes.store import CONFLICTS, ClusterStore
from controller.api.manifest import Manifest, PolicyKey
from controller.errors import ClusterError
from controller.ports import StatusChange
from tests.unit.fakes import NOW

KEY = PolicyKey("shop", "videos", "uid-1")


class Cluster:
    """One policy; each write is answered by the next of the statuses, and then by success."""

    def __init__(self, *answers: int, lost: bool = False) -> None:
        self.answers, self.lost = list(answers), lost
        self.status: Mapping[str, object] = {"totals": 1}
        self.uid = "uid-1"
        self.writes = 0

    async def request(self, method: str, path: str, body: Any = None, **query: object) -> Manifest:
        if method == "GET":
            metadata = {"namespace": "shop", "name": "videos", "uid": self.uid, "resourceVersion": "1"}
            return {"metadata": metadata, "status": dict(self.status)}
        assert path.endswith("/videorecoverypolicies/videos/status")
        assert query == {"fieldManager": "video-recovery"}
        self.writes += 1
        if self.answers and (status := self.answers.pop(0)) != 200:
            if self.lost:
                self.status = body["status"]
            raise ClusterError(f"the API server answered {status}", status=status)
        self.status = body["status"]
        return {}


def store(cluster: Cluster) -> ClusterStore:
    return ClusterStore(cluster, lambda: NOW)  # type: ignore[arg-type]


def one_more(status: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"totals": status["totals"] + 1}


async def update(cluster: Cluster, compute: Callable[..., Mapping[str, Any]] = one_more) -> StatusChange | None:
    return await store(cluster).update_status(KEY, compute)


async def test_writes_what_is_computed_from_what_is_there():
    cluster = Cluster()

    assert await update(cluster) == StatusChange({"totals": 1}, {"totals": 2})
    assert cluster.status == {"totals": 2}


async def test_writes_nothing_where_nothing_changes():
    cluster = Cluster()

    assert await update(cluster, lambda status: status) is None
    assert cluster.writes == 0


async def test_computes_anew_when_somebody_else_wrote_in_between():
    cluster = Cluster(409, 409)

    assert await update(cluster) == StatusChange({"totals": 1}, {"totals": 2})
    assert cluster.writes == 3


async def test_does_not_count_twice_when_only_the_answer_was_lost():
    cluster = Cluster(409, lost=True)

    assert await update(cluster) == StatusChange({"totals": 1}, {"totals": 2})
    assert (cluster.status, cluster.writes) == ({"totals": 2}, 1)


async def test_gives_up_when_it_changes_all_the_time():
    cluster = Cluster(*[409] * 100)

    with pytest.raises(ClusterError, match="changes all the time"):
        await update(cluster)

    assert cluster.writes == CONFLICTS


@pytest.mark.parametrize("status", [403, 422, 500])
async def test_a_write_that_is_refused_is_an_error(status):
    with pytest.raises(ClusterError, match=str(status)):
        await update(Cluster(status))


async def test_writes_nothing_to_a_policy_that_is_gone_meanwhile():
    assert await update(Cluster(404)) is None


async def test_a_policy_of_the_same_name_that_came_after_it_is_another_one():
    cluster = Cluster()
    cluster.uid = "uid-2"

    assert await store(cluster).read(KEY) is None
    assert await update(cluster) is None
    assert cluster.writes == 0
