"""The one exception that a user is meant to see."""


class BenchError(Exception):
    """A mistake in the input, told in one line: what is wrong, where, and what to do.

    The command line prints the message without a traceback and exits with status 2.
    """
