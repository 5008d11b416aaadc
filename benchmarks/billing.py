"""Calls billed per second by the token engine and by the old requests. A higher ratio is better.

    python benchmarks/billing.py [--rounds 3] [--quick] [--url postgresql://...]

It takes some four minutes. It runs pgbench with 8 clients on the embedded PostgreSQL in a temporary folder (TMPDIR),
through its Unix socket, which has the shortest round trip; or on the throw-away server of `--url`, as its superuser.
Durability has the server's defaults.

This package's database and one built by the old scripts alternate (A B A B ...). Each has a hundred thousand calls of a
thousand accounts. In each round each client bills new calls, which began a minute ago and have that minute billed. The
first transactions of a connection are not counted, because PostgREST keeps its connections open. The comparisons:

- `end_call()` with the three requests that the deployed pages bill a call by, and with these after the request that
  ends the call. Each request is a transaction. Without a delay, with 5 ms before each request, and as PostgREST sends
  them.
- `tick_call()` with one statement that only takes the tokens and inserts a row of usage.
- `tick_call()` and `end_call()` on calls of one account, with the same on calls of a thousand accounts.
- The bytes on disk of a call of one hour that is billed each minute, after VACUUM, with a row of usage for each minute:
  here a lower ratio is better.

At the end the charged tokens must equal the due tokens exactly; a line says how many the three requests lose.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import TYPE_CHECKING, Final

from common import CLIENTS, Database, Progress, build_by_hand, cursor, in_turn, names_free, run_on
from sqlalchemy import URL, make_url

from oblivion_schema import upgrade

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

ACCOUNTS: Final = 1000
DATABASES: Final = ("ours", "by_hand", "disk_ours", "disk_by_hand")
MINUTES: Final = 60
WAIT: Final = r"\sleep 5 ms"

ACCOUNTS_ROWS: Final = """
INSERT INTO user_accounts (user_id, tokens_remaining) SELECT 'user_' || n, 1000000000 FROM generate_series(0, 999) AS n
"""
# Each call was last seen after half a minute, so one minute is due and billed; the check at the end relies on that.
CALLS: Final = """
INSERT INTO call_sessions (id, room_id, mode, user_id, start_time, updated_at, credit_cost)
SELECT
  md5(n::text)::uuid, 'room', 'video', 'user_' || n %% %(accounts)s,
  now() - interval '61 seconds', now() - interval '31 seconds', 2
FROM generate_series(%(first)s, %(last)s) AS n
"""
METERS: Final = """
WITH meters AS (
  INSERT INTO oblivion.call_meters (
    session_id, user_id, mode, used_turn, tokens_per_minute, direct_rate, direct_rate_from, turn_rate, turn_rate_from
  )
  SELECT md5(n::text)::uuid, 'user_' || n %% %(accounts)s, 'video', false, 2, 2, '1970-01-01', 6, '1970-01-01'
  FROM generate_series(%(first)s, %(last)s) AS n
  RETURNING session_id, usage_id, user_id
)
INSERT INTO token_usage (id, user_id, session_id, tokens_used, mode, used_turn, duration_seconds)
SELECT usage_id, user_id, session_id, 2, 'video', false, 30 FROM meters
"""
USAGE: Final = """
INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds)
SELECT 'user_' || n %% %(accounts)s, md5(n::text)::uuid, 2, 'video', false, 30
FROM generate_series(%(first)s, %(last)s) AS n
"""

NEXT_CALL: Final = (
    r"\set i :first + :client_id * :share + :n",
    r"\set n :n + 1",
    r"\set user :i % :accounts",
)
TICK_CALL: Final = "SELECT * FROM tick_call(md5(:i::text)::uuid);"
END_CALL: Final = "SELECT * FROM end_call(md5(:i::text)::uuid);"
TICK_ONE_END_ANOTHER: Final = (*NEXT_CALL, TICK_CALL, *NEXT_CALL, END_CALL)
# The statements that PostgREST runs around each request, in a role with the grants of the old platform.
BEFORE_REQUEST: Final = """BEGIN;
SELECT set_config('search_path', 'public', true), set_config('role', 'anon', true),
  set_config('request.jwt.claims', '{"role": "anon"}', true), set_config('request.method', 'POST', true),
  set_config('request.path', '/rest', true), set_config('request.headers', '{}', true),
  set_config('request.cookies', '{}', true);"""
AFTER_REQUEST: Final = "COMMIT;"
GRANTS: Final = "GRANT ALL ON ALL TABLES IN SCHEMA public TO anon"
END_REQUEST: Final = """
UPDATE call_sessions SET end_time = now(), used_turn = false WHERE id = md5(:i::text)::uuid RETURNING *;
"""
THREE_REQUESTS: Final = (
    r"SELECT tokens_remaining AS tokens FROM user_accounts WHERE user_id = 'user_' || :user \gset",
    r"""\set tokens greatest(0, :tokens - 4)
UPDATE user_accounts SET tokens_remaining = :tokens WHERE user_id = 'user_' || :user;""",
    """INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds)
VALUES ('user_' || :user, md5(:i::text)::uuid, 4, 'video', false, 65);""",
)
ONE_STATEMENT: Final = """WITH account AS (
  UPDATE user_accounts SET tokens_remaining = greatest(0, tokens_remaining - 2) WHERE user_id = 'user_' || :user
  RETURNING user_id
)
INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds)
SELECT user_id, md5(:i::text)::uuid, 2, 'video', false, 60 FROM account;"""

# Tokens due by the clock, billed, in token_usage, taken from the accounts, and in the ledger; each without the first
# minute of every call, which was inserted as billed. All five must be equal.
SUMS: Final = """
SELECT
  sum(2 * ceil(extract(epoch FROM coalesce(end_time, updated_at) - start_time) / 60)) - 2 * count(*),
  sum(credit_cost) - 2 * count(*),
  (SELECT sum(tokens_used) FROM token_usage) - 2 * count(*),
  (SELECT sum(1000000000 - tokens_remaining) FROM user_accounts WHERE user_id LIKE 'user\\_%'),
  (SELECT -sum(tokens) FROM token_ledger WHERE kind = 'charge')
FROM call_sessions
"""

# An hour passes without waiting: each step moves the start of metering one minute back, so that a tick bills a minute.
HOUR: Final = """
UPDATE call_sessions SET start_time = now() - interval '59 minutes 1 second', credit_cost = 0;
UPDATE oblivion.call_meters SET first_minute = 60;
DELETE FROM token_usage;
"""
MINUTE_LATER: Final = (
    r"\set i 1 + :client_id * :share + :n % :share",
    r"\set n :n + 1",
    "UPDATE oblivion.call_meters SET first_minute = first_minute - 1 WHERE session_id = md5(:i::text)::uuid;",
    TICK_CALL,
)
ROW_PER_MINUTE: Final = """
INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds, "timestamp")
SELECT 'user_' || n %% 1000, md5(n::text)::uuid, 2, 'video', false, 60, now() + minute * interval '1 minute'
FROM generate_series(1, 60) AS minute, generate_series(1, %s) AS n
ORDER BY minute, n
"""


class Calls(Database):
    """A database with calls; `inserts` are the statements that add them."""

    def __init__(self, url: URL, home: Path, *inserts: str) -> None:
        super().__init__(url, home)
        self.inserts = inserts
        self.calls = 0

    def add(self, calls: int, accounts: int = ACCOUNTS) -> int:
        """Add calls; returns the number of the first."""
        first = self.calls + 1
        self.calls += calls
        for insert in self.inserts:
            self.query(insert, {"first": first, "last": self.calls, "accounts": accounts})
        return first

    def rate(
        self, script: Sequence[str], share: int, *, accounts: int = ACCOUNTS, at_once: int = 1, mode: str = "prepared"
    ) -> float:
        """Calls billed per second: each client bills `share` new calls, `at_once` of them in each run of the script."""
        variables = {"first": self.add(CLIENTS * share, accounts), "share": share, "accounts": accounts}
        options = [word for name, value in variables.items() for word in ("-D", f"{name}={value}")]
        return at_once * self.pgbench(script, share // at_once, "-M", mode, *options)


def script(*requests: str, wait: bool = False, postgrest: bool = False) -> tuple[str, ...]:
    """A pgbench script that bills the next call by these requests."""
    before = [*[WAIT] * wait, *[BEFORE_REQUEST] * postgrest]
    after = [AFTER_REQUEST] * postgrest
    return (*NEXT_CALL, *(line for request in requests for line in (*before, request, *after)))


class Comparison:
    """A comparison of two rates that are measured in alternation; `bound` is the least good ratio."""

    def __init__(self, name: str, bound: float | None, ours: Callable[[], float], base: Callable[[], float]) -> None:
        self.name, self.bound, self.ours, self.base = name, bound, ours, base

    def run(self, rounds: int, progress: Callable[[str], None]) -> str:
        """Run a warm-up pair and then the rounds; returns a line with the median of the pairs' ratios."""
        pairs = in_turn(self.ours, self.base, rounds, lambda: progress(self.name))
        ratios = [our / their for our, their in pairs]
        low, median, high = min(ratios), statistics.median(ratios), max(ratios)
        our, their = (statistics.median(rates) for rates in zip(*pairs, strict=True))
        target = f"   at least {self.bound} x" if self.bound else ""
        return f"{self.name:<58} {our:6.0f} {their:6.0f} {median:9.2f} x  ({low:.2f}-{high:.2f}){target}"


class Losses:
    """Counts the tokens that the three requests lose: they write a balance that another client may have changed."""

    def __init__(self, by_hand: Calls) -> None:
        self.by_hand = by_hand
        self.due: dict[str, int] = {}
        self.lost: dict[str, int] = {}

    def rate(self, where: str, requests: Sequence[str], share: int, accounts: int = ACCOUNTS) -> float:
        """As `Calls.rate()`; also counts the lost tokens, by `where`."""
        total = "SELECT sum(tokens_remaining) FROM user_accounts"
        (before,) = self.by_hand.query(total)
        rate = self.by_hand.rate(requests, share, accounts=accounts)
        (after,) = self.by_hand.query(total)
        due = 4 * CLIENTS * share
        self.due[where] = self.due.get(where, 0) + due
        self.lost[where] = self.lost.get(where, 0) + due - (before - after)
        return rate


def make(maintenance: URL, urls: dict[str, URL]) -> None:
    """Create empty databases, with this package's schema and with that of the old scripts."""
    with cursor(maintenance) as sql:
        for name in DATABASES[:2]:
            sql.execute(f"CREATE DATABASE {urls[name].database}")
        upgrade(urls["ours"])
        with cursor(urls["by_hand"]) as scripts:
            build_by_hand(scripts)
            scripts.execute(GRANTS)
        for name in DATABASES[:2]:
            sql.execute(f"CREATE DATABASE {urls[f'disk_{name}'].database} TEMPLATE {urls[name].database}")


def disk(ours: Calls, by_hand: Calls, share: int) -> str:
    """A line with the bytes of an hour's call in both databases, which must be new."""
    calls = CLIENTS * share
    ours.query(ACCOUNTS_ROWS)
    ours.query(f"ALTER DATABASE {ours.url.database} SET synchronous_commit = off")
    ours.add(calls)
    ours.query(HOUR)
    ours.query("VACUUM FULL")
    opened = ours.size("token_ledger")
    ours.pgbench(MINUTE_LATER, MINUTES * share, "-M", "prepared", "-D", f"share={share}")
    with cursor(ours.url) as sql:
        # A tick does not write call_meters: its dead rows come from this script.
        sql.execute("VACUUM FULL oblivion.call_meters")
        sql.execute("VACUUM")
    by_hand.query(ACCOUNTS_ROWS)
    by_hand.query(ROW_PER_MINUTE, (calls,))
    by_hand.query("VACUUM")
    rows, tokens = ours.query("SELECT count(*), sum(tokens) FROM token_ledger WHERE kind = 'charge'")
    if (rows, tokens) != (MINUTES * calls, -2 * MINUTES * calls):
        sys.exit(f"{calls} calls of an hour have {rows} charges of {-tokens} tokens")
    tables = ("token_ledger", "token_usage", "oblivion.call_meters", "call_sessions")
    parts = {table: ours.size(table) / calls for table in tables}
    parts["token_ledger"] -= opened / calls
    our, their = sum(parts.values()), by_hand.size("token_usage") / calls
    each = ", ".join(f"{table} {size:.0f}" for table, size in parts.items())
    return f"{'bytes of an hour billed each minute':<58} {our:6.0f} {their:6.0f} {our / their:9.2f} x  ({each})"


def comparisons(ours: Calls, by_hand: Calls, losses: Losses, share: int) -> list[Comparison]:
    """All comparisons of billing; each client bills `share` calls in a round."""
    fewer = share // 3  # for comparisons in which a call takes long

    def end(
        name: str,
        *requests: str,
        at_least: float | None = None,
        wait: bool = False,
        postgrest: bool = False,
        accounts: int = ACCOUNTS,
    ) -> Comparison:
        calls = fewer if wait or postgrest or accounts == 1 else share
        where = f"{accounts:,} account{'s' * (accounts > 1)}{', 5 ms' * wait}"
        our = script(END_CALL, wait=wait, postgrest=postgrest)
        their = script(*requests, wait=wait, postgrest=postgrest)
        return Comparison(
            f"end_call() / {name}{', 5 ms' * wait}",
            at_least,
            lambda: ours.rate(our, calls, accounts=accounts),
            lambda: losses.rate(where, their, calls, accounts),
        )

    def mixed(accounts: int) -> Callable[[], float]:
        return lambda: ours.rate(TICK_ONE_END_ANOTHER, 2 * fewer, accounts=accounts, at_once=2)

    def plainly(database: Calls, request: str, mode: str) -> Callable[[], float]:
        return lambda: database.rate(script(request), share, mode=mode)

    four = (END_REQUEST, *THREE_REQUESTS)
    three = THREE_REQUESTS
    return [
        end("three requests", *three, at_least=2),
        end("three requests", *three, at_least=3, wait=True),
        end("those and the end's", *four),
        end("those and the end's", *four, wait=True),
        end("three, each as PostgREST sends it", *three, postgrest=True),
        end("three, each as PostgREST sends it", *three, postgrest=True, wait=True),
        end("three, one account", *three, accounts=1),
        *(
            Comparison(
                f"tick_call() / one statement, {mode}",
                0.5 if mode == "prepared" else None,
                plainly(ours, TICK_CALL, mode),
                plainly(by_hand, ONE_STATEMENT, mode),
            )
            for mode in ("prepared", "simple")
        ),
        Comparison("tick_call(), end_call(): one account / 1,000", None, mixed(1), mixed(ACCOUNTS)),
    ]


def check(ours: Calls) -> str:
    """A line that says that all sums are equal; ends the program if they are not."""
    due, billed, used, taken, in_ledger = sums = ours.query(SUMS)
    (drifts,) = ours.query("SELECT count(*) FROM oblivion.balance_audit WHERE drift <> 0 OR gaps <> 0")
    if len(set(sums)) > 1 or drifts:
        sys.exit(f"{due} tokens were due, {billed} billed, {used} used, {taken} taken, {in_ledger} in the ledger")
    return f"tokens due, billed, of usage, taken and in the ledger: {due:,} each; lost: 0"


def main() -> None:
    """Run the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="counted pairs of each comparison")
    parser.add_argument("--quick", action="store_true", help="two short rounds with few rows")
    parser.add_argument("--url", type=make_url, help="a throw-away server, instead of the embedded one")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    # Odd multiples of an eighth of the 1,000 accounts, so that the eight clients start at different accounts.
    share = 125 if options.quick else 375

    with run_on(options.url) as (home, maintenance), names_free(maintenance, DATABASES) as urls:
        make(maintenance, urls)
        ours = Calls(urls["ours"], home, CALLS, METERS)
        by_hand = Calls(urls["by_hand"], home, CALLS, USAGE)
        disk_ours = Calls(urls["disk_ours"], home, CALLS, METERS)
        disk_by_hand = Calls(urls["disk_by_hand"], home)
        losses = Losses(by_hand)
        works = comparisons(ours, by_hand, losses, share)
        progress = Progress(3 + len(works) * (rounds + 1))
        for database in (ours, by_hand):
            database.query(ACCOUNTS_ROWS)
            database.add(10_000 if options.quick else 100_000)
            database.query("VACUUM (ANALYZE)")
            progress("rows")
        with cursor(maintenance) as sql:
            sql.execute("CHECKPOINT")
        lines = [work.run(rounds, progress) for work in works]
        lines.append(disk(disk_ours, disk_by_hand, 10 if options.quick else 50))
        progress("measured")
        print(f"{'medians: calls per second, except the last line':<58} {'ours':>6} {'base':>6} {'ratio':>11}")
        print("\n".join(lines))
        print(check(ours))
        for where, lost in losses.lost.items():
            print(f"tokens lost by the requests, {where}: {100 * lost / losses.due[where]:.2f} %")


if __name__ == "__main__":
    main()
