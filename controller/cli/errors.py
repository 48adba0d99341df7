"""What the command line says when something is wrong, and the exit code that goes with it.

0: nothing failed. 1: something did. 2: wrong use, which includes settings that are missing or cannot be right.
"""

import click

from controller.errors import ErrorReason, RecoveryError, ScanError


class Failed(click.ClickException):
    """Something did not work.

    Args:
        problem: What is wrong.
        solution: What to do about it; empty if the problem says it.
    """

    exit_code = 1

    def __init__(self, problem: str, solution: str = "") -> None:
        super().__init__(f"{problem}; {solution}" if solution else problem)


class WrongUseError(Failed):
    """Something has to be written differently; arguments as for `Failed`."""

    exit_code = 2


def in_words(error: Exception, hint: str = "") -> click.ClickException:
    """An error of any layer as one that the command line shows, with a hint behind it."""
    if isinstance(error, ScanError) and error.reason is ErrorReason.INVALID_CERTIFICATES:
        return WrongUseError(error.message)  # not what a service says, but a setting of this process
    if isinstance(error, RecoveryError):
        return Failed(error.message + hint)
    return Failed(f"this is a defect of the program ({type(error).__name__})", "-v shows where it happened")
