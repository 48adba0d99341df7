"""The one error of the package that a caller is meant to catch."""


class Unavailable(Exception):  # noqa: N818 (a state of the machine, as often skipped on as reported)
    """A part cannot be had on this machine, or did not start; the message says why, and what to do about it.

    Tests that can do without the part turn it into a skip.
    """
