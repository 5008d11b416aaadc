"""What the token engine costs, beside the old requests and beside another build of the package.

    python benchmarks/billing.py [--rounds 3] [--quick] [--only REGEX] [--against DIR] [--url postgresql://...]

It takes some six minutes, and with `--against` ten. It runs pgbench with 8 clients on the embedded PostgreSQL in a
temporary folder (TMPDIR), through its Unix socket, which has the shortest round trip; or on the throw-away server of
`--url`, as its superuser. Durability has the server's defaults.

This package's database and one built by the old scripts alternate (A B A B ...), every 35 transactions of a client.
Each has a hundred thousand calls of a thousand accounts. In each round each client bills new calls that are 90 s old
and have their first minute billed. The first transactions of a connection are not counted, because PostgREST keeps its
connections open. Each ratio is the median of the pairs, after a warm-up pair, with the least and the greatest. The CPU
time of calls varies by a tenth in a run, rates and writers of many rows by more. `--only` runs the parts whose names it
finds. The parts:

- `tick_call()` with one statement that only takes the tokens and inserts a row of usage.
- `end_call()` with the four requests that the deployed pages end and bill a call by, each a transaction: without a
  delay, with 5 ms before each request, and as PostgREST sends them. Also with the three that bill it.
- `tick_call()` and `end_call()` on calls of one account, with the same on calls of a thousand accounts.
- A call of ten minutes that is ticked each 30 s and ended. Between the ticks the times of all calls are moved back.
- The bytes on disk of a call of one hour that is billed each minute and ended, after VACUUM.
- Outside writers: rows of usage one by one, many in one INSERT, many by COPY.

The first two are measured by the clock and by the CPU time of the server's processes, which other programs disturb
less; autovacuum's is not counted. `--against` is the checkout of another build with an environment of its own in .venv.
Its database is then what the last three parts are compared with; without it, there are no outside writers.

At the end the charged tokens must equal the due tokens exactly.
"""

from __future__ import annotations

import argparse
import re
import statistics
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from calls import ACCOUNTS, END_CALL, NEXT_CALL, ROUND, TICK_CALL, ByHand, Calls, Metered, make, options
from common import WARM, Progress, names_free, run_on
from cpu import Rounds, Run, alone, alternate, timed
from sqlalchemy import make_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from psycopg2.extensions import cursor as Cursor  # noqa: N812 - the class, beside our function of that name
    from sqlalchemy import URL

NEWEST: Final = 18
"""The version of PostgreSQL from which on the higher bounds hold."""
WAIT: Final = r"\sleep 5 ms"
CLOCK: Final = "by the clock: in a second, ours / base"
CPU: Final = "by CPU time: microseconds of the server for each, base / ours"
CPU_LESS: Final = "by CPU time: microseconds of the server for each, ours / base; less is better"
BYTES: Final = "on disk: bytes of a call of one hour, ours / base; less is better"

# The statements that PostgREST runs around each request.
BEFORE_REQUEST: Final = """BEGIN;
SELECT set_config('search_path', 'public', true), set_config('role', 'anon', true),
  set_config('request.jwt.claims', '{"role": "anon"}', true), set_config('request.method', 'POST', true),
  set_config('request.path', '/rest', true), set_config('request.headers', '{}', true),
  set_config('request.cookies', '{}', true);"""
AFTER_REQUEST: Final = "COMMIT;"
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
FOUR_REQUESTS: Final = (END_REQUEST, *THREE_REQUESTS)
ONE_STATEMENT: Final = """WITH account AS (
  UPDATE user_accounts SET tokens_remaining = greatest(0, tokens_remaining - 2) WHERE user_id = 'user_' || :user
  RETURNING user_id
)
INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds)
SELECT user_id, md5(:i::text)::uuid, 2, 'video', false, 60 FROM account;"""
TICK_ONE_END_ANOTHER: Final = (*NEXT_CALL, TICK_CALL, *NEXT_CALL, END_CALL)

WRITE_ONE: Final = (
    r"\set user random(0, 999)",
    """INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds)
VALUES ('user_' || :user, gen_random_uuid(), 2, 'video', false, 60);""",
)
WRITE_MANY: Final = """
INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds)
SELECT 'user_' || n %% 1000, gen_random_uuid(), 2, 'video', false, 60 FROM generate_series(1, %s) AS n
"""
COPY: Final = "COPY token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds) FROM STDIN"


class Part(NamedTuple):
    """Two runs that are measured in alternation, and bounds for the ratios; None where the ratio is not printed."""

    name: str
    databases: tuple[Calls, ...]
    pair: Callable[[], tuple[Run, Run]]
    """Measures ours and the base."""
    bounds: dict[str, float | None]
    """The bound of the ratio of each measure that is printed; None without one."""

    def run(self, rounds: int, progress: Callable[[str], None]) -> Iterator[tuple[str, str]]:
        """Run a warm-up pair and then the rounds; gives the lines of the result, each with its section."""
        pairs = []
        for _ in range(rounds + 1):
            pairs.append(self.pair())
            progress(self.name)
        for section, bound in self.bounds.items():
            if section == CLOCK:
                numbers = [(our.rate, their.rate) for our, their in pairs[1:]]
            else:
                numbers = [(1e6 * our.cpu, 1e6 * their.cpu) for our, their in pairs[1:] if our.cpu and their.cpu]
            if numbers:
                yield section, line(self.name, numbers, section, bound)


def line(name: str, pairs: Sequence[tuple[float, float]], section: str, bound: float | None) -> str:
    """A line with the medians of both numbers and of their ratios, and whether the bound is met."""
    ratios = [their / our if section == CPU else our / their for our, their in pairs]
    low, median, high = min(ratios), statistics.median(ratios), max(ratios)
    our, their = (statistics.median(numbers) for numbers in zip(*pairs, strict=True))
    digits = 1 if max(our, their) < 100 else 0  # noqa: PLR2004 - more digits where a number has few
    spread = f"({low:.2f}-{high:.2f})" if len(pairs) > 1 else ""
    words = f"{name:<62} {our:8.{digits}f} {their:8.{digits}f} {median:8.2f} {spread:<13}"
    if bound is None:
        return words.rstrip()
    less = section in {CPU_LESS, BYTES}
    met = median <= bound if less else median >= bound
    return f"{words} {'at most' if less else 'at least'} {bound:g}: {'met' if met else 'MISSED'}"


def script(*requests: str, wait: bool = False, postgrest: bool = False) -> tuple[str, ...]:
    """A pgbench script that bills the next call by these requests."""
    before = [*[WAIT] * wait, *[BEFORE_REQUEST] * postgrest]
    after = [AFTER_REQUEST] * postgrest
    return (*NEXT_CALL, *(line for request in requests for line in (*before, request, *after)))


def billing(ours: Metered, by_hand: ByHand, share: int, *, is_newest: bool) -> list[Part]:
    """The engine and the requests of the pages; each client bills `share` calls in a round."""
    fewer = share // 3  # for parts in which a call takes long

    def part(
        name: str,
        bounds: dict[str, float | None],
        request: str,
        *requests: str,
        mode: str = "prepared",
        **how: bool,
    ) -> Part:
        calls = fewer if how else share
        our, their = script(request, **how), script(*requests, **how)
        return Part(
            name,
            (ours, by_hand),
            lambda: alternate(ours.bill(our, calls, mode=mode), by_hand.bill(their, calls, mode=mode)),
            bounds,
        )

    def mixed(accounts: int) -> Run:
        return alone(ours.bill(TICK_ONE_END_ANOTHER, 2 * fewer, accounts=accounts, at_once=2)).of(2)

    tick: dict[str, float | None] = {CLOCK: 1.0 if is_newest else 0.9, CPU: 0.85}
    end: dict[str, float | None] = {CLOCK: 1.8 if is_newest else 1.3, CPU: None}
    by_clock: dict[str, float | None] = {CLOCK: None}
    four = FOUR_REQUESTS
    return [
        part("tick_call() / one statement", tick, TICK_CALL, ONE_STATEMENT),
        part("tick_call() / one statement, simple protocol", by_clock, TICK_CALL, ONE_STATEMENT, mode="simple"),
        part("end_call() / four requests", end, END_CALL, *four),
        part("end_call() / four requests, 5 ms before each", {CLOCK: 3}, END_CALL, *four, wait=True),
        part("end_call() / four requests, as PostgREST sends them", by_clock, END_CALL, *four, postgrest=True),
        part("end_call() / three requests", by_clock, END_CALL, *THREE_REQUESTS),
        Part("tick_call() and end_call(): one account / 1,000", (ours,), lambda: (mixed(1), mixed(ACCOUNTS)), by_clock),
    ]


def whole_call(ours: Metered, by_hand: ByHand, theirs: Metered | None, each: int) -> Part:
    """A call of ten minutes; each client has `each` in a round."""
    name = "a call of ten minutes"
    if theirs:
        other = theirs
        bounds: dict[str, float | None] = {CPU_LESS: 0.55}
        return Part(
            f"{name} / of the other build",
            (ours, theirs),
            lambda: (ours.ten_minutes(each), other.ten_minutes(each)),
            bounds,
        )
    four = script(*FOUR_REQUESTS)
    return Part(
        f"{name} / the four requests",
        (ours, by_hand),
        lambda: (ours.ten_minutes(each), alone(by_hand.bill(four, WARM + each))),
        {CPU_LESS: None},
    )


def writers(ours: Metered, theirs: Metered, share: int, rows: int) -> list[Part]:
    """Programs that insert usage without the engine."""
    text = "".join(f"user_{n % 1000}\tsession_{n}\t2\tvideo\tf\t60\n" for n in range(rows))

    def one() -> tuple[Run, Run]:
        runs = []
        for database in (ours, theirs):
            database.tidy()
            runs.append(Rounds(database, WRITE_ONE, ROUND, 4 * share // ROUND, *options()))
        return alternate(*runs)

    def several(work: Callable[[Cursor], None]) -> tuple[Run, Run]:
        for database in (ours, theirs):
            database.tidy()
        our, their = timed(ours, work, rows), timed(theirs, work, rows)
        their_second, our_second = timed(theirs, work, rows), timed(ours, work, rows)
        return our.mean(our_second), their.mean(their_second)

    ways: dict[str, Callable[[], tuple[Run, Run]]] = {
        "rows one by one": one,
        f"{rows:,} rows in one INSERT": lambda: several(lambda sql: sql.execute(WRITE_MANY, (rows,))),
        f"{rows:,} rows by COPY": lambda: several(lambda sql: sql.copy_expert(COPY, StringIO(text))),
    }
    bounds: dict[str, float | None] = {CLOCK: 0.95, CPU: 0.95}
    return [
        Part(f"outside writers, {how} / the other build", (ours, theirs), pair, bounds) for how, pair in ways.items()
    ]


def disk(ours: Metered, by_hand: ByHand, theirs: Metered | None, calls: int) -> Iterator[str]:
    """Lines with the bytes of a call of one hour, in databases without rows."""
    sizes, folded = ours.hours(calls)
    their_sizes, _ = theirs.hours(calls) if theirs else ({}, None)
    bases: dict[str, tuple[int, float | None, float | None]] = {
        "a row of usage for each minute": (by_hand.hours(calls), None, None)
    }
    if theirs:
        bases["the other build"] = (sum(their_sizes.values()), 0.6, 0.25)
    for base, (size, bound, bound_folded) in bases.items():
        yield line(f"an hour / {base}", [(sum(sizes.values()), size)], BYTES, bound)
        if folded is not None:
            less = sum(sizes.values()) - sizes["token_ledger"] + folded
            yield line(f"an hour, folded / {base}", [(less, size)], BYTES, bound_folded)
    for whose, parts in {"ours": sizes, "the other build": their_sizes}.items():
        if parts:
            yield f"  {whose}: {', '.join(f'{table} {size}' for table, size in parts.items())}"


class Sizes(NamedTuple):
    """How much is measured."""

    rounds: int
    calls: int
    """Calls that the databases have before."""
    share: int
    """Calls of each client in a round: an odd multiple of an eighth of the accounts, so that clients start apart."""
    ten_minutes: int
    """Calls of ten minutes of each client in a round."""
    rows: int
    """Rows of outside writers that write many."""
    hours: int
    """Calls of one hour."""


def run(home: Path, urls: dict[str, URL], only: re.Pattern[str], sizes: Sizes) -> None:
    """Run the parts whose names `only` finds, and print the results."""
    ours, by_hand = Metered(urls["ours"], home), ByHand(urls["by_hand"], home)
    theirs = Metered(urls["theirs"], home) if "theirs" in urls else None
    (version,) = ours.query("SELECT current_setting('server_version_num')::integer / 10000")
    parts = [
        *billing(ours, by_hand, sizes.share, is_newest=version >= NEWEST),
        whole_call(ours, by_hand, theirs, sizes.ten_minutes),
        *(writers(ours, theirs, sizes.share, sizes.rows) if theirs else ()),
    ]
    parts = [part for part in parts if only.search(part.name)]
    used = {database.url.database: database for part in parts for database in part.databases}
    has_disk = only.search("an hour")
    progress = Progress(len(used) + len(parts) * (sizes.rounds + 1) + bool(has_disk))
    for database in used.values():
        database.load(sizes.calls)
        progress("rows")
    ours.query("CHECKPOINT")
    sections: dict[str, list[str]] = {CLOCK: [], CPU: [], CPU_LESS: [], BYTES: []}
    for part in parts:
        for section, result in part.run(sizes.rounds, progress):
            sections[section].append(result)
    if has_disk:
        other = Metered(urls["disk_theirs"], home) if theirs else None
        disks = Metered(urls["disk_ours"], home), ByHand(urls["disk_by_hand"], home)
        sections[BYTES] += disk(*disks, other, sizes.hours)
        progress("bytes")
    print(f"{f'PostgreSQL {version}, medians of {sizes.rounds} pairs':<62} {'ours':>8} {'base':>8} {'ratio':>8}")
    for section, lines in sections.items():
        if lines:
            print("", section, *lines, sep="\n")
    if parts and not (sections[CPU] or sections[CPU_LESS]):
        print("\nCPU time was not measured: these parts have none, or the server is on another machine.")
    print()
    for database in used.values():
        if isinstance(database, Metered):
            print(f"{database.url.database}: {database.check()}")


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="counted pairs of each part")
    parser.add_argument("--quick", action="store_true", help="two short rounds with few rows")
    parser.add_argument("--only", type=re.compile, default=re.compile(""), help="run the parts whose names it finds")
    parser.add_argument("--against", type=Path, help="a checkout of another build, with its environment in .venv")
    parser.add_argument("--url", type=make_url, help="a throw-away server, instead of the embedded one")
    given = parser.parse_args()
    if given.against and not (given.against / ".venv" / "bin" / "alembic").exists():
        parser.error(f"{given.against} has no .venv/bin/alembic")
    names = ["ours", "by_hand", *["theirs"] * bool(given.against)]
    names += [f"disk_{name}" for name in names]

    with run_on(given.url) as (home, maintenance), names_free(maintenance, names) as urls:
        make(maintenance, urls, given.against)
        small = Sizes(2, 10_000, 125, 25, 20_000, 80)
        run(home, urls, given.only, small if given.quick else Sizes(given.rounds, 100_000, 375, 75, 100_000, 400))


if __name__ == "__main__":
    main()
