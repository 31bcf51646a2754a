"""A thread that judges budgets whose amount was set for a moment that has come.

Routers need nobody for that: what they are told of a budget is computed when they are told. But crossings
and alerts are written by whoever charges a call, and on such a day there may be none. Several processes may
watch the same store: a crossing is recorded once.
"""

from __future__ import annotations

import logging
import threading

from mmpipeline.budgets.service import BudgetService
from mmpipeline.store.control.database import StoreBusy

_log = logging.getLogger(__name__)

_EVERY_S = 10.0


class AmountWatch:
    """`start`, and `stop` at the end. At first all budgets are judged: nobody may have watched for long."""

    def __init__(self, budgets: BudgetService) -> None:
        self._budgets = budgets
        self._judged_until = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="amounts", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join()

    def look(self) -> None:
        """Judge what is due. Nothing is lost where the store is busy: it is due the next time."""
        try:
            self._judged_until = self._budgets.judge(self._judged_until)
        except StoreBusy as error:
            _log.warning("budgets whose amount has changed cannot be judged now: %s", error)

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception:  # a defect of ours must not end the watch
                _log.exception("budgets whose amount has changed cannot be judged")
            if self._stopping.wait(_EVERY_S):
                return
