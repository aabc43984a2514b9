"""The one exception that reaches a user as one line."""


class PagodaError(Exception):
    """Something the user can mend: the message says what is wrong and what to do.

    The command line prints the message on one line and exits with status 1; anything else that
    escapes is a bug and keeps its traceback.
    """
