"""Things that are built once, and files of a run."""

import os
import stat
import tempfile
import threading
import time
from pathlib import Path

import pytest

from devstack import Unavailable
from devstack.cache import build_once, cache_root, digest, is_built, run
from devstack.controlplane import programs
from devstack.workdir import part_directory, write_private


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_builds_once_for_all_who_ask_at_the_same_time() -> None:
    builds: list[Path] = []
    meet = threading.Barrier(4)

    def build(directory: Path) -> None:
        builds.append(directory)
        (directory / "program").write_text("built")

    def ask() -> None:
        meet.wait()
        assert (build_once("thing", "key", build) / "program").read_text() == "built"

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1


def test_a_failed_build_leaves_nothing_that_looks_built() -> None:
    def fail(directory: Path) -> None:
        (directory / "half").touch()
        raise Unavailable("no compiler")

    with pytest.raises(Unavailable, match="no compiler"):
        build_once("thing", "key", fail)
    assert not (cache_root() / "thing-key").exists()
    assert list(build_once("thing", "key", lambda directory: (directory / "whole").touch()).iterdir()) == [
        cache_root() / "thing-key" / "whole"
    ]


def test_an_interrupted_build_leaves_nothing() -> None:
    def interrupt(directory: Path) -> None:
        (directory / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once("thing", "key", interrupt)
    assert [left.name for left in cache_root().iterdir()] == ["thing-key.lock"]


def test_tells_whether_a_thing_is_built() -> None:
    assert not is_built("thing", "key")
    build_once("thing", "key", lambda directory: None)
    assert is_built("thing", "key")


def test_a_failed_command_shows_its_output_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"(?s)failed \(status 3\)\. Install it\..*the reason"):
        run(["sh", "-c", "echo the reason; exit 3"], cwd=tmp_path, advice="Install it.")


def test_a_digest_depends_on_each_part_and_on_their_order(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("b")
    assert digest("a", file) == digest("a", "b")
    assert len({digest("a", "b"), digest("b", "a"), digest("ab"), digest("a", "c")}) == 4


def test_two_of_a_kind_share_a_working_directory(tmp_path: Path) -> None:
    with part_directory(tmp_path, "prefect") as first, part_directory(tmp_path, "prefect") as second:
        assert [first.name, second.name] == ["prefect", "prefect-2"]
    assert first.exists()


def test_a_temporary_working_directory_is_removed() -> None:
    with part_directory(None, "prefect") as directory:
        assert directory.exists()
    assert not directory.exists()


def test_removes_what_a_killed_program_left_but_not_what_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    hour_ago = time.time() - 3600
    abandoned = tmp_path / "video-recovery-devstack-old"
    abandoned.mkdir()
    foreign = tmp_path / "something-else"
    foreign.mkdir()
    with part_directory(None, "first") as used:
        for directory in (abandoned, foreign, used):
            os.utime(directory, (hour_ago, hour_ago))
        with part_directory(None, "second"):
            assert [directory.exists() for directory in (abandoned, foreign, used)] == [False, True, True]


def test_only_the_owner_can_read_what_is_private(tmp_path: Path) -> None:
    older = tmp_path / "keys"
    older.write_text("readable by all")
    assert stat.S_IMODE(write_private(older, "secret").stat().st_mode) == 0o600


def test_says_what_to_install_where_no_control_plane_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(programs.ASSETS_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", "/no/such/directory")
    for ask in (programs.find_programs, programs.check_obtainable):
        with pytest.raises(Unavailable, match="install Go"):
            ask()


def test_needs_no_go_where_the_control_plane_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(programs.ASSETS_VARIABLE, raising=False)
    monkeypatch.setattr(programs, "_build", lambda directory: None)
    programs.find_programs()
    monkeypatch.setenv("PATH", "/no/such/directory")
    programs.check_obtainable()


def test_says_what_is_missing_among_the_programs_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etcd").touch()
    monkeypatch.setenv(programs.ASSETS_VARIABLE, str(tmp_path))
    for ask in (programs.find_programs, programs.check_obtainable):
        with pytest.raises(Unavailable, match="kube-apiserver is not in"):
            ask()
