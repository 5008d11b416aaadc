"""What the token engine costs, and what it saves, as ratios of one run.

    python benchmarks/billing.py [--rounds 3] [--quick] [--url postgresql://...]

With pgbench, 8 clients, on the embedded PostgreSQL in a temporary folder (TMPDIR), through its Unix socket, where a
round trip costs least, or on the throw-away server of `--url`, as its superuser; with the durability that a server has
by default. This package's database against one as the old scripts make it, in turn (A B A B ...), each with a hundred
thousand calls of a thousand accounts; in each round each client bills calls of its own, which began a minute ago and
were billed that one. What a connection does at first is not counted: PostgREST keeps its own. Some four minutes:

- `end_call()` against the three requests by which the deployed pages bill a call, also after the one by which they end
  it, each a transaction of its own; without a delay, and with 5 ms before each request; and as PostgREST sends them
- `tick_call()` against one statement that takes the tokens and inserts a row of usage, and nothing else
- `tick_call()` and `end_call()` on the calls of one account, against the same on those of a thousand
- the disk that an hour's call takes which is billed each minute, after VACUUM, against a row of usage for each minute

Afterwards all that was due has to have been charged, to the token; what the three requests lose is told.
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
# Seen last when it was half a minute old; so billed what is due then, which is what is checked of each call.
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
# What PostgREST runs around each request; its role may what the old platform grants it.
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

# Tokens due by the clock, billed, of usage, and taken from the accounts, all beyond the minute that each call had.
SUMS: Final = """
SELECT
  sum(2 * ceil(extract(epoch FROM coalesce(end_time, updated_at) - start_time) / 60)) - 2 * count(*),
  sum(credit_cost) - 2 * count(*),
  (SELECT sum(tokens_used) FROM token_usage) - 2 * count(*),
  (SELECT sum(1000000000 - tokens_remaining) FROM user_accounts WHERE user_id LIKE 'user\\_%'),
  (SELECT -sum(tokens) FROM token_ledger WHERE kind = 'charge')
FROM call_sessions
"""

# An hour passes by the meter instead of the clock: a minute less lies before it each time.
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
    """A database with calls."""

    def __init__(self, url: URL, home: Path, *inserts: str) -> None:
        super().__init__(url, home)
        self.inserts = inserts
        self.calls = 0

    def add(self, calls: int, accounts: int = ACCOUNTS) -> int:
        """Add calls, and give the number of the first."""
        first = self.calls + 1
        self.calls += calls
        for insert in self.inserts:
            self.query(insert, {"first": first, "last": self.calls, "accounts": accounts})
        return first

    def rate(
        self, script: Sequence[str], share: int, *, accounts: int = ACCOUNTS, at_once: int = 1, mode: str = "prepared"
    ) -> float:
        """Calls billed in a second while each client bills a share of new calls, `at_once` in a run of the script."""
        variables = {"first": self.add(CLIENTS * share, accounts), "share": share, "accounts": accounts}
        options = [word for name, value in variables.items() for word in ("-D", f"{name}={value}")]
        return at_once * self.pgbench(script, share // at_once, "-M", mode, *options)


def script(*requests: str, wait: bool = False, postgrest: bool = False) -> tuple[str, ...]:
    """What bills the next call by these requests."""
    before = [*[WAIT] * wait, *[BEFORE_REQUEST] * postgrest]
    after = [AFTER_REQUEST] * postgrest
    return (*NEXT_CALL, *(line for request in requests for line in (*before, request, *after)))


class Comparison:
    """Rates of two, in turn."""

    def __init__(self, name: str, bound: float | None, ours: Callable[[], float], base: Callable[[], float]) -> None:
        self.name, self.bound, self.ours, self.base = name, bound, ours, base

    def run(self, rounds: int, progress: Callable[[str], None]) -> str:
        """Run one pair that warms up and then the rounds; give a line with the median of the ratios, pair by pair."""
        pairs = in_turn(self.ours, self.base, rounds, lambda: progress(self.name))
        ratios = [our / their for our, their in pairs]
        low, median, high = min(ratios), statistics.median(ratios), max(ratios)
        our, their = (statistics.median(rates) for rates in zip(*pairs, strict=True))
        target = f"   at least {self.bound} x" if self.bound else ""
        return f"{self.name:<58} {our:6.0f} {their:6.0f} {median:9.2f} x  ({low:.2f}-{high:.2f}){target}"


class Losses:
    """What the three requests lose: they write what they have read."""

    def __init__(self, by_hand: Calls) -> None:
        self.by_hand = by_hand
        self.due: dict[str, int] = {}
        self.lost: dict[str, int] = {}

    def rate(self, where: str, requests: Sequence[str], share: int, accounts: int = ACCOUNTS) -> float:
        """As the database's, and counts what is lost meanwhile."""
        total = "SELECT sum(tokens_remaining) FROM user_accounts"
        (before,) = self.by_hand.query(total)
        rate = self.by_hand.rate(requests, share, accounts=accounts)
        (after,) = self.by_hand.query(total)
        due = 4 * CLIENTS * share
        self.due[where] = self.due.get(where, 0) + due
        self.lost[where] = self.lost.get(where, 0) + due - (before - after)
        return rate


def make(maintenance: URL, urls: dict[str, URL]) -> None:
    """Make the databases, empty, as this package and as the old scripts have them."""
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
    """A line with the bytes of an hour's call in both, new databases."""
    calls = CLIENTS * share
    ours.query(ACCOUNTS_ROWS)
    ours.query(f"ALTER DATABASE {ours.url.database} SET synchronous_commit = off")
    ours.add(calls)
    ours.query(HOUR)
    ours.query("VACUUM FULL")
    opened = ours.size("token_ledger")
    ours.pgbench(MINUTE_LATER, MINUTES * share, "-M", "prepared", "-D", f"share={share}")
    with cursor(ours.url) as sql:
        # A tick does not write it: what is in it of dead rows is this script's.
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
    """All that bill calls; `share` of them for each client in a round."""
    fewer = share // 3  # where each of them takes long

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
    """A line that says that all is exact; ends the program where it is not."""
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
    # Eighths of a thousand, and an odd number of them, so that no two clients go from account to account together.
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
        print(f"{'medians: calls in a second, but for the disk':<58} {'ours':>6} {'base':>6} {'ratio':>11}")
        print("\n".join(lines))
        print(check(ours))
        for where, lost in losses.lost.items():
            print(f"tokens lost by the requests, {where}: {100 * lost / losses.due[where]:.2f} %")


if __name__ == "__main__":
    main()
