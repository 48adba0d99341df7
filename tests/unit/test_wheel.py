"""The wheel: what users install has the program and nothing of the project's own tools."""

import zipfile
from pathlib import Path

import pytest
from flit_core import buildapi  # type: ignore[import-untyped]

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of a wheel that is built now."""
    directory = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(PROJECT)
        name = buildapi.build_wheel(str(directory))
    with zipfile.ZipFile(directory / name) as wheel:
        return set(wheel.namelist())


def test_the_wheel_has_every_module_of_the_controller_and_nothing_else(files):
    modules = {str(module.relative_to(PROJECT)) for module in (PROJECT / "controller").rglob("*.py")}

    assert {name for name in files if ".dist-info/" not in name} == modules


def test_the_wheel_has_the_three_programs_and_the_license(files):
    described = {name.partition(".dist-info/")[2] for name in files if ".dist-info/" in name}

    assert {"entry_points.txt", "METADATA", "licenses/LICENSE"} <= described
