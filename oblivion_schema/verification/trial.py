"""What must work is tried: a call is billed, a page plays its part, and strangers reach for what is not theirs.

All of it happens to two accounts of the trial's own, and is rolled back.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from oblivion_schema.adoption.triggers import foreign_triggers
from oblivion_schema.errors import primary_message, sqlstate
from oblivion_schema.tables.access import current_modes
from oblivion_schema.verification.check import Check, attempt, may_ask, may_write, named, not_tried, note, result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy import Connection, Row

    from oblivion_schema.tables.access import Modes

_BILLS: Final = "a call is started, billed and ended, and a credit is added once (rolled back)"
_TOKENS: Final = 1000
"""What the accounts of the trial have: enough for two minutes at any rate that somebody may have set."""

_VISITOR: Final = "anon"
_USER: Final = "authenticated"
_MAY_NOT: Final = "42501"


def try_it(connection: Connection) -> Iterator[Check]:
    """A line for each thing that was tried, or could not be."""
    if not may_ask(connection):
        yield not_tried("what pages and functions do", "this role may not use schema oblivion")
        return
    modes = current_modes(connection)
    plays = ((_access(modes), _play_access), (_pages(modes), _play_page), (_BILLS, _play_billing))
    why = _may_not_try(connection)
    for subject, play in plays:
        if why:
            yield not_tried(subject, why)
        else:
            yield from attempt(
                connection, subject, partial(_played, modes, subject, play), partial(_failed, connection)
            )


def _may_not_try(connection: Connection) -> str:
    """Why nothing can be tried; empty if it can."""
    if not may_write(connection):
        return "the server or this session is read-only"
    return "" if connection.scalar(text(_OWNS)) else "only the owner of the tables can try it"


# Corrects a clock, as no other role may.
_OWNS: Final = "SELECT has_table_privilege('oblivion.call_meters', 'UPDATE')"


def _played(
    modes: Modes, subject: str, play: Callable[[_Trial, str], Iterable[Check]], connection: Connection
) -> Iterable[Check]:
    return play(_Trial(connection, modes), subject)


def _failed(connection: Connection, subject: str, error: DBAPIError) -> Check:
    """The line for a play that met an error: the owner may do all of it, so it is a failure."""
    return result(subject, f"{primary_message(error)}{_suspects(connection)}")


def _access(modes: Modes) -> str:
    says = {"open": "everybody may read and write", "authenticated": "signed-in users reach their own rows"}
    return f"access {modes.access}: {says[modes.access]}"


def _pages(modes: Modes) -> str:
    says = {"trusted": "they bill their calls by themselves", "metered": "the database bills their calls"}
    return f"pages {modes.pages}: {says[modes.pages]}"


class _Trial:
    """Two accounts, one of which calls; its name and the other's are in no use, as they hold a random number."""

    def __init__(self, connection: Connection, modes: Modes) -> None:
        self.connection, self.modes = connection, modes
        number = uuid4()
        self.user, self.other = f"oblivion-schema verify {number}", f"oblivion-schema verify other {number}"
        self.names = {"user": self.user, "other": self.other, "key": str(number), "tokens": _TOKENS}
        self.run(
            "INSERT INTO public.user_accounts (user_id, tokens_remaining) VALUES (:user, :tokens), (:other, :tokens)"
        )

    def run(self, sql: str) -> Row[Any] | None:
        """Run a statement as the role that verifies; its first row, if it has any."""
        ran = self.connection.execute(text(sql), self.names)
        return ran.first() if ran.returns_rows else None

    @contextmanager
    def acting(self, role: str, user: str = "") -> Iterator[None]:
        """Within this context the session is one of PostgREST's: of a visitor, or of a signed-in user."""
        claims = json.dumps({"role": role, **({"sub": user} if user else {})})
        sql = text("SELECT set_config('role', :role, true), set_config('request.jwt.claims', :claims, true)")
        self.connection.execute(sql, {"role": role, "claims": claims})
        yield
        self.connection.execute(sql, {"role": "none", "claims": ""})

    def call(self) -> None:
        """Start a call of the first account, 90 seconds ago."""
        call = self.run("SELECT session_id FROM public.start_call(:user, 'oblivion-schema verify', 'video')")
        self.names["call"] = call.session_id if call else None
        self.run("UPDATE public.call_sessions SET start_time = start_time - interval '90 seconds' WHERE id = :call")

    def books(self) -> Row[Any]:
        """What the database says about the first account and its call."""
        found = self.run(_BOOKS)
        if found is None:
            raise LookupError(self.user)
        return found

    def attempt(self, role: str, user: str, sql: str) -> tuple[str, int, bool]:
        """Let a page send a statement, and undo it: the SQLSTATE if it failed, its rows, and whether books changed."""
        before = self.books()
        with self.connection.begin_nested() as savepoint:
            try:
                with self.acting(role, user):
                    ran = self.connection.execute(text(sql), self.names)
                    rows = len(ran.all()) if ran.returns_rows else 0
                after = self.books()
            except DBAPIError as error:
                if error.connection_invalidated:
                    raise
                savepoint.rollback()
                return sqlstate(error), 0, False
            savepoint.rollback()
        return "", rows, after != before


_BOOKS: Final = """
SELECT
  (SELECT tokens_remaining FROM public.user_accounts WHERE user_id = :user) AS balance,
  (SELECT tokens_remaining FROM public.user_accounts WHERE user_id = :other) AS others_balance,
  (SELECT sum(tokens) FROM public.token_ledger WHERE user_id = :user) AS ledger,
  (SELECT sum(tokens_used) FROM public.token_usage WHERE user_id = :user) AS used,
  (SELECT count(*) FROM public.token_usage WHERE user_id = :user) AS usages,
  (SELECT total_tokens_used FROM public.user_token_summary WHERE user_id = :user) AS reported,
  (SELECT array_agg((c.room_id, c.end_time, c.credit_cost)::text) FROM public.call_sessions AS c WHERE user_id = :user)
    AS calls,
  (SELECT sum(credit_cost) FROM public.call_sessions WHERE user_id = :user) AS cost,
  (SELECT bool_and(end_time IS NOT NULL) FROM public.call_sessions WHERE user_id = :user) AS ended,
  (SELECT array_agg((p.room_id, p.is_available)::text) FROM public.user_presence AS p WHERE host_id = :user) AS presence
"""

# Two minutes have begun after 90 seconds.
_RATES: Final = """
SELECT 2 * direct_rate AS due FROM oblivion.call_meters WHERE user_id = :user
"""


# Nobody who comes through PostgREST may do these, whatever is granted.
_MONEY: Final = {
    "top_up()": "SELECT public.top_up(:user, 5, :key)",
    "refund_call()": "SELECT public.refund_call(:call, 1, :key)",
    "reap_stale_calls()": "SELECT public.reap_stale_calls('1 day', 1)",
    "settle_calls()": "SELECT public.settle_calls(1)",
    "burn_calls()": "SELECT public.burn_calls(1)",
}
_READS: Final = {
    "user_accounts": "SELECT 1 FROM public.user_accounts WHERE user_id = :user",
    "call_sessions": "SELECT 1 FROM public.call_sessions WHERE user_id = :user",
    "token_usage": "SELECT 1 FROM public.token_usage WHERE user_id = :user",
    "token_ledger": "SELECT 1 FROM public.token_ledger WHERE user_id = :user",
    "user_presence": "SELECT 1 FROM public.user_presence WHERE host_id = :user",
    "user_token_summary": "SELECT 1 FROM public.user_token_summary WHERE user_id = :user",
}
# What a stranger must not change for the first account, nor anybody for the own balance.
_WRITES: Final = {
    "user_accounts": "UPDATE public.user_accounts SET tokens_remaining = tokens_remaining + 7 WHERE user_id = :user",
    "the own user_accounts": (
        "UPDATE public.user_accounts SET tokens_remaining = tokens_remaining + 7 WHERE user_id = :other"
    ),
    "call_sessions": "UPDATE public.call_sessions SET end_time = now(), credit_cost = 0 WHERE user_id = :user",
    "token_usage": "DELETE FROM public.token_usage WHERE user_id = :user",
    "token_ledger": "DELETE FROM public.token_ledger WHERE user_id = :user",
    "user_presence": "UPDATE public.user_presence SET room_id = 'x' WHERE host_id = :user",
    "end_call()": "SELECT public.end_call(:call)",
    "set_call_turn()": "SELECT public.set_call_turn(:call, true)",
}


def _play_access(trial: _Trial, subject: str) -> Iterable[Check]:
    for role in (_VISITOR, _USER):
        if why := _cannot_be(trial, role):
            yield note(subject, why)
            return
    trial.call()
    trial.run("SELECT public.end_call(:call)")
    trial.call()
    trial.run("INSERT INTO public.user_presence (host_id, room_id) VALUES (:user, 'oblivion-schema verify')")
    strangers = {"a visitor": (_VISITOR, ""), "another signed-in user": (_USER, trial.other)}
    wrong = []
    for who, (role, user) in strangers.items():
        wrong += [
            f"{who} may call {name}" for name, sql in _MONEY.items() if trial.attempt(role, user, sql)[0] != _MAY_NOT
        ]
        if trial.modes.access == "authenticated":
            wrong += [f"{who} reads {name}" for name, sql in _READS.items() if trial.attempt(role, user, sql)[1]]
            wrong += [f"{who} changes {name}" for name, sql in _WRITES.items() if trial.attempt(role, user, sql)[2]]
    # What must work: everybody reads in the open mode, and the user in the other.
    who, role, user = (
        ("a visitor", _VISITOR, "") if trial.modes.access == "open" else ("a signed-in user", _USER, trial.user)
    )
    wrong += [f"{who} does not read {name}" for name, sql in _READS.items() if not trial.attempt(role, user, sql)[1]]
    mend = (
        f"oblivion-schema access {trial.modes.access} renews the grants,"
        " oblivion-schema check --sql prints what mends policies and functions"
    )
    yield result(subject, f"{named(wrong, len(wrong))}: {mend}" if wrong else "")


def _cannot_be(trial: _Trial, role: str) -> str:
    """Why the session cannot act as a role of PostgREST; empty if it can."""
    try:
        with trial.connection.begin_nested() as savepoint:
            with trial.acting(role):
                pass
            savepoint.rollback()
    except DBAPIError as error:
        if sqlstate(error) not in {_MAY_NOT, "22023"}:
            raise
        return (
            f"not played, for this role cannot act as {role} ({primary_message(error)}); what is granted was compared"
        )
    return ""


def _play_page(trial: _Trial, subject: str) -> Iterable[Check]:
    """A page of the deployed ones: it starts a call, ends it, and writes what it thinks of it."""
    is_open, is_metered = trial.modes.access == "open", trial.modes.pages == "metered"
    role, user = (_VISITOR, "") if is_open else (_USER, trial.user)
    if why := _cannot_be(trial, role):
        yield note(subject, why)
        return
    if not is_open and not is_metered:
        yield Check(subject)  # their writes are refused, as the trial of access shows: they call end_call()
        return
    with trial.acting(role, user):
        call = trial.run(
            "INSERT INTO public.call_sessions (room_id, start_time, mode, user_id)"
            " VALUES ('oblivion-schema verify', now() - interval '90 seconds', 'video', :user) RETURNING id"
        )
    trial.names["call"] = call.id if call else None
    trial.run(
        "UPDATE oblivion.call_meters SET started_at = started_at - interval '90 seconds',"
        " seen_at = seen_at - interval '90 seconds' WHERE session_id = :call"
    )
    due = trial.run(_RATES)
    # A page's own sums may be wrong. Who trusts it gets them.
    with trial.acting(role, user):
        trial.run("UPDATE public.call_sessions SET end_time = now(), credit_cost = 3 WHERE id = :call")
        trial.run("UPDATE public.user_accounts SET tokens_remaining = :tokens - 3 WHERE user_id = :user")
        trial.run(
            "INSERT INTO public.token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds)"
            " VALUES (:user, :call, 3, 'video', false, 90)"
        )
    cost = due.due if due and is_metered else 3
    yield _compared(
        trial,
        subject,
        {
            "metered": (due is not None, is_metered),
            **_agreeing(trial.books(), _TOKENS - cost, cost),
        },
    )


def _play_billing(trial: _Trial, subject: str) -> Iterable[Check]:
    trial.call()
    due = trial.run(_RATES)
    cost = due.due if due else None
    tick = trial.run("SELECT status, charged FROM public.tick_call(:call)")
    end = trial.run("SELECT status FROM public.end_call(:call)")
    credited = [trial.run("SELECT status FROM public.top_up(:user, 5, :key)") for _ in range(2)]
    said = [row.status if row else None for row in (tick, end, *credited)]
    expected = {
        "the functions say": (said, ["ok", "ok", "ok", "known"]),
        "charged": (tick.charged if tick else None, cost),
        **_agreeing(trial.books(), _TOKENS - (cost or 0) + 5, cost),
    }
    yield _compared(trial, subject, expected)


# Why the engine could not bill, which it does not let its caller feel.
_REASONS: Final = (
    "SELECT string_agg(DISTINCT message, ', ') AS said FROM oblivion.billing_incidents WHERE user_id = :user"
)


def _agreeing(books: Row[Any], balance: int, cost: int | None) -> dict[str, tuple[Any, Any]]:
    """What each place says about a call that has ended, and what it has to say."""
    return {
        "balance": (books.balance, balance),
        "ledger": (books.ledger, books.balance),
        "token_usage": (books.used or 0, cost),
        "user_token_summary": (books.reported or 0, cost),
        "credit_cost": (books.cost, cost),
        "ended": (books.ended, True),
    }


def _compared(trial: _Trial, subject: str, expected: dict[str, tuple[Any, Any]]) -> Check:
    wrong = [f"{name} {found}, not {right}" for name, (found, right) in expected.items() if found != right]
    if not wrong:
        return Check(subject)
    reasons = trial.run(_REASONS)
    why = f" ({reasons.said})" if reasons and reasons.said else ""
    return result(subject, f"{', '.join(wrong)}{why}{_suspects(trial.connection)}")


def _suspects(connection: Connection) -> str:
    """What else writes when the engine does."""
    found = foreign_triggers(connection)
    return f": look at {', '.join(map(str, found))}" if found else ""
