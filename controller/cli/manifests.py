"""Manifests in files, as a person passes them with `-f`: which policy and which Secret they hold."""

import binascii
import sys
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from controller.adapters.credentials import Secret
from controller.api.manifest import Manifest
from controller.api.names import KIND
from controller.cli.errors import WrongUseError


@dataclass(frozen=True, slots=True)
class Manifests:
    """The objects of some files.

    Attributes:
        place: The files, for messages.
        documents: Their objects.
    """

    place: str
    documents: Sequence[Manifest]

    @classmethod
    def read(cls, files: Sequence[str]) -> Self:
        """Read files; `-` is standard input. Raises `WrongUseError` if one cannot be read or holds no objects."""
        documents = [document for file in files for document in _documents(file)]
        return cls(", ".join("standard input" if file == "-" else file for file in files), documents)

    def policy(self, name: str | None) -> Manifest:
        """The policy of a name, or the only one; raises `WrongUseError` if that is not one."""
        policies = self._of_kind(KIND)
        if not policies:
            kinds = ", ".join(sorted({str(document.get("kind")) for document in self.documents})) or "nothing"
            raise WrongUseError(f"{self.place}: there is no {KIND}, only {kinds}", "name a file with one")
        named = [policy for policy in policies if name is None or _metadata(policy).get("name") == name]
        if len(named) != 1:
            advice = "name one of them" if len(policies) > 1 else "name that one, or none"
            raise WrongUseError(f"{self.place}: the policies there are {_names(policies)}", advice)
        return named[0]

    def secret(self, namespace: str, name: str) -> Secret | None:
        """The Secret of a name; `None` if there are no Secrets at all.

        Raises:
            WrongUseError: There are only others, or it holds values that cannot be read.
        """
        secrets = self._of_kind("Secret")
        for secret in secrets:
            metadata = _metadata(secret)
            if metadata.get("name") == name and metadata.get("namespace", namespace) == namespace:
                return Secret(f"Secret {name} of {self.place}", _values(secret, f"{self.place}: Secret {name}"))
        if not secrets:
            return None
        problem = f"{self.place}: the policy names Secret {name}, and there is only {_names(secrets)}"
        raise WrongUseError(problem, "add it, or leave Secrets out")

    def _of_kind(self, kind: str) -> list[Manifest]:
        return [document for document in self.documents if document.get("kind") == kind]


def _documents(file: str) -> Iterator[Manifest]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        documents = list(yaml.safe_load_all(text))
    except OSError as error:
        raise WrongUseError(f"{file}: {error.strerror}", "write the path of a policy's manifest") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        line = f", line {mark.line + 1}" if (mark := getattr(error, "problem_mark", None)) else ""
        problem = f"{file}{line}: this is no YAML"
        raise WrongUseError(problem, "write a manifest, such as manifests/example.yaml") from None
    for document in documents:
        yield from _objects(document, file)


def _objects(document: object, file: str) -> Iterator[Manifest]:
    if document is None:
        return
    if not isinstance(document, dict):
        problem = f"{file}: a manifest has apiVersion, kind, metadata and spec"
        raise WrongUseError(problem, "see manifests/example.yaml")
    if document.get("kind") == "List":
        items = document.get("items")
        for item in items if isinstance(items, list) else ():
            yield from _objects(item, file)
    else:
        yield document


def _values(secret: Manifest, place: str) -> Mapping[str, str]:
    encoded, plain = secret.get("data") or {}, secret.get("stringData") or {}
    if not isinstance(encoded, Mapping) or not isinstance(plain, Mapping):
        raise WrongUseError(f"{place}: write keys with values under stringData")
    values: dict[str, str] = {}
    for key, value in encoded.items():
        try:
            values[key] = b64decode(str(value), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise WrongUseError(f"{place}: {key} under data is not base64", "write it under stringData") from None
    return values | {key: str(value) for key, value in plain.items()}


def _names(manifests: Sequence[Manifest]) -> str:
    return ", ".join(str(_metadata(manifest).get("name")) for manifest in manifests)


def _metadata(manifest: Manifest) -> Mapping[str, Any]:
    metadata = manifest.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}
