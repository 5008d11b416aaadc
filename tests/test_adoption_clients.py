"""The deployed clients go on while their database is taken over: they wait, and none of them gets an error."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from legacy_states import STATES
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError
from support import execute, query, run, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL

pytestmark = pytest.mark.server

FULL = next(state for state in STATES if state.name == "presence fixed and safe, billing")

# What they send, each through the tables and views in an order of its own: no order of the upgrade's fits them all.
REQUESTS = [
    """
    INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)
    VALUES ('demo_user', 'a call', 1, 'video', true) RETURNING *
    """,
    "SELECT * FROM user_token_summary",
    """
    INSERT INTO call_sessions (room_id, user_id, mode, used_turn, start_time, credit_cost)
    VALUES ('room', 'demo_user', 'video', false, now(), 0) RETURNING id
    """,
    "UPDATE call_sessions SET end_time = now(), used_turn = true WHERE room_id = 'lobby' RETURNING *",
    "UPDATE user_accounts SET tokens_remaining = greatest(0, tokens_remaining - 1) WHERE user_id = 'demo_user'",
    "SELECT count(*) FROM call_sessions JOIN user_accounts USING (user_id) JOIN token_usage USING (user_id)",
    # Slow ones, so that there is never a moment in which nobody reads.
    *["SELECT pg_sleep(0.03), count(*) FROM user_token_summary"] * 2,
    *["SELECT pg_sleep(0.03), count(*) FROM daily_billing_summary"] * 2,
]


class Client(threading.Thread):
    """Sends its request as PostgREST does, again and again, until it is stopped or one fails."""

    def __init__(self, url: URL, statement: str) -> None:
        super().__init__()
        self.engine = create_engine(url.set(username="authenticator", password="authenticator"), poolclass=NullPool)
        self.statement = statement
        self.served = 0
        self.longest = 0.0
        self.error = ""
        self.stopped = threading.Event()

    def run(self) -> None:
        """Send it."""
        try:
            with self.engine.connect() as connection:
                while not self.stopped.is_set():
                    start = time.monotonic()
                    with connection.begin():
                        connection.execute(text("SET LOCAL ROLE anon"))
                        connection.execute(text(self.statement))
                    self.served += 1
                    self.longest = max(self.longest, time.monotonic() - start)
        except DBAPIError as error:
            self.error = str(error)


def test_clients_get_no_error_while_their_database_is_adopted(new_sort: Callable[[str], URL]) -> None:
    url = new_sort("supabase-old")
    execute(url, FULL.script(rows=True, by_hand=True))
    clients = [Client(url, statement) for statement in REQUESTS]
    for client in clients:
        client.start()
    try:
        wait_until(lambda: all(client.served > 1 or client.error for client in clients))
        upgraded = run("upgrade", "head", url=url)
        before = {client: client.served for client in clients}
        wait_until(lambda: all(client.served > before[client] or client.error for client in clients))
    finally:
        for client in clients:
            client.stopped.set()
            client.join()
    assert [client.error for client in clients] == [""] * len(clients)
    assert upgraded.status == 0, upgraded
    assert max(client.longest for client in clients) < 5  # the lock timeout
    assert query(url, "SELECT count(*) > 0 FROM token_usage WHERE session_id = 'a call'") == [(True,)]
    assert run("check", url=url).status == 0
