"""Where the programs of the control plane come from."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from devstack import cache
from devstack.errors import Unavailable

KUBERNETES = "1.36.3"
ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"
_NAME = "controlplane"
_MODULE = Path(__file__).with_name("gomodule")
_NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
_MAJOR, _MINOR, _ = KUBERNETES.split(".")
# helm and kubectl refuse to work with a server or a client that does not tell its version.
_STAMPS = [
    f"{package}.{variable}"
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    for variable in (f"gitVersion=v{KUBERNETES}", f"gitMajor={_MAJOR}", f"gitMinor={_MINOR}")
]
_LINKER_FLAGS = " ".join(["-s", "-w", *(f"-X {stamp}" for stamp in _STAMPS)])


@dataclass(frozen=True, slots=True)
class Programs:
    """The directory with `etcd`, `kube-apiserver`, `kubectl` and perhaps `kube-controller-manager`."""

    directory: Path

    def __getitem__(self, name: str) -> Path:
        """Return the path of a program.

        Raises:
            Unavailable: it is not among them.
        """
        program = self.directory / name
        if not program.exists():
            raise Unavailable(f"{name} is not in {self.directory}")
        return program


def find_programs() -> Programs:
    """Return the programs in `KUBEBUILDER_ASSETS`, or the ones built here, once, with Go (in up to ten minutes).

    Raises:
        Unavailable: neither is possible; the message says what to install.
    """
    check_obtainable()
    if assets := os.environ.get(ASSETS_VARIABLE):
        return Programs(Path(assets))
    return Programs(cache.build_once(_NAME, _key(), _build))


def check_obtainable() -> None:
    """Check, without building anything, whether `find_programs` has what it needs to begin.

    Raises:
        Unavailable: it has not; the message says what to install.
    """
    if assets := os.environ.get(ASSETS_VARIABLE):
        programs = Programs(Path(assets))
        for name in ("etcd", "kube-apiserver", "kubectl"):
            programs[name]
    elif not cache.is_built(_NAME, _key()):
        _go()


def _key() -> str:
    return cache.digest(*(_MODULE / name for name in ("go.mod", "go.sum", "main.go")), _LINKER_FLAGS)


def _go() -> str:
    go = shutil.which("go")
    if go is None:
        raise Unavailable(
            f"no control plane: install Go 1.26 or newer to build Kubernetes {KUBERNETES}, or set {ASSETS_VARIABLE}"
            " to a directory with etcd, kube-apiserver and kubectl"
        )
    return go


def _build(directory: Path) -> None:
    go = _go()
    binary = directory / "controlplane"
    scratch = directory / "scratch"
    scratch.mkdir()
    cache.run(
        [
            *(go, "build", "-C", _MODULE, "-trimpath", "-buildvcs=false"),
            *("-ldflags", _LINKER_FLAGS, "-o", binary, "."),
        ],
        cwd=directory,
        env={"CGO_ENABLED": "0", "GOWORK": "off", "GOTMPDIR": str(scratch)},  # so that a killed build leaves nothing
        advice=f"Building Kubernetes {KUBERNETES} takes Go 1.26 or newer, and its module proxy the first time.",
    )
    shutil.rmtree(scratch)
    for name in _NAMES:
        (directory / name).symlink_to(binary.name)
