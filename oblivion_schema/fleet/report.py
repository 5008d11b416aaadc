"""What a command on a fleet says: each line begins with the name of its site; at the end the sum, or one JSON text."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from oblivion_schema import progress
from oblivion_schema.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

Status = Literal["done", "at head", "failed", "not done"]
_FAILED: Final = "FAILED: "


@dataclass
class Outcome:
    """How a command ended on a site. `lines` are those of stdout, `messages` those of stderr."""

    name: str
    status: Status = "not done"
    revision: str | None = None
    seconds: float = 0
    lines: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def document(self, *, parse: bool) -> dict[str, Any]:
        """The outcome for JSON; with `parse` the lines are a JSON text themselves, and become a `report`."""
        found: dict[str, Any] = {
            "name": self.name,
            "status": self.status,
            "revision": self.revision,
            "seconds": round(self.seconds, 3),
            "lines": self.lines,
            "messages": self.messages,
        }
        if parse:
            try:
                found |= {"report": json.loads("\n".join(self.lines)), "lines": []}
            except ValueError:  # it failed before it had one
                found |= {"report": None}
        return found


class Report:
    """Tells what sites say, as they say it; with `as_json`, only at the end."""

    def __init__(self, command: str, names: Iterable[str], *, as_json: bool, quiet: bool) -> None:
        self.command, self.as_json, self.quiet = command, as_json, quiet
        self.outcomes = {name: Outcome(name) for name in names}
        self.began = time.monotonic()

    def line(self, name: str, line: str, *, error: bool = False) -> None:
        """A line that a site wrote, to stderr if it is an `error`."""
        if self.as_json:
            outcome = self.outcomes[name]
            (outcome.messages if error else outcome.lines).append(line)
            return
        progress.clear()
        stream = sys.stderr if error else sys.stdout
        stream.write(f"{name}: {line}\n")
        stream.flush()

    def note(self, name: str, line: str) -> None:
        """A line about a site, for people; not with -q."""
        if not self.quiet:
            self.line(name, line, error=True)

    def fail(self, name: str, why: object, seconds: float = 0) -> None:
        """A site failed before a process of its own could say so."""
        self.line(name, f"{_FAILED}{why}", error=True)
        self.end(name, "failed", seconds)

    def end(self, name: str, status: Status, seconds: float = 0) -> None:
        """A site is over; what it did in several steps adds up."""
        outcome = self.outcomes[name]
        outcome.status = status
        outcome.seconds += seconds

    def draw(self, running: Iterable[str]) -> None:
        """Show on a terminal how far it is."""
        over = sum(outcome.status != "not done" for outcome in self.outcomes.values())
        seconds = time.monotonic() - self.began
        of = number_of_sites(len(self.outcomes))
        progress.draw(f"{self.command}, {seconds:.0f} s: {over} of {of}; {', '.join(running)}")

    def finish(self, stopped: int | None, *, parse: bool) -> None:
        """Say the sum. Raises UserError if not all is well, and exits with 128 + `stopped` for that signal."""
        progress.clear()
        seconds = time.monotonic() - self.began
        counted = Counter(outcome.status for outcome in self.outcomes.values())
        is_well = not counted["failed"] and not counted["not done"]
        if self.as_json:
            document = {
                "command": self.command,
                "status": "done" if is_well else "interrupted" if stopped else "failed",
                "seconds": round(seconds, 3),
                "sites": [outcome.document(parse=parse) for outcome in self.outcomes.values()],
            }
            sys.stdout.write(f"{json.dumps(document, indent=2)}\n")
            sys.stdout.flush()
        elif not (self.quiet and is_well):
            said = ", ".join(f"{counted[status]} {status}" for status in _STATUSES if counted[status])
            progress.say(f"{number_of_sites(len(self.outcomes))}, {seconds:.1f} s: {said}.")
        if is_well:
            return
        failed = UserError(" ".join(self._failures(stopped)))
        if stopped is None:
            raise failed
        sys.stderr.write(f"{_FAILED}{failed}\n")
        sys.exit(128 + stopped)

    def _failures(self, stopped: int | None) -> Iterable[str]:
        named = {
            status: ", ".join(outcome.name for outcome in self.outcomes.values() if outcome.status == status)
            for status in _STATUSES
        }
        if stopped is not None:
            yield "Interrupted: sites that were not over were rolled back. Run the command again."
        if named["failed"]:
            count = sum(outcome.status == "failed" for outcome in self.outcomes.values())
            of = f"{count} of {number_of_sites(len(self.outcomes))}"
            yield f"{of}: {named['failed']}. The lines of {'this site' if count == 1 else 'these sites'} say why."
        if named["not done"]:
            yield f"Not done: {named['not done']}."


_STATUSES: Final[tuple[Status, ...]] = ("done", "at head", "failed", "not done")


def number_of_sites(count: int) -> str:
    """Such as `1 site`."""
    return f"{count} site{'s' * (count != 1)}"
