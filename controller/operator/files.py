"""One policy from files instead of a cluster: its store, and what notices that the files changed."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from typing_extensions import override

from controller.api.manifest import Manifest, PolicyKey, key_of, parse_policy
from controller.ports import PolicyEvent, PolicyStore, StatusChange

logger = logging.getLogger(__name__)


class FileStore(PolicyStore):
    """The policy that was read last, with a status that lives in memory.

    Writes nothing down for the next process: attempts are Prefect's to remember.
    """

    def __init__(self) -> None:
        self._manifest: Manifest = {}

    @property
    def manifest(self) -> Manifest:
        """The policy with its status, as an API server would have it."""
        return self._manifest

    def put(self, manifest: Mapping[str, object]) -> None:
        """Take a policy in place of the one before, as a new generation of it or, under another name, as a new one.

        Args:
            manifest: From a file, so its status and annotations mean nothing: nobody writes them while it runs.

        Raises:
            InvalidSpecError: It is no valid policy.
        """
        policy, before = parse_policy(manifest), self._manifest
        uid = f"{policy.namespace}/{policy.name}"  # jitter goes by it
        metadata = {"namespace": policy.namespace, "name": policy.name, "uid": uid, "generation": 1}
        self._manifest = {**manifest, "metadata": metadata, "status": {}}
        if before and key_of(before) == key_of(self._manifest):
            metadata["generation"] = before["metadata"]["generation"] + 1
            self._manifest["status"] = before["status"]

    @override
    async def read(self, key: PolicyKey) -> Manifest | None:
        return self._manifest if self._manifest and key_of(self._manifest) == key else None

    @override
    async def update_status(
        self, key: PolicyKey, compute: Callable[[Mapping[str, object]], Mapping[str, object]]
    ) -> StatusChange | None:
        manifest = await self.read(key)
        if manifest is None:
            return None
        change = StatusChange(manifest["status"], compute(manifest["status"]))
        self._manifest = {**manifest, "status": change.after}
        return change if change.after != change.before else None

    @override
    async def emit_event(self, key: PolicyKey, event: PolicyEvent) -> None:
        # Nobody lists Events here, and the log has told already.
        logger.debug("%s: %s: %s", key, event.reason, event.message)


class FileWatcher:
    """Notices that files changed, by what is in them: a mounted ConfigMap changes by a link to another folder."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._reported = self._last = self._digest()

    def changed(self, *, at_once: bool) -> bool:
        """Whether they differ from what this reported last; unless at once, after two looks that saw the same.

        Whoever writes a file may be half way, and a file that is replaced may be missing for a moment.
        """
        before, self._last = self._last, self._digest()
        if self._last == self._reported or (self._last != before and not at_once):
            return False
        self._reported = self._last
        return True

    def _digest(self) -> bytes:
        whole = hashlib.sha256()
        for path in self._paths:
            try:
                whole.update(hashlib.sha256(path.read_bytes()).digest())
            except OSError:
                whole.update(b"it cannot be read")
        return whole.digest()
