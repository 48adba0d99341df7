"""The errors of the package that a caller is meant to catch."""


class Unavailable(Exception):  # noqa: N818 (a state of the machine, as often skipped on as reported)
    """A part cannot be had on this machine, or is broken; the message says why, and what to do about it.

    Tests that can do without a part that cannot be had turn this into a skip, but not `Broken`.
    """


class Broken(Unavailable):
    """A part can be had here, but it did not start, ended by itself or does not answer: nobody may do without it."""
