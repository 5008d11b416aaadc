"""Clients of the token engine who do all at once, lose connections and replies, and remember what they were told.

Each has a connection of its own; what it does next is random, from a seed. None may be refused what is right, and in
the end the books are, and hold all that was acknowledged.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import psutil
import psycopg
from books import discrepancies
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import OperationalError
from support import execute, libpq, query, wait_until

from oblivion_schema.server import embedded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from uuid import UUID

    from sqlalchemy import URL

BALANCES: Final = {"scarce": 9, "small": 60, "ample": 1_000_000}
PAYERS: Final = (*BALANCES, *BALANCES, "ample", "anonymous_1", None)
NAME: Final = "load"

# A session that says so fails to write what it names.
PREPARATION: Final = """
CREATE SCHEMA load;
CREATE FUNCTION load.fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('load.failing', true) = TG_TABLE_NAME THEN
    RAISE EXCEPTION 'injected' USING ERRCODE = 'TE001';
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER load BEFORE INSERT ON token_ledger FOR EACH ROW EXECUTE FUNCTION load.fail();
CREATE TRIGGER load BEFORE INSERT OR UPDATE ON token_usage FOR EACH ROW EXECUTE FUNCTION load.fail();
"""

INJECTED: Final = "TE001"
LOCKED: Final = "55P03"
DEADLOCK: Final = "40P01"
# A refund of more than was charged, or to nobody; a call that cannot be billed cannot be deleted.
REFUSALS: Final = {INJECTED, "22023", "23503", "55000"}


def restarted_after_a_kill(directory: Path) -> None:
    """Kill the server of `directory` outright, and start it again when its processes are gone."""
    postmaster = int((directory / "postmaster.pid").read_text().split(maxsplit=1)[0])
    os.kill(postmaster, signal.SIGKILL)
    # One that nobody reaps, as in a container, stays as a zombie.
    wait_until(lambda: not psutil.pid_exists(postmaster) or psutil.Process(postmaster).status() == psutil.STATUS_ZOMBIE)
    embedded.start(directory)


class LostError(Exception):
    """The connection is gone: whether the last statement was done nobody knows."""


@dataclass
class Credit:
    """A top-up or a refund, and whether it was acknowledged."""

    kind: str
    target: str
    tokens: int
    status: str | None = None

    @property
    def statement(self) -> str:
        """What makes it."""
        function = "top_up" if self.kind == "top_up" else "refund_call"
        return f"SELECT status FROM {function}(%s, %s, %s)"


@dataclass
class Load:
    """What all clients share, and what they were told."""

    url: URL
    seed: int
    calls: list[UUID] = field(default_factory=list)
    starts: dict[str, UUID] = field(default_factory=dict)
    credits: dict[str, Credit] = field(default_factory=dict)
    charges: list[tuple[UUID, int]] = field(default_factory=list)
    ends: set[UUID] = field(default_factory=set)
    deletions: set[UUID] = field(default_factory=set)
    did: Counter[str] = field(default_factory=Counter)
    suffered: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    rounds: int = 0
    between_kills: float = 0.1  # seconds, at most

    def prepare(self) -> None:
        """Open accounts and start calls."""
        execute(self.url, PREPARATION + "DELETE FROM user_accounts; DELETE FROM token_ledger;")
        for user, tokens in BALANCES.items():
            execute(self.url, f"INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('{user}', {tokens})")
        client = Client(self, 0)
        for _ in range(6):
            client.start()
        client.close()

    def run(self, clients: int, *stages: Callable[[], object]) -> None:
        """Let so many clients work, and kill sessions, while the stages run one after the other."""
        self.rounds += 1
        self.over.clear()
        with ThreadPoolExecutor(clients + 1) as pool:
            futures = [pool.submit(Client(self, number).work) for number in range(1, clients + 1)]
            futures.append(pool.submit(self.kill))
            try:
                for stage in stages:
                    stage()
            finally:
                self.over.set()
                for future in futures:
                    future.result()

    def wait_for(self, operations: int) -> None:
        """Wait until so many more are done."""
        goal = self.did.total() + operations
        wait_until(lambda: self.did.total() >= goal)

    def kill(self) -> None:
        """Terminate sessions, whatever they are at."""
        chance = random.Random(f"{self.seed} {self.rounds} killer")
        while not self.over.wait(chance.uniform(0.2, 1) * self.between_kills):
            with suppress(OperationalError):
                killed = query(
                    self.url,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                    f" AND application_name = '{NAME}' ORDER BY md5(pid::text || '{chance.random()}') LIMIT 1",
                )
                self.suffered["session killed"] += len(killed)

    def finish(self) -> list[str]:
        """Retry all credits, end and settle all calls: what is not as it was told, and what is wrong in the books."""
        wait_until(
            lambda: (
                query(
                    self.url,
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    f" AND application_name = '{NAME}'",
                )
                == [(0,)]
            )
        )
        self.over.clear()
        # Before anything is retried: what was acknowledged is there already.
        off = [*self.untrue()]
        client = Client(self, 0)
        for key in list(self.credits):
            client.credit(key)
        for session, end_time in query(self.url, "SELECT id, end_time FROM call_sessions"):
            if end_time is None:
                client.rows("SELECT * FROM end_call(%s)", session)
        client.rows("SELECT * FROM settle_calls(1000000)")
        client.close()
        off += [*self.untrue(), *self.unfinished(), *self.wrong]
        engine = create_engine(self.url, poolclass=NullPool)
        with engine.connect() as connection:
            off += discrepancies(connection)
        return off

    def untrue(self) -> Iterator[str]:
        """What somebody was told and is not so."""
        made = self.made()
        yield from (f"Lost: {credit}" for credit in self.told() - made)
        yield from (f"Made twice: {credit}" for credit, count in made.items() if count > 1)
        calls = self.pairs("SELECT id, end_time FROM call_sessions")
        yield from (f"Goes on: {call}" for call in self.ends if call in calls and calls[call] is None)
        yield from (f"Not deleted: {call}" for call in self.deletions if call in calls)
        keyed = self.pairs("SELECT client_key, session_id FROM oblivion.call_meters")
        yield from (
            f"Not started: {call}" for key, call in self.starts.items() if call in calls and keyed.get(key) != call
        )
        charged = self.pairs(
            "SELECT session_id, -sum(tokens) FROM token_ledger WHERE kind = 'charge' GROUP BY session_id"
        )
        told: Counter[UUID] = Counter()
        for call, tokens in list(self.charges):
            told[call] += tokens
        yield from (
            f"Not charged: {tokens} for {call}, but {charged.get(call)}"
            for call, tokens in told.items()
            if tokens > int(str(charged.get(call, 0)))
        )

    def unfinished(self) -> Iterator[str]:
        """What a retry did not make good, and what else than was injected failed."""
        for _, key, _, _ in self.made() - self.told():
            # Of a refund whose call was deleted before the answer came nobody was told.
            if self.credits[key].status != "unknown":
                yield f"Not acknowledged: {key} {self.credits[key]}"
        yield from (
            f"Not made: {key} {credit}"
            for key, credit in self.credits.items()
            if credit.kind == "top_up" and credit.status not in {"ok", "known"}
        )
        yield from (
            f"Not settled: {row}" for row in query(self.url, "SELECT * FROM oblivion.call_meters WHERE NOT settled")
        )
        yield from (
            f"Incident: {row}"
            for row in query(self.url, "SELECT * FROM oblivion.billing_incidents")
            # A client that writes past the functions locks rows of usage in an order of its own.
            if not {INJECTED, LOCKED, DEADLOCK} & set(row)
        )

    def pairs(self, sql: str) -> dict[object, object]:
        """Rows of two columns, by the first."""
        return {key: value for key, value in query(self.url, sql)}  # noqa: C416 - tuples of any length to mypy

    def made(self) -> Counter[tuple[str, str, str, int]]:
        """Each credit of the ledger."""
        return Counter(
            (str(kind), str(key), str(user) if kind == "top_up" else str(session), int(str(tokens)))
            for kind, key, user, session, tokens in query(
                self.url,
                "SELECT kind, key, user_id, session_id, tokens FROM token_ledger WHERE kind IN ('top_up', 'refund')",
            )
        )

    def told(self) -> Counter[tuple[str, str, str, int]]:
        """Each credit that was acknowledged."""
        return Counter(
            (credit.kind, key, credit.target, credit.tokens)
            for key, credit in self.credits.items()
            if credit.status in {"ok", "known"}
        )


class Client:
    """One of them: a visitor, or, with an odd number, a service."""

    def __init__(self, load: Load, number: int) -> None:
        self.load = load
        self.number = number
        self.chance = random.Random(f"{load.seed} {load.rounds} {number}")
        self.connection: psycopg.Connection[Any] | None = None

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    def connected(self) -> psycopg.Connection[Any]:
        if self.connection is None:
            try:
                self.connection = psycopg.connect(
                    libpq(self.load.url), application_name=NAME, autocommit=True, prepare_threshold=None
                )
                if self.number and self.number % 2 == 0:
                    self.connection.execute("SET ROLE anon")
            except psycopg.OperationalError as error:
                self.close()
                time.sleep(0.01)
                raise LostError from error
        return self.connection

    def rows(self, sql: str, *values: object) -> list[Any] | None:
        """Rows of a statement, or None if it was refused as it may be."""
        connection = self.connected()
        try:
            cursor = connection.execute(sql, values)
            return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            if connection.closed:
                self.close()
                raise LostError from error
            if error.sqlstate not in REFUSALS:
                self.load.wrong.append(f"{sql} {values}: {error.sqlstate} {error}")
            return None

    def send(self, sql: str, *values: object) -> None:
        """Send a statement and hang up, whatever becomes of it."""
        connection = self.connected()
        for number in range(len(values)):
            sql = sql.replace("%s", f"${number + 1}", 1)
        with suppress(psycopg.OperationalError):
            connection.pgconn.send_query_params(
                sql.encode(), [None if value is None else str(value).encode() for value in values]
            )
            connection.pgconn.flush()
        self.close()
        self.load.suffered["reply dropped"] += 1

    def until_told(self, sql: str, *values: object) -> list[Any] | None:
        """Rows of a statement that is retried until an answer comes."""
        while True:
            try:
                if self.chance.random() < 0.1:
                    self.send(sql, *values)
                return self.rows(sql, *values)
            except LostError:
                self.load.suffered["statement retried"] += 1
                if self.load.over.is_set():
                    raise

    def work(self) -> None:
        """Do one thing after the other."""
        both = (
            [self.tick] * 8 + [self.set_turn, self.in_a_transaction, self.fail] * 2 + [self.end, self.start, self.read]
        )
        visits = [self.write_balance, self.write_end, self.delete, self.tamper]
        serves = [self.age] * 8 + [self.new_top_up, self.new_refund] * 2 + [self.reap, self.settle, self.fold]
        choices = both + (serves if self.number % 2 else visits)
        while not self.load.over.is_set():
            choice = self.chance.choice(choices)
            try:
                choice()
            except LostError:
                self.load.suffered["connection lost"] += 1
            else:
                self.load.did[choice.__name__] += 1
        self.close()

    def call(self) -> UUID:
        """One of the calls, rather one that goes on."""
        going_on = [call for call in self.load.calls[-20:] if call not in self.load.ends]
        return self.chance.choice(going_on[-5:] if going_on and self.chance.random() < 0.8 else self.load.calls)

    def tick(self) -> None:
        self.advance("SELECT session_id, charged FROM tick_call(%s)", self.call())

    def set_turn(self) -> None:
        turn = self.chance.random() < 0.5
        self.advance("SELECT session_id, charged FROM set_call_turn(%s, %s)", self.call(), turn)

    def end(self) -> None:
        session = self.call()
        if self.advance("SELECT session_id, charged FROM end_call(%s)", session):
            self.load.ends.add(session)

    def advance(self, sql: str, session: UUID, *values: object) -> bool:
        """Bill a call, and remember what was charged: whether an answer came."""
        told = self.until_told(sql, session, *values)
        if told:
            self.load.charges.append((session, told[0][1]))
        return bool(told)

    def start(self) -> None:
        key = str(uuid.UUID(int=self.chance.getrandbits(128)))
        told = self.until_told(
            "SELECT session_id FROM start_call(%s, 'room', %s, %s, %s)",
            self.chance.choice(PAYERS),
            self.chance.choice(["video", "voice-only"]),
            self.chance.random() < 0.3,
            key,
        )
        if told:
            self.load.starts[key] = told[0][0]
            self.load.calls.append(told[0][0])

    def in_a_transaction(self) -> None:
        """Some things with one call, slowly, some of them in vain."""
        session = self.call()
        steps = [
            "SELECT tick_call(%s)",
            "SELECT set_call_turn(%s, true)",
            "SELECT set_call_turn(%s, false)",
            "SELECT pg_sleep(0.003), %s::text",
            "SAVEPOINT a; SELECT end_call(%s); ROLLBACK TO a",
            "SAVEPOINT a; SELECT set_call_turn(%s, true); ROLLBACK TO a",
        ]
        self.rows("BEGIN")
        # As documented: a tick locks no call, so what comes after it could wait for another session that does.
        self.rows("SELECT FROM call_sessions WHERE id = %s FOR NO KEY UPDATE", session)
        for step in self.chance.choices(steps, k=3):
            for statement in step.split("; "):
                self.rows(statement, *([session] if "%s" in statement else []))
        self.rows(self.chance.choice(["COMMIT", "ROLLBACK"]))

    def read(self) -> None:
        self.rows("SELECT * FROM explain_call(%s)", self.call())
        self.rows("SELECT * FROM call_quote(%s, 'video')", self.chance.choice(PAYERS))

    def write_balance(self) -> None:
        """As clients of before do: what they read a moment ago, less what the call cost."""
        if self.chance.random() < 0.3:
            self.rows(
                "INSERT INTO user_accounts (user_id) VALUES ('small') ON CONFLICT (user_id) DO UPDATE"
                " SET tokens_remaining = 100"
            )
            return
        user = self.chance.choice([*BALANCES])
        read = self.rows("SELECT tokens_remaining FROM user_accounts WHERE user_id = %s", user)
        assert read
        balance = max(0, read[0][0] - self.chance.randint(1, 9))
        self.rows("UPDATE user_accounts SET tokens_remaining = %s WHERE user_id = %s", balance, user)

    def write_end(self) -> None:
        if self.chance.random() < 0.3:
            self.rows("UPDATE call_sessions SET end_time = now(), credit_cost = 0 WHERE id = %s", self.call())

    def tamper(self) -> None:
        self.rows("UPDATE call_sessions SET start_time = now(), user_id = NULL WHERE id = %s", self.call())

    def delete(self) -> None:
        session = self.call()
        if self.chance.random() < 0.2 and self.rows("DELETE FROM call_sessions WHERE id = %s", session) is not None:
            self.load.deletions.add(session)

    def age(self) -> None:
        """Time passes for a call that goes on."""
        self.rows(
            "UPDATE call_sessions SET start_time = start_time - %s * interval '1 second'"
            " WHERE id = %s AND end_time IS NULL",
            self.chance.choice([1, 29, 59, 60, 61, 300]),
            self.call(),
        )

    def new_top_up(self) -> None:
        key = f"top-up {self.chance.random()}"
        self.load.credits[key] = Credit("top_up", self.chance.choice([*BALANCES]), self.chance.randint(1, 9))
        self.credit(key)

    def new_refund(self) -> None:
        key = f"refund {self.chance.random()}"
        self.load.credits[key] = Credit("refund", str(self.call()), self.chance.randint(1, 4))
        self.credit(key)

    def credit(self, key: str) -> None:
        """Make, or retry, a credit; one that was acknowledged is known from then on."""
        credit = self.load.credits[key]
        told = self.until_told(credit.statement, credit.target, credit.tokens, key)
        if told:
            if credit.status in {"ok", "known"} and told[0][0] not in {"known", "unknown"}:
                self.load.wrong.append(f"{key}: {told[0][0]}, though it was acknowledged")
            credit.status = credit.status if told[0][0] == "unknown" and credit.status else told[0][0]

    def reap(self) -> None:
        self.rows("SELECT * FROM reap_stale_calls('30 ms', %s)", self.chance.choice([1, 1000]))

    def settle(self) -> None:
        self.rows("SELECT * FROM settle_calls(%s)", self.chance.choice([1, 1000]))

    def fold(self) -> None:
        self.rows("SELECT oblivion.fold_charges('infinity')")

    def fail(self) -> None:
        """From now on, in this session, something fails, or does so no longer."""
        self.rows(
            "SELECT set_config('load.failing', %s, false)", self.chance.choice(["token_ledger", "token_usage", "", ""])
        )
