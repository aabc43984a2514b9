"""The one exception that reaches a user as one line, and how others become part of it."""

import re


class PagodaError(Exception):
    """Something the user can mend: the message says what is wrong and what to do.

    The command line prints the message on one line and exits with status 1; anything else that
    escapes is a bug and keeps its traceback. Bytes of a name that are no UTF-8 are escaped, so
    that the message can be shown and written everywhere.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.encode("utf-8", "backslashreplace").decode("utf-8"))


def denied(error: OSError) -> PagodaError:
    """What is said of a file that is there and may not be read: nothing of damage."""
    where = error.filename or "a file"
    return PagodaError(f"{where}: permission denied; see that you may read it")


def first_line(error: BaseException) -> str:
    """What an exception of another library says, in one line; its type if it says nothing.

    Objects without a name, ``<_io.BytesIO object at 0x7f38cddad300>``, are left out.
    """
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r" ?<[\w.]+ object at 0x[0-9a-fA-F]+>", "", line)
