"""Each lock, unique index and clamp of the token engine is there for a reason: without it, this goes wrong."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import pytest
from sqlalchemy import Connection, Row, Select, TextClause, select, text
from sqlalchemy.exc import DBAPIError
from support import function_sql, wait_until

from oblivion_schema import metadata
from oblivion_schema.billing import (
    end_call,
    explain_call,
    reap_stale_calls,
    refund_call,
    set_call_turn,
    settle_calls,
    start_call,
    tick_call,
    top_up,
)
from oblivion_schema.errors import sqlstate
from oblivion_schema.tables.access import switch

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from sqlalchemy import Engine

    Statement = Select[*tuple[Any, ...]] | TextClause
    Scenario = Callable[[Engine], object]

MOST: Final = 2147483647  # an integer's


@dataclass
class Answer:
    """What a statement gave: its rows, or its SQLSTATE and hint."""

    rows: list[Row[Any]]
    error: tuple[str | None, str | None] | None = None

    def get(self, *columns: str) -> object:
        """Of its one row these columns; or else the error."""
        if self.error:
            return self.error
        [row] = self.rows
        values = tuple(getattr(row, column) for column in columns)
        return values if len(values) > 1 else values[0]


def ask(connection: Connection, statement: Statement) -> Answer:
    """Execute it and commit."""
    try:
        answer = connection.execute(statement)
        rows = list(answer) if answer.returns_rows else []
    except DBAPIError as error:
        connection.rollback()
        hint = getattr(getattr(error.orig, "diag", None), "message_hint", None)
        return Answer([], (sqlstate(error), hint))
    connection.commit()
    return Answer(rows)


def once(engine: Engine, statement: Statement) -> Answer:
    """The statement in a transaction of its own."""
    with engine.connect() as connection:
        return ask(connection, statement)


class Late:
    """A session of its own, in a thread: its statement waits for another transaction, or is done soon."""

    answer: Answer
    waited = False

    def __init__(self, engine: Engine, *, deadlock_timeout: str = "50ms") -> None:
        self._connection, self._watcher = engine.connect(), engine.connect()
        pid = self._connection.scalar(text("SELECT pg_backend_pid()"))
        self._connection.execute(text(f"SET deadlock_timeout = '{deadlock_timeout}'"))
        self._connection.commit()
        self._blocked = text(f"SELECT cardinality(pg_blocking_pids({pid})) > 0")

    def __enter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1)
        return self

    def ask(self, statement: Statement) -> None:
        """Begin with the statement, until it waits."""
        self._asked = self._thread.submit(ask, self._connection, statement)
        wait_until(self._waits)

    def _waits(self) -> bool:
        self.waited = bool(self._watcher.scalar(self._blocked))
        return self.waited or self._asked.done()

    def __exit__(self, *_: object) -> None:
        self.answer = self._asked.result()
        self._thread.shutdown()
        self._connection.close()
        self._watcher.close()


def at_once(engine: Engine, first: Statement, second: Statement) -> tuple[Answer, Answer, bool]:
    """Let the second begin before the first commits; and whether the second has waited for that."""
    with Late(engine) as late, engine.connect() as early:
        rows = list(early.execute(first))
        late.ask(second)
        early.commit()
    return Answer(rows), late.answer, late.waited


def account(engine: Engine, tokens: int = 100, user: str = "payer") -> None:
    """Open an account."""
    once(engine, text(f"INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('{user}', {tokens})"))


def started(
    engine: Engine, seconds: int = 61, *, user: str = "payer", unseen: int = 0, used_turn: bool = False
) -> UUID:
    """A video call that began so many seconds ago."""
    [row] = once(engine, select(start_call(user, "room", "video", used_turn=used_turn))).rows
    call: UUID = row.session_id
    age(engine, call, seconds, unseen=unseen)
    return call


def age(engine: Engine, call: UUID, seconds: int, *, unseen: int = 0) -> None:
    """Let so many seconds pass, in the last of which, `unseen`, nothing was heard of the call."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(
            text(
                f"UPDATE call_sessions SET start_time = start_time - interval '{seconds} s' WHERE id = '{call}';"
                f"UPDATE oblivion.call_meters SET started_at = started_at - interval '{seconds} s',"
                f" seen_at = clock_timestamp() - interval '{unseen} s' WHERE session_id = '{call}'"
            )
        )


def value(engine: Engine, sql: str) -> object:
    """The one value of a query."""
    [row] = once(engine, text(sql)).rows
    return row[0]


def usage(engine: Engine) -> object:
    """Rows of usage, and their tokens."""
    [row] = once(engine, text("SELECT count(*), sum(tokens_used) FROM token_usage")).rows
    return tuple(row)


def balance(engine: Engine) -> object:
    """What `payer` has left."""
    return value(engine, "SELECT tokens_remaining FROM user_accounts WHERE user_id = 'payer'")


# -- What may happen at once


def two_ticks(engine: Engine) -> object:
    account(engine)
    call = started(engine)
    first, second, _ = at_once(engine, select(tick_call(call)), select(tick_call(call)))
    return first.get("charged"), second.get("charged"), balance(engine)


def turn_to_and_from(engine: Engine) -> object:
    account(engine)
    call = started(engine)
    at_once(engine, select(set_call_turn(call, used_turn=True)), select(set_call_turn(call, used_turn=False)))
    age(engine, call, 60)
    return once(engine, select(end_call(call))).get("status", "credit_cost", "balance")


def two_turns(engine: Engine) -> object:
    account(engine)
    call = started(engine)
    first, second, _ = at_once(engine, *(select(set_call_turn(call, used_turn=True)) for _ in "ab"))
    return first.get("charged"), second.error or second.get("charged"), balance(engine)


def two_ends(engine: Engine) -> object:
    account(engine)
    call = started(engine)
    first, second, _ = at_once(engine, *(select(end_call(call)) for _ in "ab"))
    return first.get("status", "charged"), second.get("status", "charged"), usage(engine)


def end_of_a_revived_call(engine: Engine) -> object:
    account(engine)
    call = started(engine, 700, unseen=600)
    once(engine, select(reap_stale_calls()))
    for function in (tick_call, end_call):
        once(engine, select(function(call)))
    return usage(engine)


def two_ends_of_a_poor_account(engine: Engine) -> object:
    account(engine, 3)
    call = started(engine)
    first, second, _ = at_once(engine, *(select(end_call(call)) for _ in "ab"))
    return first.get("status", "charged"), second.get("status", "charged"), usage(engine)


def end_beside_a_page_that_writes_the_call(engine: Engine) -> object:
    account(engine)
    call = started(engine)
    # The page would be the one that sees a deadlock.
    with Late(engine, deadlock_timeout="20s") as late, engine.connect() as page:
        page.execute(text("SET deadlock_timeout = '50ms'"))
        page.execute(text("SET ROLE anon"))
        page.execute(text(f"SELECT FROM call_sessions WHERE id = '{call}' FOR NO KEY UPDATE"))
        late.ask(select(end_call(call)))
        written = ask(page, text(f"UPDATE call_sessions SET room_id = 'other' WHERE id = '{call}'"))
    return written.error and written.error[0], late.answer.get("status", "charged")


def end_then_tick(engine: Engine) -> object:
    account(engine)
    call = started(engine)
    once(engine, select(end_call(call)))
    age(engine, call, 60)
    return once(engine, select(tick_call(call))).get("status", "charged")


def turn_beside_a_tick(engine: Engine) -> object:
    account(engine)
    call = started(engine)
    first, second, _ = at_once(engine, select(tick_call(call)), select(set_call_turn(call, used_turn=True)))
    return first.get("charged"), second.get("charged"), balance(engine)


def turn_of_a_call_younger_than_its_transaction(engine: Engine) -> object:
    account(engine)
    with engine.connect() as connection:
        connection.execute(text("SELECT now()"))
        call = started(engine, 60, unseen=60)
        turned = ask(connection, select(set_call_turn(call, used_turn=True)))
    return turned.get("minutes_billed", "charged")


def reaping_beside_a_tick(engine: Engine) -> object:
    account(engine)
    call = started(engine, 1000, unseen=600)
    ticked, reaped, waited = at_once(engine, select(tick_call(call)), select(reap_stale_calls()))
    return ticked.get("status"), len(reaped.rows), waited


def two_ends_of_an_old_clients_call(engine: Engine) -> object:
    account(engine)
    [row] = once(
        engine,
        text("INSERT INTO call_sessions (room_id, user_id, mode) VALUES ('room', 'payer', 'video') RETURNING id"),
    ).rows
    # As end_call() does when it has found that the call is not a common one.
    end = text(f"SELECT * FROM oblivion.advance_call('{row.id}', 'end', NULL, 'service_role')")
    first, second, _ = at_once(engine, end, end)
    return first.get("status"), second.get("status")


def turn_beside_an_end(engine: Engine) -> object:
    account(engine)
    call = started(engine)
    ended, turned, _ = at_once(engine, select(end_call(call)), select(set_call_turn(call, used_turn=True)))
    return ended.get("status"), turned.get("status"), value(engine, "SELECT end_time IS NOT NULL FROM call_sessions")


def two_calls_of_a_poor_account(engine: Engine) -> object:
    account(engine, 3)
    calls = started(engine), started(engine)
    first, second, _ = at_once(engine, *(select(end_call(call)) for call in calls))
    return first.get("charged"), second.get("charged"), balance(engine)


def top_up_and_a_call_that_needs_it(engine: Engine) -> object:
    account(engine, 3)
    call = started(engine)
    _, ended, _ = at_once(engine, select(top_up("payer", 10, "key")), select(end_call(call)))
    return ended.get("status", "charged", "shortfall"), balance(engine)


def two_top_ups_of_one_key(engine: Engine) -> object:
    account(engine)
    first, second, _ = at_once(engine, *(select(top_up("payer", 5, "key")) for _ in range(2)))
    return first.get("status", "balance"), second.get("status", "balance"), balance(engine)


def two_top_ups_beyond_an_integer(engine: Engine) -> object:
    account(engine, MOST - 7)
    _, second, _ = at_once(engine, *(select(top_up("payer", 5, key)) for key in ("one", "other")))
    return second.get("status"), balance(engine)


def two_refunds_of_more_than_was_charged(engine: Engine) -> object:
    account(engine)
    call = started(engine)
    once(engine, select(end_call(call)))
    first, second, _ = at_once(engine, *(select(refund_call(call, 3, key)) for key in ("one", "other")))
    return first.get("status"), second.get("status"), balance(engine)


def two_starts_of_one_key(engine: Engine, user: str | None = "payer") -> object:
    account(engine)
    first, second, _ = at_once(engine, *(select(start_call(user, "room", "video", client_key="key")) for _ in "ab"))
    same = second.error or second.get("session_id") == first.get("session_id")
    return same, value(engine, "SELECT count(*) FROM call_sessions")


def two_starts_of_a_visitor(engine: Engine) -> object:
    return two_starts_of_one_key(engine, None)


def two_reapers(engine: Engine) -> object:
    account(engine)
    started(engine, 1000, unseen=600)
    first, second, waited = at_once(engine, select(reap_stale_calls()), select(reap_stale_calls()))
    return len(first.rows), len(second.rows), waited


def two_settlers(engine: Engine) -> object:
    account(engine)
    call = started(engine)
    once(engine, text(f"UPDATE call_sessions SET end_time = clock_timestamp() WHERE id = '{call}'"))
    first, second, waited = at_once(engine, select(settle_calls()), select(settle_calls()))
    return len(first.rows), len(second.rows), waited


def sweep_beside_two_ticks(engine: Engine, sweep: Statement, change: str, *, unseen: int = 0) -> object:
    """A transaction that bills one account and then another, and a sweep of those two, which come the other way."""
    for user in "ab":
        account(engine, user=user)
    one, other = (select(tick_call(started(engine, user=user))) for user in "ab")
    # The first in every order, that of the ids and those in which the rows lie, is of the last account.
    for user, call in zip("ba", sorted(started(engine, 1000, unseen=unseen) for _ in range(2)), strict=True):
        once(engine, text(f"UPDATE call_sessions SET user_id = '{user}', {change} WHERE id = '{call}'"))
    with Late(engine) as late, engine.connect() as ticking:
        ticking.execute(text("SET deadlock_timeout = '20s'"))  # so that it is the sweep that sees one
        ticks = list(ticking.execute(one))
        late.ask(sweep)
        ticks += ticking.execute(other)
        ticking.commit()
    error = late.answer.error
    return [row.status for row in ticks], error[0] if error else [row.status for row in late.answer.rows]


def reaping_beside_two_ticks(engine: Engine) -> object:
    return sweep_beside_two_ticks(engine, select(reap_stale_calls()), "room_id = room_id", unseen=600)


def settling_beside_two_ticks(engine: Engine) -> object:
    return sweep_beside_two_ticks(engine, select(settle_calls()), "end_time = clock_timestamp()")


def two_trimmings_of_the_ledger(engine: Engine) -> object:
    account(engine)
    for key in ("one", "two", "three", "four"):
        once(engine, select(top_up("payer", 5, key)))
    three = "(SELECT created_at FROM token_ledger WHERE key = 'three')"
    at_once(engine, *(text(f"SELECT oblivion.trim_ledger({before})") for before in (three, "'infinity'")))
    return value(engine, "SELECT drift FROM oblivion.balance_audit WHERE user_id = 'payer'")


FOLD: Final = text("SELECT oblivion.fold_charges('infinity')")


def minutes_later(engine: Engine, *calls: UUID) -> None:
    """Charge each of the calls, one after the other, a minute that has begun since it was billed."""
    for call in calls:
        age(engine, call, 60)
        once(engine, select(tick_call(call)))


def folding_beside_trimming(engine: Engine) -> object:
    account(engine)
    call = started(engine, -30)
    minutes_later(engine, *[call] * 4)
    once(engine, select(end_call(call)))
    third = "(SELECT min(created_at) FROM token_ledger WHERE user_id = 'payer' AND balance = 94)"
    at_once(engine, text(f"SELECT oblivion.trim_ledger({third})"), FOLD)
    return value(engine, "SELECT drift FROM oblivion.balance_audit WHERE user_id = 'payer'")


def folding_of_a_call_beside_another(engine: Engine) -> object:
    account(engine)
    over, going_on = started(engine, -30), started(engine, -30)
    minutes_later(engine, over, going_on, over, going_on)
    once(engine, select(top_up("payer", 5, "key")))
    minutes_later(engine, over, going_on, over)
    once(engine, select(end_call(over)))
    once(engine, FOLD)
    rows = once(engine, text("SELECT tokens, balance FROM token_ledger WHERE user_id = 'payer' ORDER BY id")).rows
    return [tuple(row) for row in rows]


# An old client logs what it billed by itself.
USAGE: Final = text(
    "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)"
    " VALUES ('payer', 'call', 1, 'voice', false)"
)


def usage_during_a_top_up(engine: Engine) -> object:
    account(engine)
    _, logged, waited = at_once(engine, select(top_up("payer", 1, "key")), USAGE)
    return logged.error, waited


def usage_during_a_short_end(engine: Engine) -> object:
    account(engine, 3)
    _, logged, waited = at_once(engine, select(end_call(started(engine))), USAGE)
    return logged.error, waited


def tick_of_a_call_younger_than_its_transaction(engine: Engine) -> object:
    account(engine)
    with engine.connect() as connection:
        connection.execute(text("SELECT now()"))
        return ask(connection, select(tick_call(started(engine, 0)))).get("minutes_billed", "charged")


# -- What may come out wrong


def end_that_the_balance_does_not_cover(engine: Engine) -> object:
    account(engine, 3)
    return once(engine, select(end_call(started(engine)))).get("status", "charged", "shortfall", "balance")


def end_after_the_clock_was_set_back(engine: Engine, tokens: int = 100) -> object:
    account(engine, tokens)
    call = started(engine, 100)
    once(engine, select(tick_call(call)))
    age(engine, call, -50, unseen=-50)
    answers = [once(engine, select(end_call(call))) for _ in range(2)]
    length = "SELECT round(date_part('epoch', end_time - start_time))::int FROM call_sessions"
    return *(answer.get("minutes_billed") for answer in answers), value(engine, length)


def short_end_after_the_clock_was_set_back(engine: Engine) -> object:
    return end_after_the_clock_was_set_back(engine, 3)


def written_end_after_the_clock_was_set_back(engine: Engine) -> object:
    account(engine)
    call = started(engine, 100)
    once(engine, select(tick_call(call)))
    age(engine, call, -50, unseen=-50)
    with engine.connect() as page:
        page.execute(text("SET ROLE anon"))
        ask(page, text("UPDATE call_sessions SET end_time = now()"))
    return value(engine, "SELECT round(date_part('epoch', end_time - start_time))::int FROM call_sessions")


def tick_after_the_clock_was_set_back(engine: Engine) -> object:
    account(engine)
    call = started(engine, 100)
    once(engine, select(tick_call(call)))
    age(engine, call, -50, unseen=-50)
    once(engine, select(tick_call(call)))
    return value(engine, "SELECT round(date_part('epoch', seen_at - started_at))::int FROM oblivion.call_meters")


def end_of_a_call_whose_start_was_moved(engine: Engine) -> object:
    account(engine)
    call = started(engine)
    once(engine, select(tick_call(call)))
    age(engine, call, -3600)
    answers = [once(engine, select(end_call(call))) for _ in range(2)]
    return *(answer.get("charged", "credit_cost") for answer in answers), balance(engine)


def tick_of_a_call_whose_start_was_moved(engine: Engine) -> object:
    account(engine)
    call = started(engine)
    once(engine, select(tick_call(call)))
    age(engine, call, -3600)
    return once(engine, select(tick_call(call))).get("charged", "credit_cost"), balance(engine)


def short_end_of_a_call_whose_start_was_moved(engine: Engine) -> object:
    account(engine, 3)
    call = started(engine)
    once(engine, select(tick_call(call)))
    age(engine, call, -3600)
    return once(engine, select(end_call(call))).get("minutes_billed", "credit_cost")


def turn_of_a_call_whose_start_was_moved(engine: Engine) -> object:
    account(engine)
    call = started(engine)
    once(engine, select(tick_call(call)))
    age(engine, call, -3600)
    once(engine, select(set_call_turn(call, used_turn=True)))
    age(engine, call, 3660)
    return once(engine, select(end_call(call))).get("minutes_billed", "credit_cost")


def reaping_after_the_clock_was_set_back(engine: Engine) -> object:
    account(engine)
    started(engine, -60, unseen=600)
    once(engine, select(reap_stale_calls()))
    return value(engine, "SELECT round(date_part('epoch', end_time - start_time) / 60) FROM call_sessions")


def end_that_costs_more_than_can_be_held(engine: Engine) -> object:
    account(engine)
    ended = once(engine, select(end_call(started(engine, 365 * 86400, used_turn=True))))
    return ended.get("status"), value(engine, "SELECT end_time IS NOT NULL FROM call_sessions"), balance(engine)


def tick_that_costs_more_than_can_be_held(engine: Engine) -> object:
    account(engine, MOST)
    return once(engine, select(tick_call(started(engine, 365 * 86400, used_turn=True)))).get("status", "charged")


def tick_and_end_of_another_users_call(engine: Engine) -> object:
    account(engine)
    call = started(engine)
    once(engine, text(switch(metadata, access="authenticated").replace(":", "\\:")))
    with engine.connect() as other:
        other.execute(text("SELECT set_config('request.jwt.claims', '{\"sub\"\\: \"other\"}', false)"))
        other.execute(text("SET ROLE authenticated"))
        answers = [ask(other, select(function(call))).get("status") for function in (tick_call, end_call)]
    return *answers, balance(engine)


def two_failures_of_one_call(engine: Engine) -> object:
    account(engine)
    call = started(engine, 365 * 86400, used_turn=True)
    for _ in range(2):
        once(engine, select(tick_call(call)))
    return [tuple(row) for row in once(engine, text("SELECT attempts FROM oblivion.billing_incidents")).rows]


def script_that_labels_its_credit_with_a_known_key(engine: Engine) -> object:
    account(engine)
    once(engine, select(top_up("payer", 5, "key")))
    with engine.connect() as connection:
        connection.execute(text("SELECT set_config('oblivion.reason', 'top_up  key', true)"))
        answer = ask(connection, text("UPDATE user_accounts SET tokens_remaining = 999 WHERE user_id = 'payer'"))
    return answer.error, balance(engine)


def receipt(engine: Engine, call: UUID) -> list[tuple[object, ...]]:
    """What explain_call() says of each segment's minutes and money."""
    rows = once(engine, select(explain_call(call))).rows
    return [(row.minutes, row.due, row.charged) for row in rows]


def receipt_of_a_turned_call_that_nobody_pays(engine: Engine) -> object:
    call = started(engine)
    once(engine, select(set_call_turn(call, used_turn=True)))
    return receipt(engine, call)


def receipt_of_a_free_call_after_the_clock_was_set_back(engine: Engine) -> object:
    account(engine)
    once(engine, text("INSERT INTO token_rates VALUES ('video', false, clock_timestamp(), 0)"))
    call = started(engine, -3600)
    once(engine, select(end_call(call)))
    return receipt(engine, call)


FEWER: Final = "Give fewer tokens"
CHARGED: Final = "explain_call() gives what was charged"

FOLDED: Final = [(100, 100), (-2, 98), (-4, 94), (-2, 92), (5, 97), (-2, 95), (-4, 91)]

# What comes of each, as the engine is.
SOUND: Final[dict[Scenario, object]] = {
    two_ticks: (4, 0, 96),
    turn_to_and_from: ("ok", 6, 94),
    two_turns: (4, 0, 96),
    two_ends: (("ok", 4), ("ended", 0), (1, 4)),
    end_of_a_revived_call: (1, 24),
    two_ends_of_a_poor_account: (("short", 3), ("ended", 0), (1, 4)),
    end_then_tick: ("ended", 0),
    end_beside_a_page_that_writes_the_call: (None, ("ok", 4)),
    turn_beside_a_tick: (4, 0, 96),
    turn_beside_an_end: ("ok", "ended", True),
    turn_of_a_call_younger_than_its_transaction: (2, 4),
    reaping_beside_a_tick: ("ok", 0, False),
    two_ends_of_an_old_clients_call: ("not_billed", "ended"),
    two_calls_of_a_poor_account: (3, 0, 0),
    top_up_and_a_call_that_needs_it: (("ok", 4, 0), 9),
    two_top_ups_of_one_key: (("ok", 105), ("known", 105), 105),
    two_top_ups_beyond_an_integer: (("22003", FEWER), MOST - 2),
    two_refunds_of_more_than_was_charged: ("ok", ("22023", CHARGED), 99),
    two_starts_of_one_key: (True, 1),
    two_starts_of_a_visitor: (True, 1),
    two_reapers: (1, 0, False),
    two_settlers: (1, 0, False),
    reaping_beside_two_ticks: (["ok", "ok"], ["ok", "ok"]),
    settling_beside_two_ticks: (["ok", "ok"], ["ok", "ok"]),
    two_trimmings_of_the_ledger: 0,
    folding_beside_trimming: 0,
    folding_of_a_call_beside_another: FOLDED,
    usage_during_a_top_up: (None, False),
    usage_during_a_short_end: (None, False),
    tick_of_a_call_younger_than_its_transaction: (1, 2),
    end_that_the_balance_does_not_cover: ("short", 3, 1, 0),
    end_after_the_clock_was_set_back: (2, 2, 100),
    short_end_after_the_clock_was_set_back: (2, 2, 100),
    written_end_after_the_clock_was_set_back: 100,
    tick_after_the_clock_was_set_back: 100,
    end_of_a_call_whose_start_was_moved: ((0, 4), (0, 4), 96),
    tick_of_a_call_whose_start_was_moved: ((0, 4), 96),
    short_end_of_a_call_whose_start_was_moved: (0, 4),
    turn_of_a_call_whose_start_was_moved: (3, 10),
    tick_that_costs_more_than_can_be_held: ("unsettled", 0),
    tick_and_end_of_another_users_call: ("unknown", "unknown", 100),
    reaping_after_the_clock_was_set_back: 0,
    end_that_costs_more_than_can_be_held: ("unsettled", True, 100),
    two_failures_of_one_call: [(2,)],
    script_that_labels_its_credit_with_a_known_key: (("23505", None), 105),
    receipt_of_a_turned_call_that_nobody_pays: [(0, 0, 0), (0, 0, 0)],
    receipt_of_a_free_call_after_the_clock_was_set_back: [(0, 0, 0)],
}


@dataclass(frozen=True)
class Mutation:
    """A change of a function's text, or of an index where `function` is empty, and what then comes of a scenario."""

    function: str
    old: str
    new: str
    scenario: Scenario
    outcome: object

    def apply(self, engine: Engine) -> None:
        """Make the change; a text that is not there once is not what this is about."""
        sql = self.new
        if self.function:
            sql = function_sql(f"oblivion.{self.function}")
            assert sql.count(self.old) == 1, f"{self.function}() has not one {self.old!r}"
            sql = sql.replace(self.old, self.new)
        else:
            sql = f"DROP INDEX {self.old}; {self.new}"
        with engine.begin() as connection:
            connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


LOCK: Final = "FOR NO KEY UPDATE"
ONE_LEFT_ASIDE: Final = (["ok", "ok"], ["ok"])
UNSETTLED: Final = ("unsettled", 0, 0, None)
MUTATIONS: Final = {
    "tick_call bills what is not plain": Mutation(
        "tick_call", "AND m.is_plain\n      AND", "AND", end_then_tick, ("ok", 2)
    ),
    "tick_call lets the clock go back": Mutation(
        "tick_call", "seen_at = greatest(clock, m.seen_at)", "seen_at = clock", tick_after_the_clock_was_set_back, 50
    ),
    "tick_call lets everybody bill": Mutation(
        "tick_call",
        "      AND (oblivion.open_access() OR oblivion.may_act_for(m.user_id, caller))\n    RETURNING",
        "    RETURNING",
        tick_and_end_of_another_users_call,
        ("ok", "unknown", 96),
    ),
    "end_call logs a second time": Mutation(
        "end_call", "AND m.is_plain\n      AND", "AND", end_of_a_revived_call, (2, 28)
    ),
    "end_call lets the clock go back": Mutation(
        "end_call",
        "seen_at = greatest(clock, m.seen_at)",
        "seen_at = clock",
        end_after_the_clock_was_set_back,
        (1, 1, 50),
    ),
    "end_call lets everybody end": Mutation(
        "end_call",
        "      AND (oblivion.open_access() OR oblivion.may_act_for(m.user_id, caller))\n    RETURNING",
        "    RETURNING",
        tick_and_end_of_another_users_call,
        ("unknown", "ok", 96),
    ),
    "end_call ends what is not paid": Mutation(
        "end_call",
        "AND (m.due = 0 OR a.tokens_remaining IS NOT NULL)",
        "",
        end_that_the_balance_does_not_cover,
        ("ok", 4, 0, 3),
    ),
    "end_call locks the meter first": Mutation(
        "end_call",
        " FOR NO KEY UPDATE",
        "",
        end_beside_a_page_that_writes_the_call,
        ("40P01", ("ok", 4)),
    ),
    "advance_call locks nothing": Mutation("advance_call", LOCK, "", two_turns, (4, 4, 92)),
    "advance_call locks the meter only": Mutation(
        "advance_call", LOCK, f"{LOCK} OF m", turn_beside_an_end, ("ok", "ok", False)
    ),
    "advance_call locks the call only": Mutation("advance_call", LOCK, f"{LOCK} OF c", turn_beside_a_tick, (4, 4, 92)),
    "last_moment reads the transaction's clock": Mutation(
        "last_moment", "clock_timestamp()", "now()", turn_of_a_call_younger_than_its_transaction, (1, 2)
    ),
    "last_moment lets the clock go back": Mutation(
        "last_moment",
        "greatest(clock_timestamp(), meter.seen_at)",
        "clock_timestamp()",
        short_end_after_the_clock_was_set_back,
        (1, 1, 50),
    ),
    "advance_call prices anew what is billed": Mutation(
        "advance_call",
        "meter.first_minute + (meter.cost - meter.due_before) / nullif(meter.tokens_per_minute, 0)",
        "NULL",
        turn_of_a_call_whose_start_was_moved,
        (3, 18),
    ),
    "advance_call reaps before the start": Mutation(
        "advance_call",
        "greatest(meter.seen_at, meter.started_at)",
        "meter.seen_at",
        reaping_after_the_clock_was_set_back,
        -11,
    ),
    "guard_metered_call lets the clock go back": Mutation(
        "guard_metered_call",
        "greatest(clock_timestamp(), meter.seen_at)",
        "clock_timestamp()",
        written_end_after_the_clock_was_set_back,
        50,
    ),
    "advance_unmetered_call locks nothing": Mutation(
        "advance_unmetered_call", LOCK, "", two_ends_of_an_old_clients_call, ("not_billed", "not_billed")
    ),
    "bill_call locks no account": Mutation(
        "bill_call", LOCK, "", top_up_and_a_call_that_needs_it, (("unsettled", 0, 0), 13)
    ),
    "bill_call locks out inserts": Mutation("bill_call", LOCK, "FOR UPDATE", usage_during_a_short_end, (None, True)),
    "bill_call charges all that is due": Mutation(
        "bill_call", "greatest(0, due - (balance - charged))", "0", end_that_the_balance_does_not_cover, UNSETTLED
    ),
    "bill_call misses what is there": Mutation(
        "bill_call",
        "greatest(0, due - (balance - charged))",
        "due - (balance - charged)",
        top_up_and_a_call_that_needs_it,
        (("ok", 13, -9), 0),
    ),
    "bill_call bills less than it did": Mutation(
        "bill_call",
        "due := greatest(0, segment.due_after - total)",
        "due := segment.due_after - total",
        short_end_of_a_call_whose_start_was_moved,
        (0, 0),
    ),
    "bill_call counts minutes below zero": Mutation(
        "bill_call",
        "seconds := greatest(0, date_part('epoch', until - meter.started_at))",
        "seconds := date_part('epoch', until - meter.started_at)",
        short_end_of_a_call_whose_start_was_moved,
        (-58, 4),
    ),
    "bill_call sums up without end": Mutation(
        "bill_call",
        "total > 999999",
        "false",
        end_that_costs_more_than_can_be_held,
        (("22003", None), False, 100),
    ),
    "credit_account locks nothing": Mutation(
        "credit_account", LOCK, "", two_top_ups_of_one_key, (("ok", 105), ("23505", None), 105)
    ),
    "credit_account adds to what it read before": Mutation(
        "credit_account", LOCK, "", two_top_ups_beyond_an_integer, (("22003", None), MOST - 2)
    ),
    "credit_account locks out inserts": Mutation(
        "credit_account", LOCK, "FOR UPDATE", usage_during_a_top_up, (None, True)
    ),
    "credit_account adds without end": Mutation(
        "credit_account",
        "balance::bigint + tokens > 2147483647",
        "false",
        two_top_ups_beyond_an_integer,
        (("22003", None), MOST - 2),
    ),
    "credit_account gives back what was not charged": Mutation(
        "credit_account", "tokens > refundable", "false", two_refunds_of_more_than_was_charged, ("ok", "ok", 102)
    ),
    "refund_call locks nothing": Mutation(
        "refund_call", LOCK, "", two_refunds_of_more_than_was_charged, ("ok", "ok", 102)
    ),
    "sweep_calls waits for another reaper": Mutation("sweep_calls", "SKIP LOCKED", "", two_reapers, (1, 0, True)),
    "sweep_calls waits for another settler": Mutation("sweep_calls", "SKIP LOCKED", "", two_settlers, (1, 0, True)),
    "sweep_calls reaps in any order": Mutation(
        "sweep_calls", "ORDER BY s.user_id", "", reaping_beside_two_ticks, ONE_LEFT_ASIDE
    ),
    "sweep_calls settles in any order": Mutation(
        "sweep_calls", "ORDER BY s.user_id", "", settling_beside_two_ticks, ONE_LEFT_ASIDE
    ),
    "sweep_calls reaps what is being ticked": Mutation(
        "sweep_calls", "OF c, m SKIP LOCKED", "OF c SKIP LOCKED", reaping_beside_a_tick, ("ok", 1, True)
    ),
    "trim_ledger takes no turns": Mutation(
        "trim_ledger",
        "PERFORM pg_advisory_xact_lock(hashtextextended('oblivion.trim_ledger', 0));",
        "",
        two_trimmings_of_the_ledger,
        -110,
    ),
    "fold_charges takes no turns": Mutation(
        "fold_charges",
        "PERFORM pg_advisory_xact_lock(hashtextextended('oblivion.trim_ledger', 0));",
        "",
        folding_beside_trimming,
        4,
    ),
    "fold_charges takes turns only with itself": Mutation(
        "fold_charges",
        "hashtextextended('oblivion.trim_ledger', 0)",
        "hashtextextended('oblivion.fold_charges', 0)",
        folding_beside_trimming,
        4,
    ),
    "fold_charges folds across a credit": Mutation(
        "fold_charges",
        "FILTER (WHERE NOT e.is_charge)",
        "FILTER (WHERE false)",
        folding_of_a_call_beside_another,
        [(100, 100), (-2, 98), (-2, 96), (5, 101), (-2, 99), (-8, 91)],
    ),
    "fold_charges restates no balance": Mutation(
        "fold_charges",
        ", balance = l.balance + c.shift",
        "",
        folding_of_a_call_beside_another,
        [(100, 100), (-2, 96), (-4, 94), (-2, 92), (5, 97), (-2, 93), (-4, 91)],
    ),
    "fold_charges folds calls that go on": Mutation(
        "fold_charges",
        "(c.end_time < fold_charges.before) IS NOT TRUE OR NOT m.settled",
        "false",
        folding_of_a_call_beside_another,
        [(100, 100), (-4, 96), (-4, 92), (5, 97), (-2, 95), (-4, 91)],
    ),
    "start_call lets the second fail": Mutation(
        "start_call",
        "IF client_key IS NULL OR attempt = 5 THEN",
        "IF true THEN",
        two_starts_of_one_key,
        (("23505", None), 1),
    ),
    "explain_call shows what was not billed": Mutation(
        "explain_call",
        "least(s.due_after, m.cost)",
        "s.due_after",
        receipt_of_a_turned_call_that_nobody_pays,
        [(2, 4, 4), (0, 0, 0)],
    ),
    "explain_call shows less than nothing": Mutation(
        "explain_call",
        "greatest(0, least(s.due_after, m.cost) - s.due_before)",
        "(least(s.due_after, m.cost) - s.due_before)",
        receipt_of_a_turned_call_that_nobody_pays,
        [(0, 0, 0), (0, -4, -4)],
    ),
    "explain_call counts minutes below zero": Mutation(
        "explain_call",
        "greatest(0, s.minutes)",
        "s.minutes",
        receipt_of_a_free_call_after_the_clock_was_set_back,
        [(-59, 0, 0)],
    ),
    "call_meters_client_key is gone": Mutation(
        "", "oblivion.call_meters_client_key", "", two_starts_of_one_key, (False, 2)
    ),
    "call_meters_client_key knows no visitors": Mutation(
        "",
        "oblivion.call_meters_client_key",
        "CREATE UNIQUE INDEX call_meters_client_key ON oblivion.call_meters (user_id, client_key)",
        two_starts_of_a_visitor,
        (False, 2),
    ),
    "billing_incidents_open is gone": Mutation("", "oblivion.billing_incidents_open", "", two_failures_of_one_call, []),
    "idx_token_ledger_key is gone": Mutation(
        "", "public.idx_token_ledger_key", "", script_that_labels_its_credit_with_a_known_key, (None, 999)
    ),
}


@pytest.mark.parametrize("scenario", SOUND, ids=lambda scenario: scenario.__name__)
@pytest.mark.server
def test_engine_holds(engine: Engine, scenario: Scenario) -> None:
    assert scenario(engine) == SOUND[scenario]


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
@pytest.mark.few(mutation=range(0, 99, 4))
def test_mutant_is_caught(engine: Engine, mutation: Mutation) -> None:
    assert mutation.outcome != SOUND[mutation.scenario]
    mutation.apply(engine)
    assert mutation.scenario(engine) == mutation.outcome
