"""What takes long is told on one line that moves on a terminal, and on few lines elsewhere."""

import io
import re
import threading
import time

import pytest

from devstack.progress import Progress, progress


class Terminal(io.StringIO):
    """A terminal of 80 columns: it knows what stands on its screen."""

    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> list[str]:
        """The rows, as a person sees them: text after a carriage return overwrites what was there."""
        rows = []
        for written in self.getvalue().split("\n"):
            row = ""
            for piece in written.split("\r"):
                row = piece + row[len(piece) :]
            rows.append(row.rstrip())
        return rows


@pytest.fixture(autouse=True)
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_moves_one_line_on_a_terminal() -> None:
    terminal = Terminal()
    with Progress(terminal, every=0.01).show("Building it"):
        time.sleep(0.2)
        assert len(terminal.screen) == 1
        assert re.fullmatch(r"Building it … \d s", terminal.screen[0])
        assert terminal.getvalue().count("Building it") > 3
    assert terminal.screen == ["Building it took 0 s", ""]


def test_writes_a_line_at_the_start_and_one_at_the_end_elsewhere() -> None:
    file = io.StringIO()
    with Progress(file).show("Building it"):
        pass
    assert file.getvalue() == "Building it …\nBuilding it took 0 s\n"


def test_writes_a_line_a_minute_elsewhere() -> None:
    file = io.StringIO()
    minute = Progress(file, every=0.05)
    with minute.show("Building it", since=time.monotonic() - 60):
        time.sleep(0.07)
    assert file.getvalue() == "Building it …\nBuilding it … 60 s\nBuilding it took 60 s\n"
    assert Progress(file)._every == 60


def test_several_things_share_the_line() -> None:
    terminal = Terminal()
    shown = Progress(terminal, every=0.01)
    with shown.show("Building one"):
        with shown.show("Building two"):
            assert terminal.screen == ["Building one … 0 s, Building two … 0 s"]
        assert terminal.screen == ["Building two took 0 s", "Building one … 0 s"]
    assert terminal.screen == ["Building two took 0 s", "Building one took 0 s", ""]


def test_the_line_is_never_wider_than_the_terminal() -> None:
    terminal = Terminal()
    with Progress(terminal).show("Building " + 100 * "x"):
        assert len(terminal.screen[0]) < 80


@pytest.mark.parametrize(
    ("problem", "shown"),
    [
        pytest.param(RuntimeError(), "Building it failed after 0 s", id="failed"),
        pytest.param(KeyboardInterrupt(), "Building it stopped after 0 s", id="interrupted"),
    ],
)
def test_says_how_it_ended(problem: BaseException, shown: str) -> None:
    terminal = Terminal()
    with pytest.raises(type(problem)), Progress(terminal).show("Building it"):
        raise problem
    assert terminal.screen == [shown, ""]


def test_threads_share_what_is_shown_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with progress("Waiting"):
            meet.wait()

    meet = threading.Barrier(2)
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = sorted(capsys.readouterr().err.splitlines())
    assert lines == ["Waiting took 0 s", "Waiting took 0 s", "Waiting …", "Waiting …"]
