"""How long a move of a site with many rows keeps its writers waiting.

    python benchmarks/move.py [--rows 1000000]

Between two embedded servers, which write to disk as they are installed. Clients top up all the while, each at the side
that takes it, and turn to the other side when one refuses:

- held: seconds from the lock on the old side until the new side takes writes, as the command says them
- longest gap: seconds between two credits that any client was told of, with the longest one before the move
- copy: seconds of the whole command, and its rows a second
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import threading
import time
from itertools import count, pairwise
from typing import TYPE_CHECKING, Final, Self

import psycopg2
from common import PROJECT, cursor, libpq, run_on

import oblivion_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import URL

SETTINGS: Final = "wal_level = logical\nmax_wal_size = 4GB\n"
CLIENTS: Final = 4
BEFORE_SECONDS: Final = 5
FILL: Final = """
INSERT INTO user_accounts (user_id, tokens_remaining)
SELECT 'user ' || n, 1000000 FROM generate_series(1, 1000) AS n;
INSERT INTO call_sessions (room_id, user_id, mode, start_time, end_time, credit_cost)
SELECT 'room', 'user ' || n %% 1000 + 1, 'video', now() - n * interval '7 s', now() - (n - 60) * interval '7 s', 14
FROM generate_series(1, %(rows)s / 10) AS n;
INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds)
SELECT 'user ' || n %% 1000 + 1, n::text, 14, 'video', false, 420 FROM generate_series(1, %(rows)s) AS n;
"""


class Clients:
    """Clients who top up, and when they were told so."""

    def __init__(self, sides: Sequence[URL]) -> None:
        self.sides = [libpq(url) for url in sides]
        self.told: list[float] = []
        self.over = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join()

    def _work(self, client: int) -> None:
        side = 0
        for number in count():
            if self.over.is_set():
                return
            told = False
            while not told and not self.over.is_set():
                try:
                    connection = psycopg2.connect(self.sides[side % 2])
                    connection.autocommit = True
                    with connection.cursor() as sql:
                        sql.execute(
                            "SELECT status FROM top_up(%s, 1, %s)", (f"user {client + 1}", f"{client} {number}")
                        )
                    told = True
                    connection.close()
                except psycopg2.Error:
                    side += 1
            self.told.append(time.monotonic())

    def longest_gap(self, begin: float, end: float) -> float:
        """The longest time between two answers."""
        times = sorted(at for at in self.told if begin <= at <= end)
        return max(later - sooner for sooner, later in pairwise(times))


def main() -> None:
    """Fill a site, move it, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with run_on(settings=SETTINGS) as (home, source), run_on(settings=SETTINGS) as (_, other):
        with cursor(source) as sql:
            sql.execute("CREATE DATABASE shop")
        site, target = source.set(database="shop"), other.set(database="shop")
        oblivion_schema.upgrade(site, demo=False)
        with cursor(site) as sql:
            sql.execute(FILL, {"rows": rows})
            sql.execute("VACUUM ANALYZE")
        file = home / "sites.toml"
        file.write_text(f'[sites.shop]\nurl = "{libpq(site)}"\n')
        command = [sys.executable, "-m", "oblivion_schema", "fleet", str(file), "move", "shop", "--to", libpq(target)]
        with Clients([site, target]) as clients:
            began = time.monotonic()
            time.sleep(BEFORE_SECONDS)
            moves = time.monotonic()
            said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=PROJECT).stderr
            ended = time.monotonic()
        held = float(re.findall(r"held for ([\d.]+) s", said)[0])
        print(f"{rows:,} rows of usage, {CLIENTS} clients, {len(clients.told):,} credits")
        print(f"writes held            {held:8.2f} s   aim: under 3 s")
        print(f"longest gap, moving    {clients.longest_gap(moves, ended):8.2f} s")
        print(f"longest gap, before    {clients.longest_gap(began, moves):8.2f} s")
        print(f"the whole command      {ended - moves:8.2f} s   {rows / (ended - moves):,.0f} rows/s")


if __name__ == "__main__":
    main()
