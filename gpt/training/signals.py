"""Signals that end a program, noticed between two steps, so that the run is saved first."""

from __future__ import annotations

import signal
import threading


class StopSignal:
    """In the block, a signal that would end the program sets `requested` instead.

    A second SIGINT interrupts at once. SIGPIPE, which Python ignores by default, means that the
    reader of a pipe has gone.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)

    def __init__(self):
        self.requested = False

    def __enter__(self):
        self.previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue  # started by nohup, to go on without its terminal
                self.previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception):
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
