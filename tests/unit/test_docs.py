"""What the documentation must name."""

from pathlib import Path

import pytest

from controller.decisions.decision import FailureReason, SkipReason
from controller.errors import ErrorReason
from tools.generate.cli import DOCUMENT, render

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize("reason", [*SkipReason, *FailureReason, *ErrorReason])
def test_explains_every_reason_that_a_user_can_meet(reason):
    assert f"`{reason}`" in (PROJECT / "docs" / "policy.md").read_text()


def test_the_readme_names_the_command_that_ci_runs():
    assert "make test" in (PROJECT / "README.md").read_text()
    assert "make test" in (PROJECT / ".ci" / "run").read_text()


def test_the_reference_of_the_command_line_is_what_the_program_says():
    assert DOCUMENT.read_text() == render(), "run `make generate`"
