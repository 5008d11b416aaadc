"""Databases that people made by hand, in every state that is known of, as scripts of the tests' own in legacy/."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from support import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterable

_FOLDER: Final = PROJECT / "tests" / "legacy"


@dataclass(frozen=True)
class State:
    """One state: the scripts that ran, in their order."""

    name: str
    ran: tuple[str, ...]

    def script(self, *, rows: bool = False, by_hand: bool = False) -> str:
        """SQL that makes it; with awkward rows of each table, and with what people added of their own.

        What of the old scripts fails in this state is not in it: it runs in one transaction.
        """
        parts = list(self.ran)
        if rows:
            parts += [f"rows_{part}" for part in self._with_tables() if part != "billing_trigger"]
        if by_hand:
            parts += [f"by_hand_{part}" for part in ("calls", "billing") if part in self.ran]
        return "\n".join(_read(part) for part in parts)

    def _with_tables(self) -> Iterable[str]:
        gone = {"presence_first"} if "presence_fixed" in self.ran else set()
        return [part for part in dict.fromkeys(self.ran) if part not in gone]

    @property
    def has_calls(self) -> bool:
        """Whether calls can be made."""
        return "calls" in self.ran

    @property
    def has_hosts(self) -> bool:
        """Whether presence is kept by host_id, as clients write it."""
        return "presence_fixed" in self.ran

    @property
    def has_room_tokens(self) -> bool:
        """Whether presence has a room_token."""
        return "presence_safe" in self.ran

    @property
    def has_billing(self) -> bool:
        """Whether there are accounts."""
        return "billing" in self.ran

    def __str__(self) -> str:
        return self.name


def _read(part: str) -> str:
    return (_FOLDER / f"{part}.sql").read_text(encoding="utf-8")


_FIRST: Final = ("calls", "presence_first")
_BILLING: Final = ("billing", "billing_trigger")
_WITHOUT_BILLING: Final = {
    "calls only": _FIRST,
    "presence fixed": (*_FIRST, "presence_fixed"),
    "presence fixed and safe": (*_FIRST, "presence_fixed", "presence_safe"),
    "presence safe only": (*_FIRST, "presence_safe"),
}

STATES: Final = (
    State("nothing", ()),
    *(State(name, ran) for name, ran in _WITHOUT_BILLING.items()),
    *(State(f"{name}, billing", (*ran, *_BILLING)) for name, ran in _WITHOUT_BILLING.items()),
    State("billing alone", ("billing",)),
    State("billing first", ("billing", *_FIRST)),
    State("billing twice", (*_FIRST, "presence_fixed", *_BILLING, *_BILLING)),
)
"""Every state; "calls only" is the first script alone, which makes a presence table of its own kind."""
