"""The cost of reports, of inserting usage and of heartbeats. Each line of the result shows its bound, met or missed.

    python benchmarks/reports.py [--plot docs/reports.svg] [--rounds 5] [--quick] [--url postgresql://...]
                                 [--sizes 10000 1000000 10000000] [--by-hand 1000000] [--heartbeats 1000000]

It takes half an hour. It runs on the embedded PostgreSQL in a temporary folder (TMPDIR; some 12 GB), through its Unix
socket; or on the throw-away server of `--url`, as its superuser. Durability has the server's defaults. This package's
databases, one for each of `--sizes`, are compared with one of `--by-hand` rows built by the old scripts:

- Reading: every view, and the part of one user or one day. The time is the wall-clock time of a prepared statement
  until all rows have arrived; the least of the rounds' medians counts. The databases alternate. All show the same 1000
  accounts, 100 active calls and 29 days: the hand-made views show no more than 30 days.
- Inserting: rows of usage one by one, with pgbench, 8 clients and a thousand accounts, into a table of `--by-hand`
  rows; a million rows with one INSERT ... SELECT, and with one COPY, into an empty table. The result is the median of
  the ratios of alternating pairs (A B A B ...), after a warm-up pair.
- Disk: bytes of a row of usage with its indexes, after VACUUM; ours include the growth of schema oblivion.
- Heartbeats: `--heartbeats` upserts of the deployed pages for a thousand existing hosts, by two clients that do not
  wait for the disk; then VACUUM, as autovacuum would; the result is the table's bytes. Then more of them with pgbench
  and 8 clients, alternating, with and without waiting for the disk.

At the end each view of this package's databases must be equal to the plain aggregation of its rows.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from common import CLIENTS, TAKE_AWAY, Database, Progress, build_by_hand, cursor, in_turn, names_free, run_on
from psycopg2.sql import SQL
from sqlalchemy import URL, make_url

from oblivion_schema import upgrade

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from psycopg2.extensions import cursor as Cursor  # noqa: N812 - the class, beside our function of that name

# No more clients than a small machine has CPUs. A client that waits for a CPU in its statement keeps its snapshot, so
# that dead row versions stay; at 17,000 heartbeats a second they soon fill the free space of their pages.
FEW: Final = 2
AT_ONCE: Final = 1_000_000
NAME: Final = 72  # characters
VIEWS: Final = ("daily_token_usage", "daily_billing_summary", "user_token_summary", "active_calls")

ACCOUNTS: Final = """
INSERT INTO user_accounts (user_id, tokens_remaining) SELECT 'user_' || n, 1000 FROM generate_series(0, 999) AS n
"""
# Ordered by time. Each account and each day has all modes, with and without TURN.
USAGE_ROWS: Final = """
INSERT INTO token_usage (user_id, session_id, tokens_used, "timestamp", mode, used_turn, duration_seconds)
SELECT
  'user_' || n %% 1000, md5(n::text)::uuid, n %% 7, %(end)s - (1 - n / %(rows)s::float8) * interval '29 days',
  (ARRAY['voice', 'video'])[1 + (n + n / 1000) %% 2], (n + n / 1000) %% 4 > 1, n %% 3600
FROM generate_series(%(first)s, %(last)s) AS n
"""
CALLS_ROWS: Final = """
INSERT INTO call_sessions (id, room_id, user_id, mode, used_turn, start_time, end_time, credit_cost)
SELECT
  md5(n::text)::uuid, 'room_' || n %% 1000, 'user_' || n %% 1000,
  (ARRAY['voice-only', 'video'])[1 + (n + n / 1000) %% 2], (n + n / 1000) %% 4 > 1, start_time,
  CASE WHEN n <= %(rows)s - 100 THEN start_time + n %% 3600 * interval '1 second' END, n %% 7 * 0.1
FROM generate_series(%(first)s, %(last)s) AS n,
  LATERAL (SELECT %(end)s - (1 - n / %(rows)s::float8) * interval '29 days') AS at (start_time)
"""
USAGE: Final = {"usage": USAGE_ROWS}
BOTH: Final = USAGE | {"calls": CALLS_ROWS}
ROLL_UPS: Final = """
SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class
WHERE relnamespace = to_regnamespace('oblivion') AND relkind = 'r'
"""

INSERT: Final = (
    r"\set user random(0, 999)",
    r"\set video random(0, 1)",
    r"\set turn random(0, 1)",
    r"\set seconds random(1, 3600)",
    """INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds)
VALUES (
  'user_' || :user, gen_random_uuid(), 1 + :seconds / 60, (ARRAY['voice', 'video'])[1 + :video], :turn = 1, :seconds
);""",
)
HEARTBEAT: Final = (
    r"\set host random(0, 999)",
    r"\set available random(0, 9)",
    """INSERT INTO user_presence (host_id, is_available, room_id, updated_at)
VALUES ('host_' || :host, :available > 0, 'room_' || :host, now())
ON CONFLICT (host_id) DO UPDATE
SET host_id = excluded.host_id, is_available = excluded.is_available, room_id = excluded.room_id,
  updated_at = excluded.updated_at
RETURNING *;""",
)
COLUMNS: Final = 'user_id, session_id, tokens_used, "timestamp", mode, used_turn, duration_seconds'
BULK_ROWS: Final = SQL("CREATE TABLE bulk AS SELECT {} FROM token_usage").format(SQL(COLUMNS))
BULK_INSERT: Final = SQL("INSERT INTO token_usage ({}) SELECT * FROM bulk").format(SQL(COLUMNS))
BULK_COPY: Final = SQL("COPY token_usage ({}) FROM STDIN").format(SQL(COLUMNS))

# Inserted before the first heartbeat: if eight clients inserted them at once, PostgreSQL would add pages for each.
HOSTS: Final = """
INSERT INTO user_presence (host_id, room_id) SELECT 'host_' || n, 'room_' || n FROM generate_series(0, 999) AS n
"""
UPDATES: Final = """
SELECT n_tup_hot_upd, n_tup_upd FROM pg_stat_user_tables WHERE relname = 'user_presence'
"""
# Bytes of the live rows, without dead rows, free space and empty pages at the end.
LIVE: Final = """
CREATE TEMPORARY TABLE live AS TABLE user_presence;
SELECT
  pg_relation_size('user_presence'),
  count(DISTINCT (ctid::text::point)[0]) * current_setting('block_size')::integer
FROM live;
"""

# Rounded, because a mean of quotients and a quotient of sums differ in their last digits.
BILLING_COLUMNS: Final = """
call_date, total_calls, turn_calls, video_calls, voice_calls, total_credits, round(avg_duration_minutes, 9)
"""
PLAIN: Final = {
    "daily_token_usage": """
SELECT
  ("timestamp" AT TIME ZONE 'UTC')::date, mode, used_turn, count(*), sum(tokens_used), avg(tokens_used),
  coalesce(sum(duration_seconds), 0) / 60.0
FROM token_usage
GROUP BY 1, 2, 3
""",
    "daily_billing_summary": """
SELECT
  (start_time AT TIME ZONE 'UTC')::date, count(*), count(*) FILTER (WHERE used_turn),
  count(*) FILTER (WHERE mode = 'video'), count(*) FILTER (WHERE mode = 'voice-only'), sum(credit_cost),
  round(avg(extract(epoch FROM end_time - start_time) / 60), 9)
FROM call_sessions
GROUP BY 1
""",
    "user_token_summary": """
SELECT
  a.user_id, a.tokens_remaining, a.subscription_tier, a.created_at, coalesce(u.tokens, 0), coalesce(u.calls, 0), u.last
FROM user_accounts AS a
LEFT JOIN (
  SELECT user_id, sum(tokens_used) AS tokens, count(*) AS calls, max("timestamp") AS last FROM token_usage GROUP BY 1
) AS u USING (user_id)
""",
    "active_calls": """
SELECT id, room_id, mode, used_turn, start_time, now() - start_time FROM call_sessions WHERE end_time IS NULL
""",
}
DIFFERING: Final = SQL("""
WITH shown AS (SELECT {columns} FROM {view}), plain AS ({plain})
SELECT count(*) FROM (
  (TABLE shown EXCEPT ALL TABLE plain)
  UNION ALL
  (TABLE plain EXCEPT ALL TABLE shown)
) AS differing
""")


class Query(NamedTuple):
    """A query to measure; of the queries with one name the slowest counts."""

    name: str
    prepare: str
    values: tuple[object, ...] = ()


class Line(NamedTuple):
    """A line of the result; the bound is for the ratio, or for `ours` without a base."""

    name: str
    ours: float
    base: float | None = None
    ratio: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        value = self.ours if self.ratio is None else self.ratio
        bound = verdict = ""
        if self.at_least is not None:
            bound, verdict = f">= {self.at_least:g}", "met" if value >= self.at_least else "MISSED"
        if self.at_most is not None:
            bound, verdict = f"<= {self.at_most:g}", "met" if value <= self.at_most else "MISSED"
        cells = (number(each) for each in (self.ours, self.base, self.ratio))
        return f"{self.name:<{NAME}} {' '.join(f'{cell:>9}' for cell in cells)}  {bound:<8} {verdict}".rstrip()


class Load(NamedTuple):
    """The size of a run: rows, rounds and transactions."""

    sizes: list[int]
    by_hand: int
    rounds: int
    heartbeats: int
    bulk: int
    inserts: int  # of each client in each round
    beats: int  # heartbeats of each client in each round

    def steps(self) -> int:
        """The number of steps of the progress bar."""
        loads = [(rows, 2) for rows in (*self.sizes, self.by_hand)] + 2 * [(self.bulk, 1)]
        pairs = self.rounds + 1
        return (
            sum(tables * len(chunks(rows)) + 1 for rows, tables in loads)
            + 2 * pairs * len(QUERIES)
            + 5 * pairs
            + 1
            + len(VIEWS) * (len(self.sizes) + 1)
        )


END: Final = datetime.now(UTC)
DAYS: Final = [(END - timedelta(days=days)).date() for days in (0, 14)]
QUERIES: Final = (
    *(Query(view, f"AS SELECT * FROM {view}") for view in VIEWS),  # noqa: S608 - names of our own
    Query("one user's summary", "(text) AS SELECT * FROM user_token_summary WHERE user_id = $1", ("user_7",)),
    *(Query("one day's usage", "(date) AS SELECT * FROM daily_token_usage WHERE usage_date = $1", (d,)) for d in DAYS),
    *(
        Query("one day's calls", "(date) AS SELECT * FROM daily_billing_summary WHERE call_date = $1", (d,))
        for d in DAYS
    ),
)


def number(value: float | None) -> str:
    """A number with three digits, or with all digits before the decimal point."""
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def chunks(rows: int) -> list[tuple[int, int]]:
    """First and last row of each chunk that one statement inserts."""
    return [(first + 1, min(first + AT_ONCE, rows)) for first in range(0, rows, AT_ONCE)]


def make(maintenance: URL, urls: Mapping[str, URL]) -> None:
    """Create the databases, with accounts and nothing else."""
    with cursor(maintenance) as sql:
        made: dict[bool, str] = {}
        for name, url in urls.items():
            database = str(url.database)
            ours = "ours" in name
            if ours in made:
                sql.execute(f"CREATE DATABASE {database} TEMPLATE {made[ours]}")
                continue
            made[ours] = database
            sql.execute(f"CREATE DATABASE {database}")
            if ours:
                upgrade(url)
            with cursor(url) as new:
                if not ours:
                    build_by_hand(new)
                new.execute(ACCOUNTS)


def fill(
    database: Database, rows: int, inserts: Mapping[str, str], progress: Progress, *, indexes_last: bool = False
) -> None:
    """Insert `rows` rows into each table, in chunks, with all triggers enabled, as for clients.

    `indexes_last` drops indexes and foreign keys first, and creates them afterwards: that is faster.
    """
    name = database.url.database
    with cursor(database.url) as sql:
        sql.execute("SET maintenance_work_mem = '512MB'")
        pairs = []
        if indexes_last:
            sql.execute(TAKE_AWAY)
            pairs = sql.fetchall()
        for drop, _ in pairs:
            sql.execute(drop)
        for first, last in chunks(rows):
            for what, statement in inserts.items():
                sql.execute(statement, {"first": first, "last": last, "rows": rows, "end": END})
                progress(f"{name}: {what} to {last:,}")
        for _, back in pairs:
            sql.execute(back)
        sql.execute("VACUUM (ANALYZE)")
        sql.execute("CHECKPOINT")
        progress(f"{name}: indexes, VACUUM" if pairs else f"{name}: VACUUM")


class Reader:
    """A connection with the queries prepared."""

    def __init__(self, sql: Cursor) -> None:
        self.sql = sql
        for place, query in enumerate(QUERIES):
            sql.execute(f"PREPARE query_{place} {query.prepare}")

    def seconds(self, place: int) -> float:
        """Median seconds until the driver has all rows; their conversion to Python is not counted."""
        values = QUERIES[place].values
        execute = f"EXECUTE query_{place}{'(%s)' if values else ''}"
        times: list[float] = []
        while len(times) < 3 or (len(times) < 50 and sum(times) < 0.25):  # noqa: PLR2004 - enough for a median
            start = time.perf_counter()
            self.sql.execute(execute, values)
            times.append(time.perf_counter() - start)
        return statistics.median(times)


Times = dict[tuple[str, str], float]


def read(databases: Mapping[str, Database], rounds: int, progress: Progress) -> Times:
    """Milliseconds of each query in each database. The databases alternate; a warm-up round is not counted."""
    times: dict[tuple[int, str], float] = {}
    with ExitStack() as stack:
        readers = {name: Reader(stack.enter_context(cursor(database.url))) for name, database in databases.items()}
        for count in range(rounds + 1):
            for place, query in enumerate(QUERIES):
                for name, reader in readers.items():
                    seconds = reader.seconds(place)
                    if count:
                        times[place, name] = min(seconds, times.get((place, name), seconds))
                progress(query.name)
    worst: Times = {}
    for (place, name), seconds in times.items():
        key = QUERIES[place].name, name
        worst[key] = max(worst.get(key, 0), 1000 * seconds)
    return worst


def compared(name: str, pairs: Sequence[tuple[float, float]], at_least: float) -> Line:
    """A line with the medians of both rates, and of the pairs' ratios."""
    ours, base = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    ratios = [our / their for our, their in pairs]
    spread = f"({min(ratios):.2f}-{max(ratios):.2f})"
    return Line(f"{name} {spread}", ours, base, statistics.median(ratios), at_least=at_least)


def reading(times: Times, sizes: Sequence[int], by_hand: int) -> Iterable[Line]:
    """Lines for the views' times: most rows to fewest, hand-made to ours, and without a base."""
    least, most = min(sizes), max(sizes)

    def ours(query: str, rows: int) -> float:
        return times[query, f"ours_{rows}"]

    names = list(dict.fromkeys(query.name for query in QUERIES))
    for query in names:
        our, their = ours(query, most), ours(query, least)
        whole = query in VIEWS
        yield Line(f"{query}, ms: {most:,} / {least:,} rows", our, their, our / their, at_most=1.3 if whole else None)
    bounds = {"daily_token_usage": 50, "daily_billing_summary": 50, "user_token_summary": 10}
    for query in names:
        our, their = ours(query, most), times[query, "by_hand"]
        name = f"{query}, ms: by hand {by_hand:,} rows / {most:,}"
        yield Line(name, our, their, their / our, at_least=bounds.get(query))
    for query in names:
        if query.startswith("one"):
            bound = None if query == "one day's calls" else 1
            yield Line(f"{query}, ms: the slowest size", max(ours(query, rows) for rows in sizes), at_most=bound)


def bulk(ours: Database, by_hand: Database, rows: int, rounds: int, progress: Progress) -> Iterable[Line]:
    """Rates of loading all rows of a table into it again, when it is empty, in one statement."""
    file = ours.home / "bulk.copy"
    with cursor(ours.url) as our, cursor(by_hand.url) as their:
        for sql in (our, their):
            sql.execute(BULK_ROWS)
        with file.open("wb") as output:
            our.copy_expert("COPY bulk TO STDOUT", output)

        def load(sql: Cursor, copied: bool) -> float:  # noqa: FBT001 - COPY or INSERT
            sql.execute("TRUNCATE token_usage")
            sql.execute("CHECKPOINT")
            start = time.perf_counter()
            if copied:
                with file.open("rb") as source:
                    sql.copy_expert(BULK_COPY, source)
            else:
                sql.execute(BULK_INSERT)
            return rows / (time.perf_counter() - start)

        for name, copied in (("INSERT ... SELECT", False), ("COPY", True)):
            pairs = in_turn(
                lambda: load(our, copied),  # noqa: B023 - called within the iteration
                lambda: load(their, copied),  # noqa: B023 - called within the iteration
                rounds,
                lambda: progress(name),  # noqa: B023 - called within the iteration
            )
            yield compared(f"{name} of {rows:,}, rows/s", pairs, 1)


def heartbeats(ours: Database, by_hand: Database, load: Load, progress: Progress) -> Iterable[Line]:
    """Lines for the rates of heartbeats, and for the table's size after them."""

    def beat(database: Database) -> float:
        return database.pgbench(HEARTBEAT, load.beats, "-M", "prepared")

    def hasty(database: Database) -> Database:
        return Database(database.url.update_query_dict({"options": "--synchronous_commit=off"}), database.home)

    for database in (ours, by_hand):
        database.query(HOSTS)
    each = -(-load.heartbeats // FEW)
    hasty(ours).pgbench(HEARTBEAT, each, "-M", "prepared", clients=FEW)
    ours.query("VACUUM user_presence")
    size, live = ours.query(LIVE)
    progress("heartbeats")
    yield Line(f"bytes of user_presence after {FEW * each:,} / of its live rows", size, live, size / live, at_most=2)

    for name, our, their in (
        (f"heartbeats of {CLIENTS} clients, Hz", ours, by_hand),
        ("... which do not wait for the disk, Hz", hasty(ours), hasty(by_hand)),
    ):
        pairs = in_turn(
            lambda: beat(our),  # noqa: B023 - called within the iteration
            lambda: beat(their),  # noqa: B023 - called within the iteration
            load.rounds,
            lambda: progress("heartbeats"),
        )
        yield compared(name, pairs, 1.5)

    done = FEW * each + 2 * CLIENTS * load.beats * (load.rounds + 1)
    hot = updated = 0
    while updated < done:  # PostgreSQL counts the updates of a connection a moment after its end
        time.sleep(0.1)
        hot, updated = ours.query(UPDATES)
    ours.query("VACUUM user_presence")
    size, live = ours.query(LIVE)
    yield Line("heartbeats whose update was HOT, %", 100 * hot / updated, at_least=95)
    yield Line(f"bytes of user_presence after {done:,}, {CLIENTS} clients at once", size, live, size / live)


def check(database: Database, progress: Progress) -> None:
    """End the program if a view is not equal to the plain aggregation of its rows."""
    for view, plain in PLAIN.items():
        columns = BILLING_COLUMNS if view == "daily_billing_summary" else "*"
        statement = DIFFERING.format(columns=SQL(columns), view=SQL(view), plain=SQL(plain))
        with cursor(database.url) as sql:
            sql.execute(statement)
            (differing,) = sql.fetchone() or (0,)
        if differing:
            sys.exit(f"{view} of {database.url.database}: {differing} rows differ from the plain aggregation")
        progress(f"{database.url.database}: {view} against its rows")


def plot(path: Path, times: Times, sizes: Sequence[int], by_hand: int) -> None:
    """Draw the views' times as SVG; the same times give the same file."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullLocator

    with rc_context({"svg.hashsalt": "reports", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(8, 4.2), layout="constrained")
        axes = figure.subplots()
        for view, colour in zip(VIEWS, ("#0072b2", "#d55e00", "#009e73", "#cc79a7"), strict=True):
            ours = [times[view, f"ours_{rows}"] for rows in sizes]
            axes.plot(sizes, ours, "o-", color=colour, label=view)
            axes.plot([by_hand], [times[view, "by_hand"]], "D", color=colour, fillstyle="none", markersize=8)
        axes.plot([], [], "D", color="#555555", fillstyle="none", markersize=8, label="the hand-made view")
        axes.set(xscale="log", yscale="log", xlabel="rows of usage, and calls", ylabel="milliseconds")
        axes.set_xticks(sizes)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rows, _: f"{rows:,.0f}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda milliseconds, _: f"{milliseconds:g}"))
        axes.grid(visible=True, color="#dddddd")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside right center", frameon=False)
        drawn = StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    lines = (line.rstrip() for line in drawn.getvalue().splitlines())  # git complains about blanks at line ends
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(databases: Mapping[str, Database], load: Load, progress: Progress) -> tuple[list[Line], Times]:
    """Fill the databases and measure; returns the lines of the result and the times of reading.

    Ends the program if a view is wrong.
    """
    shown = {name: database for name, database in databases.items() if "bulk" not in name}
    ours, by_hand = databases[f"ours_{load.by_hand}"], databases["by_hand"]
    (before,) = ours.query(ROLL_UPS)
    for database, rows in zip(shown.values(), (*load.sizes, load.by_hand), strict=True):
        # Faster for many rows. Tables whose bytes are measured keep their indexes meanwhile, as they do in production.
        fill(database, rows, BOTH, progress, indexes_last=rows > load.by_hand)
    for name in ("bulk_ours", "bulk_by_hand"):
        fill(databases[name], load.bulk, USAGE, progress)
    our_bytes = (ours.size("token_usage") + ours.query(ROLL_UPS)[0] - before) / load.by_hand
    their_bytes = by_hand.size("token_usage") / load.by_hand

    times = read(shown, load.rounds, progress)
    lines = list(reading(times, load.sizes, load.by_hand))

    def insert(database: Database) -> float:
        return database.pgbench(INSERT, load.inserts, "-M", "prepared")

    pairs = in_turn(lambda: insert(ours), lambda: insert(by_hand), load.rounds, lambda: progress("inserts"))
    again = read({"ours": ours}, load.rounds, progress)
    for view in VIEWS:
        now, then = again[view, "ours"], times[view, f"ours_{load.by_hand}"]
        lines.append(Line(f"{view}, ms: after all inserts one by one / before", now, then, now / then))
    lines.append(compared(f"rows of usage one by one, {CLIENTS} clients, Hz", pairs, 0.9))
    lines.extend(bulk(databases["bulk_ours"], databases["bulk_by_hand"], load.bulk, load.rounds, progress))
    ratio = our_bytes / their_bytes
    lines.append(Line("bytes of a row of usage, with indexes", our_bytes, their_bytes, ratio, at_most=0.9))
    lines.extend(heartbeats(ours, by_hand, load, progress))
    for name, database in databases.items():
        if "ours" in name:
            check(database, progress)
    return lines, times


def main() -> None:
    """Run the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", help="rows of usage, and calls, of this package's databases")
    parser.add_argument("--by-hand", type=int, help="rows of the hand-made database: one of --sizes")
    parser.add_argument("--rounds", type=int, help="counted rounds of each comparison")
    parser.add_argument("--heartbeats", type=int, help="heartbeats into this package's user_presence")
    parser.add_argument("--quick", action="store_true", help="one short round with few rows, to try the program")
    parser.add_argument("--plot", type=Path, help="the SVG file to draw")
    parser.add_argument("--url", type=make_url, help="a throw-away server, instead of the embedded one")
    options = parser.parse_args()
    full = Load([10_000, 1_000_000, 10_000_000], 1_000_000, 5, 1_000_000, AT_ONCE, 8000, 5000)
    quick = Load([2000, 10_000, 30_000], 10_000, 1, 20_000, 20_000, 200, 500)
    given = {name: value for name, value in vars(options).items() if name in Load._fields and value is not None}
    load = (quick if options.quick else full)._replace(**given)
    sizes = sorted(set(load.sizes))
    load = load._replace(sizes=sizes)
    if load.by_hand not in sizes:
        parser.error(f"--by-hand {load.by_hand}: give one of --sizes")

    names = [*(f"ours_{rows}" for rows in sizes), "by_hand", "bulk_ours", "bulk_by_hand"]
    progress = Progress(load.steps())
    # Large enough that no checkpoint starts during a measurement.
    server = run_on(options.url, "max_wal_size = 8GB\n")
    with server as (home, maintenance), names_free(maintenance, names) as urls:
        make(maintenance, urls)
        databases = {name: Database(url, home) for name, url in urls.items()}
        lines, times = measure(databases, load, progress)
        print(f"{'':<{NAME}} {'ours':>9} {'base':>9} {'ratio':>9}  bound")
        print("\n".join(map(str, lines)))
        print("Each view is equal to the plain aggregation of its rows.")
        if options.plot:
            plot(options.plot, times, sizes, load.by_hand)


if __name__ == "__main__":
    main()
