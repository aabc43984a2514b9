"""What a command is wrapped in."""

from __future__ import annotations

import signal

import pytest

from pagoda.pipeline.commands.running import terminable


def test_an_interrupt_of_which_a_library_makes_an_error_is_one() -> None:
    """numpy, while it writes an array: "expected str, not BufferedWriter"."""

    def swallowed(press: bool) -> None:
        try:
            if press:
                signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            pass
        raise TypeError("expected str")

    with pytest.raises(KeyboardInterrupt), terminable():
        swallowed(True)
    with pytest.raises(TypeError), terminable():
        swallowed(False)
