"""The one exception that means "the input is wrong", as opposed to "the code is wrong"."""


class InputError(ValueError):
    """Bad input from the user: names the file, key or value, and what would be right.

    The command line prints its text alone, without a traceback, and exits with status 2.
    """
