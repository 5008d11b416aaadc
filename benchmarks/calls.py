"""Databases with calls for benchmarks/billing.py: of this package, of another build of it, and of the old scripts.

The functions of the API make, tick and end the calls. Time passes without waiting, because `Build.move` moves a call's
times back. The SQL that knows columns of one build or the other is in `FORMER` and `CURRENT`, and in their parts.
"""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple

from common import CLIENTS, WARM, Database, build_by_hand, cursor, libpq
from cpu import Rounds, Run

from oblivion_schema import upgrade

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sqlalchemy import URL

ACCOUNTS: Final = 1000
TICKS: Final = 20  # of a call of ten minutes, one each 30 s
MINUTES: Final = 60  # of the call whose bytes are measured
ROUND: Final = 35  # transactions of a client, before the other database takes its turn
AT_ONCE: Final = 5_000  # calls that are started in one transaction

ACCOUNTS_ROWS: Final = """
INSERT INTO user_accounts (user_id, tokens_remaining) SELECT 'user_' || n, 1000000000 FROM generate_series(0, 999) AS n
"""

# start_call() leaves the id to the column's default. So a script of pgbench, which has only numbers, can name a call.
NUMBERED_CALLS: Final = """
CREATE SEQUENCE benchmark_calls;
ALTER TABLE call_sessions ALTER id SET DEFAULT md5(nextval('benchmark_calls')::text)::uuid
"""
START_ALL: Final = """
SELECT count(start_call('user_' || n %% %(accounts)s, 'room', 'video')) FROM generate_series(%(first)s, %(last)s) AS n
"""
TICK_ALL: Final = "SELECT count(tick_call(md5(n::text)::uuid)) FROM generate_series(%(first)s, %(last)s) AS n"
END_ALL: Final = "SELECT count(end_call(md5(n::text)::uuid)) FROM generate_series(%(first)s, %(last)s) AS n"
# What adding calls leaves for later would be done in the runs that are measured.
TIDY: Final = (
    "SELECT oblivion.fold_usage(2147483647), oblivion.fold_calls(2147483647)",
    "VACUUM (INDEX_CLEANUP ON) call_sessions, oblivion.call_meters, user_accounts",
    "VACUUM oblivion.usage_deltas, oblivion.call_deltas, oblivion.user_usage",
)

# A call of the pages, which was billed for its first minute, as those of the engine are.
CALLS_BY_HAND: Final = """
INSERT INTO call_sessions (id, room_id, mode, user_id, start_time, updated_at, credit_cost)
SELECT
  md5(n::text)::uuid, 'room', 'video', 'user_' || n %% %(accounts)s,
  now() - interval '90 seconds', now() - interval '60 seconds', 2
FROM generate_series(%(first)s, %(last)s) AS n
"""
USAGE_BY_HAND: Final = """
INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds)
SELECT 'user_' || n %% %(accounts)s, md5(n::text)::uuid, 2, 'video', false, 30
FROM generate_series(%(first)s, %(last)s) AS n
"""
FURTHER_USAGE: Final = USAGE_BY_HAND.replace("md5(n::text)", "gen_random_uuid()")
USAGE_BY_MINUTE: Final = """
INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds, "timestamp")
SELECT 'user_' || n %% 1000, md5(n::text)::uuid, 2, 'video', false, 60, now() + minute * interval '1 minute'
FROM generate_series(1, %s) AS minute, generate_series(1, %s) AS n
ORDER BY minute, n
"""
# Roles with the grants of the old platform.
GRANTS: Final = "GRANT ALL ON ALL TABLES IN SCHEMA public TO anon"


class Build(NamedTuple):
    """What differs between builds of the engine, as SQL."""

    move: str
    """Moves the times of calls that go on `back` seconds into the past, past all triggers."""
    sums: str
    """Tokens due by the clock, billed, of usage, taken from the accounts, and charged in the ledger: all are equal."""
    minute_later: str
    """Makes all calls that go on a minute older: `minutes` have started. It writes the meters alone."""


MOVE_CALLS: Final = """UPDATE call_sessions
SET
  start_time = start_time - %(back)s * interval '1 second',
  updated_at = updated_at - %(back)s * interval '1 second'
WHERE end_time IS NULL AND id IN (SELECT md5(n::text)::uuid FROM generate_series(%(first)s, %(last)s) AS n);
"""
MOVE_METERS: Final = """UPDATE oblivion.call_meters AS m
SET
  started_at = m.started_at - %(back)s * interval '1 second',
  seen_at = m.seen_at - %(back)s * interval '1 second'
FROM call_sessions AS c
WHERE c.id = m.session_id AND c.end_time IS NULL
  AND c.id IN (SELECT md5(n::text)::uuid FROM generate_series(%(first)s, %(last)s) AS n);
"""

# A tick wrote the call and its row of usage.
FORMER: Final = Build(
    move=f"""
BEGIN;
SET LOCAL session_replication_role = replica;
{MOVE_CALLS}COMMIT
""",
    sums="""
SELECT
  sum(2 * ceil(extract(epoch FROM coalesce(end_time, updated_at) - start_time) / 60)),
  sum(credit_cost),
  (SELECT coalesce(sum(tokens_used), 0) FROM token_usage WHERE session_id IN (SELECT id::text FROM call_sessions)),
  (SELECT sum(1000000000 - tokens_remaining) FROM user_accounts WHERE user_id LIKE 'user\\_%'),
  (SELECT coalesce(-sum(tokens), 0) FROM token_ledger WHERE kind = 'charge')
FROM call_sessions
""",
    minute_later="UPDATE oblivion.call_meters SET first_minute = first_minute - 1",
)
# A tick writes the meter alone; the call and the row of usage get their tokens when the call ends.
CURRENT: Final = Build(
    move=f"""
BEGIN;
SET LOCAL session_replication_role = replica;
{MOVE_CALLS}{MOVE_METERS}COMMIT
""",
    sums="""
WITH calls AS (
  SELECT
    coalesce(c.end_time, m.seen_at) - m.started_at AS lasted,
    c.credit_cost,
    CASE WHEN c.end_time IS NULL THEN m.cost - c.credit_cost ELSE 0 END AS live
  FROM call_sessions AS c
  JOIN oblivion.call_meters AS m ON m.session_id = c.id
)
SELECT
  sum(2 * ceil(extract(epoch FROM lasted) / 60)),
  sum(credit_cost + live),
  sum(live)
    + (SELECT coalesce(sum(tokens_used), 0) FROM token_usage WHERE session_id IN (SELECT id::text FROM call_sessions)),
  (SELECT sum(1000000000 - tokens_remaining) FROM user_accounts WHERE user_id LIKE 'user\\_%'),
  (SELECT coalesce(-sum(tokens), 0) FROM token_ledger WHERE kind = 'charge')
FROM calls
""",
    # By the clock, so that the time that a run takes adds no minute, as long as it is less than 55 s.
    minute_later="""
UPDATE oblivion.call_meters SET started_at = clock_timestamp() - make_interval(secs => 60 * %(minutes)s - 55)
WHERE NOT settled
""",
)
IS_METERED: Final = """
SELECT count(*) FROM information_schema.columns
WHERE (table_schema, table_name, column_name) = ('oblivion', 'call_meters', 'started_at')
"""
BROKEN_BALANCES: Final = "SELECT count(*) FROM oblivion.balance_audit WHERE drift <> 0 OR gaps <> 0"
CHARGES: Final = "SELECT count(*), -sum(tokens) FROM token_ledger WHERE kind = 'charge'"
HAS_FOLDING: Final = "SELECT (to_regprocedure('oblivion.fold_charges(timestamptz)') IS NOT NULL)::integer"
FOLD: Final = "SELECT oblivion.fold_charges('infinity')"

NEXT_CALL: Final = (
    r"\set i :first + :client_id * :share + :n",
    r"\set n :n + 1",
    r"\set user :i % :accounts",
)
# Each call of the client once in each round; the transactions before the first round have calls of their own.
SAME_CALL: Final = (
    r"\set place case when :t <= :warm then :t - 1 else :warm + (:t - :warm - 1) % :transactions end",
    r"\set i :first + :client_id * :share + :place",
)
TICK_CALL: Final = "SELECT * FROM tick_call(md5(:i::text)::uuid);"
END_CALL: Final = "SELECT * FROM end_call(md5(:i::text)::uuid);"


def options(mode: str = "prepared", **variables: int) -> list[str]:
    """Options of pgbench: the protocol's mode, and values of variables."""
    return ["-M", mode, *(word for name, value in variables.items() for word in ("-D", f"{name}={value}"))]


class Calls(Database):
    """A database of a thousand accounts, with calls that are numbered from 1."""

    def __init__(self, url: URL, home: Path) -> None:
        super().__init__(url, home)
        self.calls = 0

    def load(self, calls: int) -> None:
        """Insert the accounts, and calls of all of them."""
        self.query(ACCOUNTS_ROWS)
        new = {"first": self.calls + 1, "last": self.calls + calls, "accounts": ACCOUNTS}
        self.calls = new["last"]
        self.fill(new)
        self.query("VACUUM (ANALYZE)")

    def add(self, calls: int, accounts: int = ACCOUNTS) -> int:
        """Add calls that had their first minute billed, and have their second to pay; returns the number of the first.

        They are of the accounts in turn.
        """
        first = self.calls + 1
        self.calls += calls
        self.insert({"first": first, "last": self.calls, "accounts": accounts})
        return first

    def insert(self, calls: dict[str, int]) -> None:
        """Insert the calls `first` to `last` of so many `accounts`, for `add()`."""
        raise NotImplementedError

    def fill(self, calls: dict[str, int]) -> None:
        """Insert calls that are never used, so that the tables have a size."""
        self.insert(calls)

    def bill(
        self, script: Sequence[str], share: int, *, accounts: int = ACCOUNTS, at_once: int = 1, mode: str = "prepared"
    ) -> Rounds:
        """Add `share` calls for each client, which the script is to bill, `at_once` of them in each run of it."""
        first = self.add(CLIENTS * share, accounts)
        transactions = share // at_once - WARM
        rounds = max(1, transactions // ROUND)
        words = options(mode, first=first, share=share, accounts=accounts)
        return Rounds(self, script, transactions // rounds, rounds, *words)


class ByHand(Calls):
    """A database of the old scripts."""

    def insert(self, calls: dict[str, int]) -> None:
        """See `Calls`."""
        self.query(CALLS_BY_HAND, calls)
        self.query(USAGE_BY_HAND, calls)

    def hours(self, calls: int) -> int:
        """Bytes of a row of usage for each minute of calls of one hour, for each call."""
        self.query(ACCOUNTS_ROWS)
        self.query(USAGE_BY_MINUTE, (MINUTES, calls))
        self.query("VACUUM")
        return self.size("token_usage") // calls


class Metered(Calls):
    """A database of this package, or of another build of it."""

    @property
    def build(self) -> Build:
        """The SQL for its columns."""
        return CURRENT if self.query(IS_METERED) == (1,) else FORMER

    def insert(self, calls: dict[str, int]) -> None:
        """See `Calls`."""
        self.query(START_ALL, calls)
        self.move(30, calls)
        self.query(TICK_ALL, calls)
        self.move(60, calls)
        self.tidy()

    def fill(self, calls: dict[str, int]) -> None:
        """See `Calls`. These calls just began, and the rows of usage are of other calls: ticks would take too long."""
        firsts = range(calls["first"], calls["last"] + 1, AT_ONCE)
        parts = [calls | {"first": first, "last": min(first + AT_ONCE - 1, calls["last"])} for first in firsts]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda part: self.query(START_ALL, part), parts))
        self.query(FURTHER_USAGE, calls)
        self.tidy()

    def tidy(self) -> None:
        """Fold the deltas of the roll-ups, and vacuum."""
        with cursor(self.url) as sql:
            for statement in TIDY:
                sql.execute(statement)

    def move(self, back: float, calls: dict[str, int]) -> None:
        """Move the times of the calls `first` to `last` back by so many seconds."""
        self.query(self.build.move, calls | {"back": back})

    def pass_time(self, calls: dict[str, int], ages: Sequence[float]) -> Callable[[], None]:
        """A function that makes these calls, which began now, as old as the next of `ages`, in seconds."""
        begun, coming = time.monotonic(), iter(ages)
        moved = 0.0

        def older() -> None:
            nonlocal moved
            back = next(coming) - moved - (time.monotonic() - begun)
            moved += back
            self.move(back, calls)

        return older

    def ten_minutes(self, each: int) -> Run:
        """CPU time of a whole call that is ticked each 30 s and ended; each client has `each` calls."""
        share = WARM + each
        new = {"first": self.calls + 1, "last": self.calls + CLIENTS * share, "accounts": ACCOUNTS}
        self.calls = new["last"]
        self.query(START_ALL, new)
        self.tidy()
        older = self.pass_time(new, range(15, 616, 30))
        words = options(first=new["first"], share=share, accounts=ACCOUNTS)
        with Rounds(self, (*SAME_CALL, TICK_CALL), each, TICKS, *words) as ticking:
            for _ in range(TICKS):
                older()
                ticking.round()
            ticks = ticking.result()
        with Rounds(self, (*NEXT_CALL, END_CALL), each, 1, *words) as ending:
            older()
            ending.round()
            end = ending.result()
        return Run(0, None if ticks.cpu is None or end.cpu is None else TICKS * ticks.cpu + end.cpu)

    def hours(self, calls: int) -> tuple[dict[str, int], int | None]:
        """Bytes for each table of a call of one hour that was billed each minute and ended.

        The second number is that of the ledger after its charges were folded, if the build can do that.
        """
        new = {"first": 1, "last": calls, "accounts": ACCOUNTS}
        self.query(f"ALTER DATABASE {self.url.database} SET synchronous_commit = off")
        self.query(ACCOUNTS_ROWS)
        self.query("VACUUM FULL token_ledger")
        opened = self.size("token_ledger")
        self.query(START_ALL, new)
        # The warm-up ticks nothing, because its calls would take space.
        script = (r"\if :t > :warm", *SAME_CALL, TICK_CALL, r"\endif")
        words = options(first=1 - WARM, share=calls)
        # If several clients wait for a table to grow, PostgreSQL gives it pages that stay empty.
        with Rounds(self, script, calls, MINUTES, *words, clients=1) as ticking:
            for minutes in range(1, MINUTES + 1):
                if minutes > 1:
                    self.query(self.build.minute_later, {"minutes": minutes})
                ticking.round()
            ticking.result()
        self.query(END_ALL, new)
        charges = self.query(CHARGES)
        if charges != (MINUTES * calls, 2 * MINUTES * calls):
            sys.exit(f"{calls} calls of an hour have {charges[0]} charges of {charges[1]} tokens")
        if self.build is FORMER:
            # No tick writes it: its dead rows are of `minute_later`.
            self.query("VACUUM FULL oblivion.call_meters")
        self.query("VACUUM")
        tables = ("token_ledger", "token_usage", "oblivion.call_meters", "call_sessions")
        sizes = {table: self.size(table) // calls for table in tables}
        sizes["token_ledger"] -= opened // calls
        if self.query(HAS_FOLDING) == (0,):
            return sizes, None
        with cursor(self.url) as sql:
            sql.execute(FOLD)
            sql.execute("VACUUM FULL token_ledger")
        return sizes, (self.size("token_ledger") - opened) // calls

    def check(self) -> str:
        """A line that says that all sums are equal; ends the program if they are not."""
        due, billed, used, taken, charged = sums = self.query(self.build.sums)
        (broken,) = self.query(BROKEN_BALANCES)
        if len(set(sums)) > 1 or broken:
            sys.exit(
                f"{self.url.database}: {due} tokens were due, {billed} billed, {used} of usage, {taken} taken,"
                f" {charged} charged in the ledger; {broken} balances are not the sums of their rows"
            )
        return f"tokens due, billed, of usage, taken and charged in the ledger: {due:,} each; lost: 0"


def make(maintenance: URL, urls: dict[str, URL], against: Path | None) -> None:
    """Create databases without rows: of this package, of the old scripts, and of the other build; two of each."""
    with cursor(maintenance) as sql:
        for name in ("ours", "by_hand", *["theirs"] * bool(against)):
            sql.execute(f"CREATE DATABASE {urls[name].database}")
        upgrade(urls["ours"])
        with cursor(urls["by_hand"]) as scripts:
            build_by_hand(scripts)
            scripts.execute(GRANTS)
        if against:
            command = [str(against / ".venv" / "bin" / "alembic"), "-x", f"url={libpq(urls['theirs'])}"]
            ended = subprocess.run(
                [*command, "upgrade", "head"], cwd=against, check=False, capture_output=True, text=True
            )
            if ended.returncode:
                sys.exit(ended.stderr or ended.stdout)
        for name in ("ours", *["theirs"] * bool(against)):
            with cursor(urls[name]) as metered:
                metered.execute(NUMBERED_CALLS)
        for name in ("ours", "by_hand", *["theirs"] * bool(against)):
            sql.execute(f"CREATE DATABASE {urls[f'disk_{name}'].database} TEMPLATE {urls[name].database}")
