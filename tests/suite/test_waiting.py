"""Waiting: until it happens, and else with what was last seen."""

import pytest

from tests.waiting import wait_for


def test_returns_what_the_condition_saw():
    values = iter([0, 0, 7])

    assert wait_for(lambda: next(values), what="a seven") == 7


def test_a_wait_in_vain_says_what_was_last_seen():
    with pytest.raises(AssertionError, match=r"waited 0\.01 s in vain for a run; last seen: \[\]"):
        wait_for(list[str], what="a run", seconds=0.01)


def test_a_wait_in_vain_shows_what_it_is_told_to():
    with pytest.raises(AssertionError, match="last seen: the log"):
        wait_for(lambda: False, what="a line", seconds=0.01, seen=lambda: "the log")


def test_ends_at_once_where_there_is_nothing_to_wait_for_any_more():
    def assert_runs() -> None:
        raise AssertionError("it ended")

    with pytest.raises(AssertionError, match="it ended"):
        wait_for(lambda: False, what="a line", meanwhile=assert_runs)


def test_an_error_of_the_condition_is_no_wait():
    with pytest.raises(ZeroDivisionError):
        wait_for(lambda: 1 // 0, what="nothing")
