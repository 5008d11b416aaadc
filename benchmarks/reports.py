"""What reports, the log of usage and heartbeats cost, as ratios of one run.

    python benchmarks/reports.py [--plot docs/reports.svg] [--rounds 5] [--quick] [--url postgresql://...]
                                 [--sizes 10000 1000000 10000000] [--by-hand 1000000] [--heartbeats 1000000]

On the embedded PostgreSQL in a temporary folder (TMPDIR; some 12 GB), through its Unix socket, or on the throw-away
server of `--url`, as its superuser; with the durability that a server has by default. This package's databases, one of
each of `--sizes`, against one of `--by-hand` rows as the old scripts make it. Half an hour:

- every view whole, and one user's or one day's part of it: the wall-clock time of a prepared statement until all of its
  rows have arrived, the least of the rounds' medians; the databases take turns. All show the same: 1000 accounts, 100
  calls that go on, and 29 days, in which all rows of all sizes lie, for the hand-made views show no more than 30
- inserting rows of usage one by one, with pgbench, 8 clients and a thousand accounts, beside `--by-hand` rows that are
  there; a million rows in one INSERT ... SELECT, and in one COPY, into an empty table: the medians of the ratios of
  pairs, in turn (A B A B ...), after one that warms up
- bytes of a row of usage with its indexes, and ours with all that the schema oblivion grew by, after VACUUM
- `--heartbeats` of a thousand hosts that are known, the upsert of the deployed pages, by two clients that do not wait
  for the disk, then VACUUM, as autovacuum does in its time: the table's bytes. More of them with pgbench and 8 clients,
  in turn, waiting for the disk as servers do, and without

In the end each view of this package's databases has to be what plain aggregation of the rows gives.
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

# No more than there are CPUs on a small machine: one that has to wait for a CPU amid its statement keeps all versions
# since then from making way, and 17,000 heartbeats a second fill the room that was left for them in no time.
FEW: Final = 2
AT_ONCE: Final = 1_000_000
NAME: Final = 72  # characters
VIEWS: Final = ("daily_token_usage", "daily_billing_summary", "user_token_summary", "active_calls")

ACCOUNTS: Final = """
INSERT INTO user_accounts (user_id, tokens_remaining) SELECT 'user_' || n, 1000 FROM generate_series(0, 999) AS n
"""
# In order of time; each account and each day has all modes, with and without TURN.
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

# There before the first of them: eight clients that insert them all at once would have PostgreSQL add pages for eight.
HOSTS: Final = """
INSERT INTO user_presence (host_id, room_id) SELECT 'host_' || n, 'room_' || n FROM generate_series(0, 999) AS n
"""
UPDATES: Final = """
SELECT n_tup_hot_upd, n_tup_upd FROM pg_stat_user_tables WHERE relname = 'user_presence'
"""
# Without dead rows and room that was left for new ones, and without the empty pages that come after those in use.
LIVE: Final = """
CREATE TEMPORARY TABLE live AS TABLE user_presence;
SELECT
  pg_relation_size('user_presence'),
  count(DISTINCT (ctid::text::point)[0]) * current_setting('block_size')::integer
FROM live;
"""

# A mean of quotients has other last digits than the quotient of sums: none of these matters.
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
    """What is read; of those with one name the slowest counts."""

    name: str
    prepare: str
    values: tuple[object, ...] = ()


class Line(NamedTuple):
    """A figure, and what it has to be: the ratio, or ours where there is no base."""

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
    """How much is done."""

    sizes: list[int]
    by_hand: int
    rounds: int
    heartbeats: int
    bulk: int
    inserts: int  # by each client in each round, as the next
    beats: int

    def steps(self) -> int:
        """How far the bar goes."""
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
    """Three digits of a number, or all before its point."""
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def chunks(rows: int) -> list[tuple[int, int]]:
    """First and last rows of what is inserted at once."""
    return [(first + 1, min(first + AT_ONCE, rows)) for first in range(0, rows, AT_ONCE)]


def make(maintenance: URL, urls: Mapping[str, URL]) -> None:
    """Make the databases, with accounts and nothing else."""
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
    """Insert that many rows into each table, in chunks, as the clients would: with all triggers on."""
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
    """A connection that has the queries prepared."""

    def __init__(self, sql: Cursor) -> None:
        self.sql = sql
        for place, query in enumerate(QUERIES):
            sql.execute(f"PREPARE query_{place} {query.prepare}")

    def seconds(self, place: int) -> float:
        """Median of some executions, until the driver has all rows; what Python makes of them is not counted."""
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
    """Milliseconds of each query in each database, which take turns; a round that warms up is not counted."""
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
    """The medians of the rates, and of the ratios, pair by pair."""
    ours, base = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    ratios = [our / their for our, their in pairs]
    spread = f"({min(ratios):.2f}-{max(ratios):.2f})"
    return Line(f"{name} {spread}", ours, base, statistics.median(ratios), at_least=at_least)


def reading(times: Times, sizes: Sequence[int], by_hand: int) -> Iterable[Line]:
    """What the views take: against the least rows, against the hand-made ones, and as such."""
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
    """Rates of loading the rows that are there once more, into an empty table, in one statement."""
    file = ours.home / "bulk.copy"
    with cursor(ours.url) as our, cursor(by_hand.url) as their:
        for sql in (our, their):
            sql.execute(BULK_ROWS)
        with file.open("wb") as output:
            our.copy_expert("COPY bulk TO STDOUT", output)

        def load(sql: Cursor, copied: bool) -> float:  # noqa: FBT001 - one or the other
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
                lambda: load(our, copied),  # noqa: B023 - run at once
                lambda: load(their, copied),  # noqa: B023 - as that
                rounds,
                lambda: progress(name),  # noqa: B023 - as that
            )
            yield compared(f"{name} of {rows:,}, rows/s", pairs, 1)


def heartbeats(ours: Database, by_hand: Database, load: Load, progress: Progress) -> Iterable[Line]:
    """Rates of heartbeats, and what so many of them leave."""

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
            lambda: beat(our),  # noqa: B023 - run at once
            lambda: beat(their),  # noqa: B023 - as that
            load.rounds,
            lambda: progress("heartbeats"),
        )
        yield compared(name, pairs, 1.5)

    done = FEW * each + 2 * CLIENTS * load.beats * (load.rounds + 1)
    hot = updated = 0
    while updated < done:  # what a connection did is told a moment after its end
        time.sleep(0.1)
        hot, updated = ours.query(UPDATES)
    ours.query("VACUUM user_presence")
    size, live = ours.query(LIVE)
    yield Line("heartbeats whose update was HOT, %", 100 * hot / updated, at_least=95)
    yield Line(f"bytes of user_presence after {done:,}, {CLIENTS} clients at once", size, live, size / live)


def check(database: Database, progress: Progress) -> None:
    """End the program where a view is not what its rows give."""
    for view, plain in PLAIN.items():
        columns = BILLING_COLUMNS if view == "daily_billing_summary" else "*"
        statement = DIFFERING.format(columns=SQL(columns), view=SQL(view), plain=SQL(plain))
        with cursor(database.url) as sql:
            sql.execute(statement)
            (differing,) = sql.fetchone() or (0,)
        if differing:
            sys.exit(f"{view} of {database.url.database}: {differing} rows are not what plain aggregation gives")
        progress(f"{database.url.database}: {view} against its rows")


def plot(path: Path, times: Times, sizes: Sequence[int], by_hand: int) -> None:
    """Draw the views' times; the same times give the same file."""
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
    lines = (line.rstrip() for line in drawn.getvalue().splitlines())  # git minds spaces at their ends
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(databases: Mapping[str, Database], load: Load, progress: Progress) -> tuple[list[Line], Times]:
    """Fill the databases, and give all figures, once all views are found right, and what reading took."""
    shown = {name: database for name, database in databases.items() if "bulk" not in name}
    ours, by_hand = databases[f"ours_{load.by_hand}"], databases["by_hand"]
    (before,) = ours.query(ROLL_UPS)
    for database, rows in zip(shown.values(), (*load.sizes, load.by_hand), strict=True):
        # Many rows are there sooner so; those whose bytes are counted come with their indexes, as rows do.
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
    parser.add_argument("--by-hand", type=int, help="the one of them that the hand-made database has, too")
    parser.add_argument("--rounds", type=int, help="counted rounds of each comparison")
    parser.add_argument("--heartbeats", type=int, help="how many this package's user_presence gets in all")
    parser.add_argument("--quick", action="store_true", help="one short round with few rows: a try of the program")
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
        parser.error(f"--by-hand {load.by_hand}: it is compared with one of --sizes")

    names = [*(f"ours_{rows}" for rows in sizes), "by_hand", "bulk_ours", "bulk_by_hand"]
    progress = Progress(load.steps())
    # So big that checkpoints fall between what is measured.
    server = run_on(options.url, "max_wal_size = 8GB\n")
    with server as (home, maintenance), names_free(maintenance, names) as urls:
        make(maintenance, urls)
        databases = {name: Database(url, home) for name, url in urls.items()}
        lines, times = measure(databases, load, progress)
        print(f"{'':<{NAME}} {'ours':>9} {'base':>9} {'ratio':>9}  bound")
        print("\n".join(map(str, lines)))
        print("Each view is what plain aggregation of the rows gives.")
        if options.plot:
            plot(options.plot, times, sizes, load.by_hand)


if __name__ == "__main__":
    main()
