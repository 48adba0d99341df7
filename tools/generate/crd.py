"""`manifests/crd.yaml`, from the models.

`python -m tools.generate.crd` prints it, `--write` writes the file.
"""

from pathlib import Path

import yaml

from controller.api.crd import custom_resource_definition
from tools.generate.command import print_or_write

MANIFEST = Path(__file__).parents[2] / "manifests" / "crd.yaml"

HEADER = "# Generated from controller/api by `make generate`; change the models there.\n"


class _Dumper(yaml.SafeDumper):
    """Writes what occurs twice twice: readers of a manifest do not expect anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def render() -> str:
    """The CRD as the text of its manifest."""
    return HEADER + yaml.dump(custom_resource_definition(), Dumper=_Dumper, sort_keys=False, width=110)


if __name__ == "__main__":
    print_or_write(render(), MANIFEST)
