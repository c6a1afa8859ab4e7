"""What a run prints, and who prints it. No fault of the output ever costs the run."""

from __future__ import annotations

import contextlib
import io
import os
import sys

from tensorlite.parallel import Team


@contextlib.contextmanager
def only_rank_0_prints(team: Team):
    """In the block, what the other ranks print is dropped; errors that leave the block are not.

    Where nobody can read what rank 0 prints, that is dropped too, instead of ending the run.
    """
    if team.rank == 0:
        streams = Output(sys.stdout), Output(sys.stderr)
    else:
        streams = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            yield
        finally:
            sys.stdout.flush()


class Output:
    """A stream that may become useless: its pipe or terminal is closed, its disk is full.

    What is written to it then is dropped. The stream may also be None.
    """

    def __init__(self, stream):
        self.stream = stream or open(os.devnull, "w")

    def __getattr__(self, name: str):
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError:
            return self._give_up(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError:
            self._give_up()

    def _give_up(self, text: str = "") -> int:
        """Send to /dev/null what is still in the buffer, and all that follows."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        return len(text)


@contextlib.contextmanager
def harmless(what: str):
    """For what comes after training: an error in the block costs `what` alone.

    One line says so. The run itself is finished and saved, whatever the error is.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"no {what}: {reason}", flush=True)
