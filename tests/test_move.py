"""A site moves to another server: clients go on, one side takes the writes, and nothing that was promised is lost.

Both servers are real, and so are the kills.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import billing_load
import psycopg
import pytest
from billing_load import Load
from books import check
from interrupted_move import MOMENTS
from pooler import needs_pooler, pooled, repoint
from replication import SETTINGS, TABLES, contents, do
from sqlalchemy import URL, create_engine
from sqlalchemy.exc import DBAPIError
from support import PROJECT, Result, execute, libpq, query, run, spawn, temporary_home, wait_until

import oblivion_schema
from oblivion_schema.fleet import fence
from oblivion_schema.fleet.move import _MOVERS_LOCK
from oblivion_schema.server import embedded

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.full, pytest.mark.skipif(sys.platform == "win32", reason="the servers have sockets")]

REFUSED: Final = "PT503"
PROBE: Final = "DELETE FROM user_presence WHERE false"


@dataclass
class Servers:
    """Two servers of one version; the folders of their data, and databases that tests make on them."""

    source: Path
    target: Path
    numbers: Iterator[int] = field(default_factory=count)

    def url(self, side: str, database: str = "postgres") -> URL:
        folder = getattr(self, side)
        port = int((folder / "postmaster.pid").read_text().splitlines()[3])
        where = {"host": str(folder)}
        return URL.create("postgresql+psycopg2", username="postgres", port=port, database=database, query=where)

    def new(self, side: str, *, like: str | None = None) -> URL:
        """A new database on a side; empty, or as a template."""
        name = f"site_{next(self.numbers)}"
        do(self.url(side), f"CREATE DATABASE {name}" + (f" TEMPLATE {like}" if like else ""))
        return self.url(side, name)

    def start(self) -> None:
        """Start what was killed."""
        for folder in (self.source, self.target):
            embedded.start(folder)


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Two servers, each with a database `upgraded` to copy."""
    home = temporary_home()
    both = Servers(home / "a", home / "b")
    # A target that loses what nobody waits for shows where somebody has to.
    settings = {both.source: SETTINGS, both.target: f"{SETTINGS}synchronous_commit = off\nwal_writer_delay = 10s\n"}
    started = [embedded.start(folder, settings=its, at_exit="delete") for folder, its in settings.items()]
    for side in ("source", "target"):
        do(both.url(side), "CREATE DATABASE upgraded")
        oblivion_schema.upgrade(both.url(side, "upgraded"), demo=False)
    yield both
    both.start()
    for server in started:
        server.cleanup()


@dataclass
class Site:
    """A site of a file, which is to move."""

    servers: Servers
    file: Path
    source: URL
    target: URL

    def arguments(self, *words: str, to: URL | None = None) -> list[str]:
        return ["fleet", str(self.file), "move", "shop", "--to", libpq(self.target if to is None else to), *words]

    def move(self, *words: str, to: URL | None = None) -> Result:
        result = run(*self.arguments(*words, to=to))
        assert "Traceback" not in result.err
        return result

    def refused(self, *words: str, to: URL | None = None) -> list[str]:
        """Why it is not moved: a line for each."""
        result = self.move(*words, to=to)
        assert result.status == 1, result
        assert len({line for line in result.err.splitlines() if line.startswith("FAILED: ")}) == 1
        for who in ("The site takes writes, as before.", "Nothing was changed.", "The target takes the writes"):
            assert result.err.count(who) <= 1, result.err
        beginning = "shop: FAILED: "
        return [line.removeprefix(beginning) for line in result.err.splitlines() if line.startswith(beginning)]

    def killed(self, victim: str, at: int) -> str:
        """Move it, with a kill at a moment; the moment, or nothing if it came to none and all went well."""
        folder = victim if victim == "mover" else str(getattr(self.servers, victim))
        command = [sys.executable, str(Path(__file__).with_name("interrupted_move.py")), str(at), folder]
        ended = subprocess.run(
            [*command, *self.arguments()], capture_output=True, text=True, cwd=PROJECT, check=False, timeout=300
        )
        assert "Traceback" not in ended.stderr, ended.stderr
        said = [line.removeprefix("killed: ") for line in ended.stdout.splitlines() if line.startswith("killed: ")]
        if victim == "mover":
            assert ended.returncode == (-signal.SIGKILL if said else 0), ended
        elif ended.returncode != 0:
            assert said, ended
            assert re.search("The (site|target) takes|is not known|Nothing was chan|Verify", ended.stderr), ended.stderr
        return said[0] if said else ""

    @property
    def is_in_file(self) -> URL:
        """The side that the file names."""
        from oblivion_schema.fleet import sites

        found = sites.read(self.file)["shop"].database.url
        return self.source if found.database == self.source.database and self.at(found, "source") else self.target

    def at(self, url: URL, side: str) -> bool:
        return url.query["host"] == str(getattr(self.servers, side))


@pytest.fixture
def bare_site(servers: Servers, tmp_path: Path) -> Site:
    """A new site, and a target that is upgraded and empty."""
    servers.start()
    source, target = servers.new("source", like="upgraded"), servers.new("target", like="upgraded")
    file = tmp_path / "sites.toml"
    file.write_text(f'# The shop.\n[sites.shop]\nurl = "{libpq(source)}"  # it moves\n')
    return Site(servers, file, source, target)


@pytest.fixture
def site(bare_site: Site) -> Site:
    """A site with some life."""
    source = bare_site.source
    execute(
        source,
        """
        INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('ample', 100000), ('scarce', 3);
        SELECT top_up('ample', 5, 'gift ' || n) FROM generate_series(1, 50) AS n;
        SELECT oblivion.allow_sign_up(7);
        INSERT INTO token_rates (mode, used_turn, effective_from, tokens_per_minute)
        VALUES ('video', true, '2020-01-01', 3);
        """,
    )
    for user in ("ample", "scarce", "anonymous_1"):
        [(call,)] = query(source, f"SELECT session_id FROM start_call('{user}', 'room', 'video', true)")
        earlier = f"UPDATE call_sessions SET start_time = start_time - interval '3 minutes' WHERE id = '{call}'"
        execute(source, earlier)
        query(source, f"SELECT status FROM tick_call('{call}')")
    return bare_site


def takes_writes(url: URL) -> bool:
    """Whether a side takes writes; one that is down takes none."""
    try:
        with closing(psycopg.connect(libpq(url))) as connection:
            connection.execute(PROBE)
            connection.rollback()
    except psycopg.Error as error:
        return error.sqlstate not in {None, REFUSED, "57P01", "57P02", "57P03"}
    return True


def is_part(url: URL) -> bool:
    """Whether a target is closed to others already, or has been."""
    return bool(do(url, "SELECT to_regclass('oblivion_move.marks') IS NOT NULL")[0][0])


def trace(url: URL) -> list[Any]:
    """What a move leaves."""
    return do(
        url,
        """
        SELECT 'trigger ' || tgrelid::regclass FROM pg_trigger WHERE tgname = 'refuse_writes'
        UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname = 'oblivion_move'
        UNION ALL SELECT 'publication' FROM pg_publication
        UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = current_database()
        UNION ALL
        SELECT 'subscription' FROM pg_subscription AS s JOIN pg_database AS d ON d.oid = s.subdbid
        WHERE d.datname = current_database()
        """,
    )


def has_moved(site: Site, *, old_answered: bool = True) -> None:
    """All of it: the file, the target, and what is left on the old side."""
    assert site.is_in_file == site.target
    assert site.file.read_text() == f'# The shop.\n[sites.shop]\nurl = "{libpq(site.target)}"  # it moves\n'
    assert takes_writes(site.target)
    assert not takes_writes(site.source)
    assert trace(site.target) == []
    assert not old_answered or all(row[0].startswith(("trigger", "schema")) for row in trace(site.source))
    check(site.target)


def test_a_site_moves_with_all_that_is_in_it(site: Site) -> None:
    execute(
        site.source,
        "CREATE ROLE clerk; GRANT SELECT ON user_accounts TO clerk;"
        "GRANT UPDATE (subscription_tier) ON user_accounts TO clerk",
    )
    execute(site.target.set(database="postgres"), "CREATE ROLE clerk")
    assert run("access", "authenticated", url=site.source).status == 0
    assert run("pages", "metered", url=site.source).status == 0
    before = contents(site.source)
    assert min(len(before[f"public.{table}"]) for table in ("token_ledger", "call_sessions", "token_rates")) > 2
    do(site.target.set(database="postgres"), f"DROP DATABASE {site.target.database}")

    dry = site.move("--dry-run")
    assert dry.status == 0, dry
    assert "10. verify the target" in dry.out
    assert trace(site.source) == []
    with pytest.raises(DBAPIError):
        query(site.target, "SELECT")

    result = site.move()
    assert result.status == 0, result
    has_moved(site)
    assert contents(site.target) == before
    host, port = site.target.query["host"], site.target.port
    its = f"{site.source.database} = host={host} port={port} dbname={site.target.database}"
    assert f"In PgBouncer's [databases]: {its}" in result.out
    assert 'db-uri = "postgresql://authenticator@' in result.out
    assert run("access", url=site.target).out == "authenticated\n"
    assert query(site.target, "SELECT page_billing()") == [("metered",)]
    privileges = """
        SELECT
          has_table_privilege('clerk', 'user_accounts', 'SELECT'),
          has_column_privilege('clerk', 'user_accounts', 'subscription_tier', 'UPDATE'),
          has_table_privilege('clerk', 'user_accounts', 'UPDATE')
        """
    assert query(site.target, privileges) == [(True, True, False)]

    newest = "SELECT max(id) FROM token_ledger"
    [(old,)] = query(site.source, newest)
    assert query(site.target, "SELECT status FROM top_up('ample', 5, 'gift 7')") == [("known",)]
    assert query(site.target, "SELECT status FROM top_up('ample', 5, 'new')") == [("ok",)]
    assert query(site.target, f"{newest} HAVING max(id) > {old}") != []
    [(call,)] = query(site.target, "SELECT id FROM call_sessions WHERE user_id = 'ample'")
    assert query(site.target, f"SELECT status FROM end_call('{call}')") == [("ok",)]
    check(site.target)

    again = site.move()
    assert again.status == 0
    assert "already" in again.err
    back = site.move(to=site.source)
    assert back.status == 1
    assert "takes part in another move, or did" in back.err
    assert site.is_in_file == site.target
    do(site.source.set(database="postgres"), f"DROP DATABASE {site.source.database}")
    assert site.move(to=site.source).status == 0
    assert takes_writes(site.source)
    assert not takes_writes(site.target)
    check(site.source)


@contextmanager
def writing(site: Site, seen: list[str]) -> Iterator[dict[str, bool]]:
    """Somebody tops up, on whichever side takes it, and another one watches that never both do; what was promised."""
    over = threading.Event()
    told: dict[str, bool] = {}

    def is_told(key: str) -> bool:
        for url in (site.source, site.target):
            with suppress(psycopg.Error):  # it refuses, or is down, or is not upgraded yet
                return do(url, f"SELECT status FROM top_up('ample', 1, '{key}')")[0][0] in {"ok", "known"}
        return False

    def write() -> None:
        number = 1
        while not over.wait(0.02):
            told[f"key {number}"] = is_told(f"key {number}")
            number += told[f"key {number}"]

    def watch() -> None:
        while not over.wait(0.01):
            with suppress(psycopg.Error):
                if is_part(site.target) and takes_writes(site.target) and takes_writes(site.source):
                    seen.append("both take writes")

    threads = [threading.Thread(target=write), threading.Thread(target=watch)]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        over.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("victim", ["mover", "source", "target"])
def test_killed_at_any_moment_it_goes_on_and_one_side_takes_writes(site: Site, victim: str) -> None:
    """Each run is killed at the next moment, so that it begins with what the ones before it left."""
    seen: list[str] = []
    killed: list[str] = []
    with writing(site, seen) as told:
        at = 0
        while moment := site.killed(victim, at):
            killed.append(moment)
            at = MOMENTS.index(moment) + 1
            site.servers.start()
            if takes_writes(site.source):
                assert not (is_part(site.target) and takes_writes(site.target)), moment
            else:
                wait_until(lambda: takes_writes(site.target))
            before = sum(told.values())
            while sum(told.values()) < before + 2:
                time.sleep(0.02)
    assert seen == []
    has_moved(site, old_answered=victim != "source")
    assert len(killed) > len(MOMENTS) / 3, killed
    # A mover does not notice at once that its target is gone.
    assert victim == "target" or {"after fence.decide", "decided"} <= {*killed}
    rows = query(site.target, "SELECT key FROM token_ledger WHERE key LIKE 'key %' ORDER BY id")
    keys = [str(key) for (key,) in rows]
    assert keys == sorted(set(keys), key=lambda key: int(key.split()[1])), "each once, and the ids rise"
    assert {key for key, is_told in told.items() if is_told} <= {*keys}
    assert run("verify", url=site.target).status == 0


@needs_pooler
def test_moved_under_load_behind_a_pooler_nothing_is_lost(bare_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients call, pay and lose connections; whoever reads the printed line moves them to the new server."""
    # Refused by a side, and what comes after that in a transaction.
    monkeypatch.setattr(billing_load, "REFUSALS", {*billing_load.REFUSALS, REFUSED, "25P02", "3B001"})
    # What a client sets in its session is gone with its transaction, its role, too: so none may do what a page may not.
    for what in ("tamper", "write_end"):
        monkeypatch.setattr(billing_load.Client, what, billing_load.Client.tick)
    settings = {"server_reset_query_always": "1", "server_reset_query": "DISCARD ALL"}
    site = bare_site
    moved: list[int] = []

    def move() -> None:
        words = ["python", "-m", "oblivion_schema", *site.arguments("--leave-others")]
        mover = spawn(*words)
        assert mover.stdout is not None
        out = []
        for line in mover.stdout:
            out.append(line)
            if "In PgBouncer's [databases]: " in line:
                repoint(through, line.partition("[databases]: ")[2].strip())
                moved.append(load.did.total())
        _, err = mover.communicate(timeout=120)
        # What is under way when it is verified may be one failure: a call whose end waits to be settled.
        wrong = [line for line in out if "FAIL" in line and "every call that has ended is billed" not in line]
        assert not wrong, f"{out} {err}"
        assert mover.returncode == int("FAIL" in f"{out}"), f"{out} {err}"

    with pooled(site.source, "transaction", **settings) as through:
        load = Load(site.source, seed=19)
        load.prepare()
        load.url = through
        load.run(6, lambda: load.wait_for(150), move, lambda: load.wait_for(300))
        assert query(through, "SELECT current_database()") == [(site.target.database,)]
    load.url = site.target
    off = load.finish()
    assert off == [], "\n".join(off)
    assert moved
    has_moved(site)
    told = {key for key, credit in load.credits.items() if credit.kind == "top_up" and credit.status in {"ok", "known"}}
    assert len(told) > 10
    for key in list(told)[:5]:
        credit = load.credits[key]
        again = f"SELECT status FROM top_up('{credit.target}', {credit.tokens}, '{key}')"
        assert query(site.target, again) == [("known",)]
    assert run("verify", url=site.target).status == 0


def test_a_move_is_taken_back(site: Site) -> None:
    before = contents(site.source)
    assert site.move("--cancel").status == 0
    for moment in ("before replication.make_slot", "after replication.make_slot", "before fence.writes_held"):
        assert site.killed("mover", MOMENTS.index(moment)) == moment
        assert trace(site.source) != []
        result = site.move("--cancel")
        assert result.status == 0, result
        assert trace(site.source) == trace(site.target) == []
        assert contents(site.source) == before
        left = {table for table, rows in contents(site.target).items() if rows}
        assert left <= {"oblivion.alembic_version", "public.token_rates"}
        assert takes_writes(site.source)
        assert site.is_in_file == site.source
    assert site.killed("mover", MOMENTS.index("decided")) == "decided"
    assert "has moved" in site.refused("--cancel")[0]
    assert site.move().status == 0
    has_moved(site)


def test_one_process_at_a_time_moves_a_site(site: Site) -> None:
    assert site.killed("mover", MOMENTS.index("before fence.writes_held")) == "before fence.writes_held"
    before = trace(site.source), trace(site.target)
    with closing(psycopg.connect(libpq(site.source), autocommit=True)) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [_MOVERS_LOCK])
        for words in ((), ("--cancel",), ("--dry-run",)):
            [line] = site.refused(*words)
            assert line.startswith("Another process moves this site"), line
    elsewhere = site.servers.new("target")
    for words in ((), ("--cancel",)):
        [line] = site.refused(*words, to=elsewhere)
        assert line.startswith("This site moves to "), line
        assert line.endswith("The site takes writes, as before."), line
    assert (trace(site.source), trace(site.target)) == before
    assert site.move().status == 0
    has_moved(site)


def test_a_decision_that_cannot_come_is_taken_back(site: Site) -> None:
    """The slot is gone: neither side would ever take writes again."""
    before = contents(site.source)
    assert site.killed("mover", MOMENTS.index("before fence.writes_held")) == "before fence.writes_held"
    do(site.target, "ALTER SUBSCRIPTION oblivion_move DISABLE")
    decide = create_engine(site.source).connect()
    with decide.begin():
        fence.decide(decide, [table for table in TABLES if table != "oblivion.alembic_version"])
    decide.close()
    assert not takes_writes(site.source)
    assert not takes_writes(site.target)
    do(site.source, "SELECT pg_terminate_backend(active_pid, 9000) FROM pg_replication_slots WHERE active")
    do(site.source, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    [line] = site.refused()
    assert "--cancel takes the move back" in line
    result = site.move("--cancel")
    assert result.status == 0, result
    assert takes_writes(site.source)
    assert trace(site.source) == trace(site.target) == []
    assert contents(site.source) == before
    assert site.move().status == 0
    has_moved(site)


# -- What is in the way: said before anything is changed

FILL: Final = """
DO $$ BEGIN
  WHILE (SELECT count(*) FROM pg_replication_slots) < current_setting('max_replication_slots')::integer - 1 LOOP
    PERFORM pg_create_physical_replication_slot('spare_' || count(*)) FROM pg_replication_slots;
  END LOOP;
END $$
"""
DRAIN: Final = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'spare%'"


@pytest.mark.parametrize(
    ("side", "breaks", "says"),
    [
        ("source", FILL, "The site's server has 1 replication slot left, and a move takes 2: drop"),
        (
            "source",
            "ALTER TABLE user_presence REPLICA IDENTITY NOTHING",
            "Table public.user_presence cannot be moved: it has no replica identity: ALTER TABLE",
        ),
        (
            "source",
            "ALTER TABLE token_usage ADD COLUMN note text",
            "token_usage cannot be moved: its column note is not",
        ),
        (
            "source",
            "CREATE TABLE orders ()",
            "would stay behind: public.orders. Move them yourself, and say --leave-others",
        ),
        ("source", "UPDATE oblivion.alembic_version SET version_num = '004'", "is at 004, not at"),
        ("source", "INSERT INTO oblivion.backfills (name) VALUES ('x')", "has rows to fill in"),
        (
            "source",
            "CREATE INDEX ours ON call_sessions (room_id)",
            "index public.ours on public.call_sessions is in neither",
        ),
        (
            "source",
            "DROP ROLE IF EXISTS waiter; CREATE ROLE waiter; GRANT SELECT ON token_usage TO waiter",
            "Role waiter has privileges on the site's tables, and is not on the target's server",
        ),
        ("target", "CREATE TABLE orders ()", "target holds rows, or tables that are not ours: public.orders"),
        (
            "target",
            "INSERT INTO user_accounts (user_id) VALUES ('me')",
            "tables that are not ours: public.user_accounts, public.token_ledger",
        ),
        (
            "target",
            (Path(fence.__file__).parent / "move" / "fence.sql").read_text(encoding="utf-8")
            + "INSERT INTO oblivion_move.move VALUES (gen_random_uuid(), 'target', 'another')",
            "takes part in another move",
        ),
    ],
)
def test_what_is_in_the_way_is_said_first(site: Site, side: str, breaks: str, says: str) -> None:
    execute(getattr(site, side), breaks)
    before = trace(site.target)
    try:
        lines = site.refused("--dry-run")
        assert [line for line in lines if says in line], lines
        assert site.refused() == lines
    finally:
        do(site.source, DRAIN)
    assert trace(site.source) == []
    assert trace(site.target) == before
    assert takes_writes(site.source)
    assert site.is_in_file == site.source


def test_what_is_left_behind_has_to_be_said(site: Site) -> None:
    execute(site.source, "CREATE TABLE orders (); CREATE INDEX ours ON call_sessions (room_id)")
    assert len(site.refused()) == 1
    result = site.move("--leave-others")
    assert result.status == 0, result
    has_moved(site)


def test_a_move_needs_two_servers_that_fit(site: Site, upgraded: URL, tmp_path: Path) -> None:
    execute(site.source, "SELECT 1")
    site.file.write_text(f'[sites.shop]\nurl = "{libpq(upgraded)}"\n')
    assert site.refused()[0].startswith(
        "wal_level of the site's server is replica: a superuser has to run ALTER SYSTEM"
    )
    site.file.write_text(f'[sites.shop]\nurl = "{libpq(site.source)}"\n[sites.club]\nurl = "{libpq(site.target)}"\n')
    assert "sites shop and club are one database" in " ".join(site.refused())
    address = site.source.update_query_dict({"host": f"{site.source.query['host']}/."})
    site.file.write_text(f'[sites.shop]\nurl = "{libpq(site.source)}"\n')
    assert "are one database" in site.refused(to=address)[0]
    nowhere = site.target.update_query_dict({"host": str(tmp_path)})
    assert "Cannot connect to" in site.refused(to=nowhere)[0]
    wrong = site.source.set(password="hunter2").update_query_dict({"host": str(tmp_path)})
    [line] = site.refused("--source-url", libpq(wrong))
    assert "Cannot connect to" in line
    assert "hunter2" not in line
    home = temporary_home()
    older = embedded.start(home / "older", at_exit="delete", major=16)
    try:
        [line] = site.refused(to=embedded.url(older, "shop"))
        assert line.startswith("The site's server runs PostgreSQL 18 and the target's 16: a move needs one major")
    finally:
        older.cleanup()
        shutil.rmtree(home)
    assert site.is_in_file == site.source
    assert trace(site.source) == []


def test_owners_that_are_no_superusers_move_a_site(servers: Servers, tmp_path: Path) -> None:
    servers.start()
    urls = {}
    for side in ("source", "target"):
        admin, folder = servers.url(side), getattr(servers, side)
        name = f"own_{side}_{next(servers.numbers)}"
        do(admin, f"CREATE ROLE {name} LOGIN PASSWORD 'secret' CREATEROLE")
        do(admin, f"CREATE DATABASE {name} OWNER {name}")
        access = Path(folder, "pg_hba.conf")
        access.write_text(f"local all {name} scram-sha-256\n{access.read_text()}")
        do(admin, "SELECT pg_reload_conf()")
        do(admin.set(database=name), f"ALTER SCHEMA public OWNER TO {name}")
        urls[side] = servers.url(side, name).set(username=name, password="secret")
    oblivion_schema.upgrade(urls["source"], demo=False)
    oblivion_schema.upgrade(urls["target"], demo=False)
    assert run("access", "authenticated", url=urls["source"]).status == 0
    query(urls["source"], "SELECT oblivion.allow_sign_up(7)")
    execute(urls["source"], "INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('ample', 100)")
    file = tmp_path / "sites.toml"
    file.write_text(f'# The shop.\n[sites.shop]\nurl = "{libpq(urls["source"])}"  # it moves\n')
    site = Site(servers, file, urls["source"], urls["target"])
    lines = site.refused()
    roles = {side: urls[side].username for side in urls}
    assert f'ALTER ROLE "{roles["source"]}" REPLICATION' in " ".join(lines)
    assert f'GRANT pg_create_subscription TO "{roles["target"]}"' in " ".join(lines)
    do(servers.url("source"), f"ALTER ROLE {roles['source']} REPLICATION")
    do(servers.url("target"), f"GRANT pg_create_subscription TO {roles['target']}")
    before = contents(site.source)
    result = site.move()
    assert result.status == 0, result
    assert "secret" not in f"{result}"
    has_moved(site)
    assert contents(site.target) == before
