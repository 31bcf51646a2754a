"""What can go wrong in the warehouse, each with what to do about it.

WarehouseError
├── WarehouseLocked      another process has the folder
├── WarehouseTooNew      the schema was written by a newer ModelMeter
├── WarehouseAway        the server cannot be asked now: wait and try again
└── WarehouseFailed      the engine refused a statement (disk full, no right to, damaged part, ...)
"""

from __future__ import annotations


class WarehouseError(Exception):
    """Base of them all; `hint` says what to do, in one line for people."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.args[0]}; {self.hint}"


class WarehouseLocked(WarehouseError):
    """chDB allows one process a folder, and another one has this one."""


class WarehouseTooNew(WarehouseError):
    """It has migrations that this version does not know: reading it could give wrong numbers."""


class WarehouseAway(WarehouseError):
    """The server cannot be reached, or says that it cannot serve now. Whether an insert arrived is not known:
    it is to be repeated with its token."""


class WarehouseFailed(WarehouseError):
    """The engine refused a statement. An insert that failed so may be repeated with its token."""
