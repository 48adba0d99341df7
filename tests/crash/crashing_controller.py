"""The real controller, which dies or pauses at a chosen step.

A crash plan, the file `plan.json` in a directory, arms it: from the next turn of a policy on, each step is written to
`steps` there; at the step that the plan names the process kills itself, as SIGKILL would at that moment, or waits for a
file `go`.
"""

import json
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import controller.scan
from controller.adapters import instrumentation
from controller.adapters.instrumentation import Moment
from controller.adapters.prefect import abandoned
from controller.cli import main


class Step(NamedTuple):
    """A request of a scan: what is sent where, and how many like it were sent before."""

    what: str
    place: int

    def __str__(self) -> str:
        return f"{self.what} ({self.place + 1})"


def general(what: str) -> str:
    """What is sent where, without names and ids that differ from scan to scan."""
    named = re.sub(r"(namespaces/[^/]+/(videorecoverypolicies|events))/[^/]+", r"\1/NAME", what)
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", named)


@dataclass(frozen=True)
class CrashPlan:
    """What is to happen at which step; by default nothing, and the steps are only written down."""

    what: str = ""
    place: int = 0
    moment: Moment = Moment.BEFORE
    action: Literal["die", "pause"] = "die"


class PlanFiles:
    """What a test and the process under test tell each other, by files in a directory."""

    def __init__(self, directory: Path) -> None:
        self._plan_file, self._steps = directory / "plan.json", directory / "steps"
        self._reached, self._go = directory / "reached", directory / "go"

    def arm(self, plan: CrashPlan) -> None:
        """Make the plan for the next turn."""
        for file in (self._steps, self._reached, self._go):
            file.unlink(missing_ok=True)
        draft = self._plan_file.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(plan)))
        draft.rename(self._plan_file)

    def take_plan(self) -> CrashPlan | None:
        """The plan, once; `None` if there is no new one."""
        try:
            plan = CrashPlan(**json.loads(self._plan_file.read_text()))
        except FileNotFoundError:
            return None
        self._plan_file.unlink()
        return plan

    def note(self, moment: Moment, step: Step) -> None:
        """Write a step down."""
        with self._steps.open("a") as file:
            file.write(f"{moment} {step.place} {step.what}\n")

    def noted(self) -> list[tuple[Moment, Step]]:
        """All that was written down since the plan was made; what is sent again is there again."""
        lines = self._steps.read_text().splitlines() if self._steps.exists() else []
        parts = (line.split(" ", 2) for line in lines)
        return [(Moment(moment), Step(what, int(place))) for moment, place, what in parts]

    def steps(self) -> list[Step]:
        """The steps since the plan was made, each once, in the order in which they began."""
        return list(dict.fromkeys(step for _, step in self.noted()))

    def posted_events(self) -> int:
        """How many Events were posted since the plan was made."""
        return sum(moment is Moment.AFTER and is_event(step.what) for moment, step in self.noted())

    @property
    def reached(self) -> bool:
        """Whether the controller pauses at the step of the plan, or did."""
        return self._reached.exists()

    def pause(self) -> None:
        """Say that the step was reached, and stand still until told to go on."""
        self._reached.touch()
        while not self._go.exists():
            time.sleep(0.01)

    def go_on(self) -> None:
        """End the pause."""
        self._go.touch()


class StepWatcher:
    """Follows the steps of a process and carries out the plan."""

    def __init__(self, plan_files: PlanFiles) -> None:
        self._plan_files = plan_files
        self._plan: CrashPlan | None = None
        self._sent: Counter[str] = Counter()
        self._unanswered = ""

    def __call__(self, moment: Moment, what: str) -> None:
        what = general(what)
        if begins_turn(what) and moment is Moment.BEFORE and (plan := self._plan_files.take_plan()):
            self._plan, self._sent = plan, Counter()
        if self._plan is None:
            return
        step = self._number(moment, what)
        self._plan_files.note(moment, step)
        if (self._plan.what, self._plan.place, self._plan.moment) == (step.what, step.place, moment):
            self._carry_out(self._plan)

    def _number(self, moment: Moment, what: str) -> Step:
        # A request that is sent again, since it was not answered, is the same step.
        if moment is Moment.BEFORE and what != self._unanswered:
            self._sent[what] += 1
        self._unanswered = what if moment is Moment.BEFORE else ""
        return Step(what, self._sent[what] - 1)

    def _carry_out(self, plan: CrashPlan) -> None:
        if plan.action == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        self._plan = None
        self._plan_files.pause()


def begins_turn(what: str) -> bool:
    """Whether a step reads a policy, as each turn does first."""
    return what.startswith("Kubernetes GET ") and what.endswith("/videorecoverypolicies/NAME")


def is_event(what: str) -> bool:
    """Whether a step posts an Event, as a scan does last."""
    return what.startswith("Kubernetes ") and "/events" in what


def end_with_the_tests() -> None:
    """Wait until the tests have ended, however they did: then nobody is left to stop this process."""
    tests = multiprocessing.parent_process()
    assert tests is not None
    tests.join()
    os.kill(os.getpid(), signal.SIGKILL)


def run(directory: Path, arguments: Sequence[str], batch: int) -> None:
    """Be the controller, as the command line starts it, with batches of a size; ends the process."""
    threading.Thread(target=end_with_the_tests, daemon=True).start()
    with (directory / "log").open("ab") as output:
        for standard in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), standard.fileno())
    vars(controller.scan)["BATCH"] = batch
    vars(abandoned)["CANCEL_WAIT"] = 0  # nobody is there to stop a run
    instrumentation.watch(StepWatcher(PlanFiles(directory)))
    main(*arguments)
