"""The way to a policy's services: its Secrets are read anew for each scan, so that a rotated key works in the next."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from typing_extensions import override

from controller.adapters.credentials import Secret, prefect_credentials, supabase_credentials
from controller.adapters.prefect.server import authorization, open_server
from controller.adapters.supabase.table import open_supabase
from controller.api.manifest import Policy
from controller.ports import Clients, Services

ReadSecret = Callable[[str, str], Awaitable[Secret]]
"""Reads a Secret by its namespace and name."""


class LiveServices(Services):
    """Real clients for Supabase and Prefect.

    Args:
        read_secret: Raises `ConfigurationError` if there is no such Secret.
    """

    def __init__(self, read_secret: ReadSecret) -> None:
        self._read_secret = read_secret
        self._creation_locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @override
    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[Clients]:
        spec = policy.spec
        names = dict.fromkeys([spec.supabase.secret_ref.name, spec.prefect.secret_ref.name])
        secrets = {name: await self._read_secret(policy.namespace, name) for name in names}
        supabase = supabase_credentials(secrets[spec.supabase.secret_ref.name])
        prefect = prefect_credentials(secrets[spec.prefect.secret_ref.name])
        headers = authorization(prefect.api_key, prefect.auth_string)
        hidden = [prefect.api_key or "", prefect.auth_string or "", (prefect.auth_string or "").partition(":")[2]]
        for header in headers.values():
            hidden += [header, header.partition(" ")[2]]  # as they are sent
        async with (
            open_supabase(supabase.url, supabase.key, spec) as (table, store),
            open_server(prefect.url, headers, hidden, spec.prefect, self._creation_locks[prefect.url]) as server,
        ):
            yield Clients(table, server, store)
