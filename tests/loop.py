"""Proxies for tests that wait: an event loop in a thread of its own, and what such tests ask of it."""

import asyncio
import inspect
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import ParamSpec, TypeVar, overload

from tests import proxy
from tests.proxy import Proxy
from tests.waiting import PATIENCE

P = ParamSpec("P")
T = TypeVar("T")


class Loop:
    """A running event loop in another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    @classmethod
    @contextmanager
    def start(cls) -> Iterator["Loop"]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="proxies", daemon=True)
        thread.start()
        try:
            yield cls(loop)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    @overload
    def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...
    def call(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> object:
        """Call a function in the loop's thread, and wait for what it returns."""

        async def run() -> object:
            result = function(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(PATIENCE)

    @contextmanager
    def serve(self, upstream: str, tls: ssl.SSLContext | None = None) -> Iterator[Proxy]:
        """A proxy in this loop; only `call` may use it."""
        stack = AsyncExitStack()
        try:
            yield self.call(stack.enter_async_context, proxy.serve(upstream, tls))
        finally:
            self.call(stack.aclose)
