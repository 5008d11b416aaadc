"""The cost of row level security when a signed-in user reads the user's own rows. A ratio near 1 is good.

    python benchmarks/access.py [--runs 1000]

It runs on the embedded PostgreSQL, in the authenticated mode, with a million rows of usage of a thousand users. It
compares a query of the user, who sees a thousand rows by row level security, with the owner's query with an explicit
WHERE user_id. The two alternate (A B A B ...). They are prepared, on two connections that stay open, as in PostgREST by
default.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING

from common import run_on
from sqlalchemy import NullPool, create_engine, text
from startup import compare

from oblivion_schema import upgrade

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

USER = "user_7"

ROWS = """
INSERT INTO user_accounts (user_id) SELECT 'user_' || n FROM generate_series(0, 999) AS n;
INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, "timestamp")
SELECT 'user_' || n % 1000, n, n % 7, 'video', n % 2 = 0, '2026-01-01'::timestamptz + n * interval '8 seconds'
FROM generate_series(1, 1000000) AS n;
"""

QUERIES = (
    "SELECT * FROM token_usage",
    "SELECT sum(tokens_used) FROM token_usage",
    "SELECT * FROM user_token_summary",
    "SELECT * FROM user_accounts",
)


def prepared(connection: Connection, sql: str) -> Callable[[], float]:
    """Prepare a query; returns a function that runs it, fetches all rows, and returns the wall-clock seconds."""
    connection.execute(text("DEALLOCATE ALL"))
    connection.execute(text(f"PREPARE query AS {sql}"))
    statement = text("EXECUTE query")

    def seconds() -> float:
        start = time.perf_counter()
        connection.execute(statement).all()
        return time.perf_counter() - start

    return seconds


def main() -> None:
    """Run the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="counted pairs of each comparison")
    runs = parser.parse_args().runs

    with run_on() as (_, maintenance):
        engine = create_engine(maintenance, poolclass=NullPool)
        upgrade(engine, access="authenticated")
        with engine.begin() as connection:
            connection.execute(text(ROWS))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM (ANALYZE)"))

        print(f"{'':<42} {'user':>8} {'owner':>8} {'median ratio':>13}")
        with engine.connect() as owner, engine.connect() as user:
            claims = json.dumps({"sub": USER, "role": "authenticated"})
            user.execute(text("SELECT set_config('request.jwt.claims', :claims, true)"), {"claims": claims})
            user.execute(text("SET LOCAL ROLE authenticated"))
            for sql in QUERIES:
                compare(sql, 1.1, prepared(user, sql), prepared(owner, f"{sql} WHERE user_id = '{USER}'"), runs)
        engine.dispose()


if __name__ == "__main__":
    main()
