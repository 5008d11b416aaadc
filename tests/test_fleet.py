"""A fleet: what one site does or suffers never touches another, and what is not done is said.

The sites are databases on the server of the run; their processes are real, and are interrupted and killed.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from legacy_states import STATES
from pooler import PROGRAM, pooled
from sqlalchemy import NullPool, create_engine, text
from support import PROJECT, Result, dump, examples, execute, query, run, spawn, temporary_home, wait_until

from oblivion_schema import replacing
from oblivion_schema.errors import UserError
from oblivion_schema.fleet import sites as files
from oblivion_schema.fleet.command import COMMANDS
from oblivion_schema.fleet.run import Runner
from oblivion_schema.server import embedded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import URL

SECRET = "hunter2"
DEAD = f"postgresql://me:{SECRET}@127.0.0.1:1/shop"
HEAD = "005"
HAND_MADE = next(state for state in STATES if state.name == "presence fixed and safe, billing")
VERSION = "SELECT version_num FROM oblivion.alembic_version"
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are otherwise there")


def written(url: URL | str) -> str:
    return url if isinstance(url, str) else url.set(password=SECRET).render_as_string(hide_password=False)


@pytest.fixture
def fleet_of(tmp_path: Path) -> Callable[..., Path]:
    """Write a file of sites."""

    def write(**sites: URL | str) -> Path:
        file = tmp_path / "sites.toml"
        file.write_text("".join(f'[sites.{name}]\nurl = "{written(url)}"\n' for name, url in sites.items()))
        return file

    return write


def fleet(file: Path, *words: str, options: tuple[str, ...] = ()) -> Result:
    result = run(*options, "fleet", str(file), *words)
    assert SECRET not in f"{result}"
    assert "Traceback" not in result.err
    return result


def failure(result: Result) -> str:
    """What the last line says of a failure."""
    assert result.status != 0, result
    last = result.err.splitlines()[-1]
    assert last.startswith("FAILED: "), result.err
    return last.removeprefix("FAILED: ")


def sum_of(result: Result) -> str:
    """The line with the sum, without the seconds."""
    [line] = [line for line in result.err.splitlines() if re.match(r"\d+ sites?, ", line)]
    return re.sub(r", [\d.]+ s:", ":", line)


def at(url: URL) -> list[object]:
    [(there,)] = query(url, "SELECT to_regclass('oblivion.alembic_version') IS NOT NULL")
    return [version for (version,) in query(url, VERSION)] if there else []


def _at_revision(url: URL, revision: str) -> None:
    result = run("upgrade", revision, url=url)
    assert result.status == 0, result


@pytest.fixture
def at_revision(new_sort: Callable[..., URL], templates: Callable[..., URL]) -> Callable[[str], URL]:
    """Make a database at a revision."""
    return lambda revision: new_sort(copy_of=templates("superuser", _at_revision, revision))


@pytest.fixture(scope="module")
def second() -> Iterator[Callable[[], URL]]:
    """Make a database on a second server."""
    home = temporary_home()
    server = embedded.start(home / "second", settings="fsync = off\n", at_exit="delete")
    numbers = count()

    def make() -> URL:
        url = embedded.url(server, f"site_{next(numbers)}")
        with create_engine(embedded.url(server), poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as admin:
            admin.execute(text(f"CREATE DATABASE {url.database}"))
        return url

    yield make
    server.cleanup()
    shutil.rmtree(home)


@pytest.fixture
def eight(new_sort: Callable[..., URL], at_revision: Callable[[str], URL], second: Callable[[], URL]) -> dict[str, URL]:
    """Eight sites, on two servers, without the dead one.

    Three are empty, one is hand-made, with rows, two are behind, and one is at head.
    """
    by_hand, at_003 = second(), second()
    execute(by_hand, HAND_MADE.script(rows=True, by_hand=True))
    _at_revision(at_003, "003")
    return {
        "empty-1": new_sort("superuser"),
        "empty-2": second(),
        "empty-3": second(),
        "by-hand": by_hand,
        "at-003": at_003,
        "at-004": at_revision("004"),
        "at-head": at_revision(HEAD),
    }


@pytest.fixture
def file_of_eight(eight: dict[str, URL], fleet_of: Callable[..., Path]) -> Iterator[Path]:
    """Their file, with the dead one; one of them is reached through PgBouncer where that is installed."""
    if PROGRAM is None:  # the tests of PgBouncer itself say so
        yield fleet_of(dead=DEAD, **eight)
        return
    with pooled(eight["at-004"], "transaction") as through:
        yield fleet_of(dead=DEAD, **eight | {"at-004": through})


@contextmanager
def held(url: URL, table: str = "token_usage") -> Iterator[None]:
    """Another session holds a table, so that an upgrade waits."""
    with create_engine(url, poolclass=NullPool).connect() as holder:
        holder.execute(text(f"LOCK TABLE {table}"))
        yield


def is_waiting(url: URL) -> bool:
    waits = (
        "SELECT FROM pg_stat_activity WHERE datname = current_database()"
        " AND (wait_event_type = 'Lock' OR wait_event = 'PgSleep')"
    )
    return bool(query(url, waits))


def is_left_alone(url: URL) -> bool:
    ours = (
        # A pooler keeps idle sessions, and their names.
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'oblivion-schema%'"
        " AND state <> 'idle'"
    )
    return not query(url, ours)


def start(file: Path, *words: str) -> subprocess.Popen[str]:
    return spawn("python", "-m", "oblivion_schema", "-x", "lock-timeout=9min", "fleet", file, *words)


def counts(url: URL) -> list[tuple[object, ...]]:
    tables = ("call_sessions", "user_presence", "user_accounts", "token_usage")
    sums = ", ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    return query(url, f"SELECT {sums}, (SELECT sum(tokens_remaining) FROM user_accounts)")


@pytest.mark.full
def test_upgrade_brings_all_sites_to_head_but_the_dead_one(eight: dict[str, URL], file_of_eight: Path) -> None:
    file = file_of_eight
    before = counts(eight["by-hand"])
    result = fleet(file, "upgrade", "--jobs", "4", options=("-x", "demo=no"))
    assert result.status == 1
    assert failure(result) == "1 of 8 sites: dead. The lines of this site say why."
    assert sum_of(result) == "8 sites: 6 done, 1 at head, 1 failed."
    assert {name: at(url) for name, url in eight.items()} == {name: [HEAD] for name in eight}
    assert counts(eight["by-hand"]) == before
    for url in eight.values():
        assert run("check", url=url).status == 0, url
    lines = result.err.splitlines()[:-2]
    named = {line.partition(": ")[0] for line in lines}
    assert named == {"dead", *eight}, "each line begins with the name of a site"
    [why] = [line for line in lines if line.startswith("dead: ")]
    assert why.startswith("dead: FAILED: Cannot connect to me@127.0.0.1:1/shop")
    assert sum_of(fleet(file, "upgrade")) == "8 sites: 7 at head, 1 failed."


@posix
@pytest.mark.full
def test_killed_fleet_leaves_nothing_running_and_goes_on(eight: dict[str, URL], file_of_eight: Path) -> None:
    file = file_of_eight
    url = eight["at-003"]
    before = dump(url)
    with held(url):
        killed = start(file, "upgrade", "--jobs", "4")
        wait_until(lambda: is_waiting(url), 60)
        killed.kill()
        killed.communicate()
        # The table is held all the time: only the end of its fleet ends what waits for it.
        wait_until(lambda: all(map(is_left_alone, eight.values())))
    assert dump(url) == before
    again = fleet(file, "upgrade", "--jobs", "4")
    assert again.status == 1
    assert failure(again) == "1 of 8 sites: dead. The lines of this site say why."
    assert {name: at(url) for name, url in eight.items()} == {name: [HEAD] for name in eight}
    for url in eight.values():
        assert run("check", url=url).status == 0, url


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
@pytest.mark.few(number=1)
def test_signal_rolls_back_what_runs_and_says_what_is_not_done(
    at_revision: Callable[[str], URL], fleet_of: Callable[..., Path], number: signal.Signals
) -> None:
    busy, waiting = at_revision("004"), at_revision("004")
    before = dump(busy)
    with held(busy):
        running = start(fleet_of(busy=busy, waiting=waiting, whole=at_revision(HEAD)), "upgrade", "--jobs", "1")
        wait_until(lambda: is_waiting(busy), 60)
        [child] = psutil.Process(running.pid).children()
        assert SECRET not in f"{child.cmdline()}{child.environ()}"
        running.send_signal(number)
        _, err = running.communicate(timeout=60)
    lines = err.splitlines()
    assert running.returncode == 128 + number
    assert lines[-1] == (
        "FAILED: Interrupted: sites that were not over were rolled back. Run the command again."
        " Not done: busy, waiting."
    )
    assert "busy: FAILED: Interrupted. Uncommitted changes were undone: run the command again." in lines
    assert "Traceback" not in err
    assert dump(busy) == before
    assert at(waiting) == ["004"]


@posix
@pytest.mark.full
def test_second_signal_does_not_wait(at_revision: Callable[[str], URL], fleet_of: Callable[..., Path]) -> None:
    busy = at_revision("004")
    with held(busy):
        running = start(fleet_of(busy=busy), "upgrade")
        wait_until(lambda: is_waiting(busy), 60)
        [child] = psutil.Process(running.pid).children()
        child.suspend()  # it hears nothing
        running.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(1)
        running.send_signal(signal.SIGINT)
        child.resume()  # to a stopped process no signal but SIGKILL comes
        running.communicate(timeout=3)
    assert running.returncode == 130


@posix
def test_process_that_is_killed_fails_alone(at_revision: Callable[[str], URL], fleet_of: Callable[..., Path]) -> None:
    busy, other = at_revision("004"), at_revision("004")
    with held(busy):
        running = start(fleet_of(busy=busy, other=other), "upgrade", "--jobs", "1")
        wait_until(lambda: is_waiting(busy), 60)
        [child] = psutil.Process(running.pid).children()
        child.kill()
        _, err = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "busy: FAILED: SIGKILL ended its process. PostgreSQL rolls back what is not committed." in err.splitlines()
    assert (at(busy), at(other)) == (["004"], [HEAD])


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no process start."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(Runner, "_worker", refuse)


@pytest.mark.usefixtures("no_process")
def test_sites_at_head_take_no_process(at_revision: Callable[[str], URL], fleet_of: Callable[..., Path]) -> None:
    file = fleet_of(one=at_revision(HEAD), behind=at_revision("004"))
    assert sum_of(fleet(file, "upgrade", "--only", "one")) == "1 site: 1 at head."
    assert fleet(file, "upgrade", HEAD, "--only", "one").status == 0
    current = fleet(file, "current")
    assert (current.status, current.out) == (0, f"one: {HEAD} (head)\nbehind: 004\n")
    refused = fleet(file, "upgrade")
    assert (
        "behind: FAILED: No process can be started: Resource temporarily unavailable. Try again with less --jobs."
        in refused.err
    )
    assert failure(refused) == "1 of 2 sites: behind. The lines of this site say why."


def test_sites_at_head_get_what_is_left_to_do(at_revision: Callable[[str], URL], fleet_of: Callable[..., Path]) -> None:
    url = at_revision(HEAD)
    file = fleet_of(one=url)
    execute(url, "INSERT INTO oblivion.backfills (name) VALUES ('usage')")
    assert sum_of(fleet(file, "upgrade")) == "1 site: 1 done."
    assert query(url, "SELECT FROM oblivion.backfills") == []
    assert sum_of(fleet(file, "upgrade", options=("-x", "access=authenticated"))) == "1 site: 1 done."
    assert query(url, "SELECT oblivion.open_access()") == [(False,)]
    assert sum_of(fleet(file, "upgrade")) == "1 site: 1 at head."


def test_first_site_is_verified_before_any_other_is_touched(
    at_revision: Callable[[str], URL], fleet_of: Callable[..., Path]
) -> None:
    first, other = at_revision("004"), at_revision("004")
    file = fleet_of(other=other, first=first)
    execute(first, "DELETE FROM token_rates WHERE mode = 'video'")
    stopped = fleet(file, "upgrade", "--first", "first")
    assert failure(stopped) == "1 of 2 sites: first. The lines of this site say why. Not done: other."
    assert re.search("^first: FAIL .*rate", stopped.out, re.MULTILINE)
    assert (at(first), at(other)) == ([HEAD], ["004"]), "it was upgraded, and is not well"

    run("downgrade", "004", url=first)
    execute(first, "DELETE FROM token_rates")
    dead = fleet(fleet_of(other=other, first=DEAD), "upgrade", "--first", "first")
    assert failure(dead) == "1 of 2 sites: first. The lines of this site say why. Not done: other."
    assert at(other) == ["004"]

    well = fleet(fleet_of(other=other, first=at_revision("004")), "upgrade", "--first", "first")
    assert sum_of(well) == "2 sites: 2 done."
    assert well.err.count("Context impl") == 2, "verify logs nothing"
    assert well.err.rindex("\nfirst: ") < well.err.index("\nother: ")
    assert at(other) == [HEAD]


# What each command prints on stdout of a site at head without calls.
SAYS = {
    "current": f"{HEAD} (head)",
    "current -v": r"Rev: 005 \(head\)",
    "verify": "ok    every balance is the sum of its ledger",
    "check": "No new upgrade operations detected",
    "inspect": f"State: ours, at revision {HEAD}",
    "reap --not-seen-for 90s --max 10": "Reaped 0 calls",
    "settle": "Settled 0 calls",
    "burn": "Burnt 0 calls",
    "access": "open",
    "access authenticated": "authenticated",
    "pages": "Pages are trusted",
    "pages --days 3": "Pages are trusted",
    "pages metered": "metered",
}


def test_each_command_works_on_each_site(at_revision: Callable[[str], URL], fleet_of: Callable[..., Path]) -> None:
    assert {command.partition(" ")[0] for command in SAYS} | {"upgrade"} == {*COMMANDS}
    file = fleet_of(one=at_revision(HEAD), two=at_revision(HEAD))
    execute(at_one := at_revision(HEAD), "DROP INDEX idx_token_usage_session")
    for command, says in list(SAYS.items())[:: examples(1, quick=4)]:
        result = fleet(file, *command.split(), "--jobs", "1")
        assert result.status == 0, result
        for site in ("one", "two"):
            assert re.search(rf"^{site}: .*{says if '-v' in command else re.escape(says)}", result.out, re.MULTILINE)
        assert all(line.startswith(("one: ", "two: ")) for line in result.out.splitlines())
    mended = fleet(fleet_of(broken=at_one), "check", "--sql")
    assert "broken: CREATE INDEX idx_token_usage_session" in mended.out


def test_options_stand_before_the_command_or_after_it(
    at_revision: Callable[[str], URL], fleet_of: Callable[..., Path]
) -> None:
    file = fleet_of(one=at_revision(HEAD), two=DEAD, three=at_revision(HEAD))
    for words in (["--only", "one", "--jobs", "2", "current"], ["current", "--jobs", "2", "--only", "one"]):
        assert fleet(file, *words).out == f"one: {HEAD} (head)\n"
    assert fleet(file, "current", "--only", "three", "--only", "one").out.count("(head)") == 2


@pytest.mark.full
def test_quiet_fleet_says_nothing_if_all_is_well(
    at_revision: Callable[[str], URL], fleet_of: Callable[..., Path]
) -> None:
    url = at_revision(HEAD)
    file = fleet_of(one=url)
    for command in ("upgrade", "settle", "verify"):
        result = fleet(file, command, options=("-q",))
        assert (result.status, result.out, result.err) == (0, "", ""), result
    execute(url, "DELETE FROM token_rates WHERE mode = 'video'")
    result = fleet(file, "verify", options=("-q",))
    assert result.out.startswith("one: FAIL")
    assert failure(result).startswith("1 of 1 site: one.")


def test_json_has_each_site_with_what_it_said(at_revision: Callable[[str], URL], fleet_of: Callable[..., Path]) -> None:
    file = fleet_of(behind=at_revision("004"), whole=at_revision(HEAD), dead=DEAD)
    result = fleet(file, "upgrade", "--json")
    assert result.status == 1
    document = json.loads(result.out)
    assert {name: document[name] for name in ("command", "status")} == {"command": "upgrade", "status": "failed"}
    shown = {site["name"]: (site["status"], site["revision"]) for site in document["sites"]}
    assert shown == {"behind": ("done", HEAD), "whole": ("at head", HEAD), "dead": ("failed", None)}
    messages = {site["name"]: " ".join(site["messages"]) for site in document["sites"]}
    assert "Running upgrade 004 -> 005" in messages["behind"]
    assert messages["dead"].startswith("FAILED: Cannot connect to me@127.0.0.1:1/shop")
    assert all(site["seconds"] >= 0 for site in document["sites"])
    assert failure(result) == "1 of 3 sites: dead. The lines of this site say why."

    for command, key in (("pages", "tokens_due"), ("check", "differences")):
        document = json.loads(fleet(file, command, "--json").out)
        reports = {site["name"]: site["report"] for site in document["sites"]}
        assert reports["dead"] is None
        assert key in reports["behind"]
    switched = json.loads(fleet(file, "pages", "metered", "--json", "--only", "whole").out)
    assert [site["lines"] for site in switched["sites"]] == [["metered"]]


BAD_FILES: dict[str, tuple[str | bytes, str]] = {
    "no TOML": ("[sites.a\n", "line 1: this is no TOML. Write [sites.NAME]"),
    "two of one name": (
        '[sites.a]\nurl = "postgresql://h/a"\n[sites.a]\nurl = "postgresql://h/b"\n',
        "line 3: a name stands there a second time. Name each site once.",
    ),
    "a name that is a URL, twice": (
        f'[sites."postgresql://u:{SECRET}@h"]\n[sites."postgresql://u:{SECRET}@h"]\n',
        "line 2: a name stands there a second time",
    ),
    "two of one database": (
        '[sites.a]\nurl = "postgresql://me@H/shop"\n[sites.b]\nurl = "postgres://you@h:5432/shop"\n',
        "sites a and b are one database.",
    ),
    "two of the role's own database": (
        '[sites.a]\nurl = "postgresql://me@h"\n[sites.b]\nurl = "postgresql+psycopg2://h/me"\n',
        "sites a and b are one database.",
    ),
    "unknown key of a site": (
        f'[sites.a]\nurl = "postgresql://h/a"\ncolour = "{SECRET}"\n',
        "site a: unknown key colour.",
    ),
    "a URL for a key": (f'[sites.a]\n"postgresql://u:{SECRET}@h/a" = 1\n', "site a: unknown key. A site has a url"),
    "unknown table": (
        '[site.a]\nurl = "postgresql://h/a"\n',
        "unknown key site. The file has tables [sites.NAME] only.",
    ),
    "no URL": ("[sites.a]\n", "site a has no url."),
    "an empty URL": ('[sites.a]\nurl = " "\n', "site a has no url."),
    "a number for a URL": ("[sites.a]\nurl = 5432\n", "site a has no url."),
    "a URL that is none": (f'[sites.a]\nurl = "{SECRET}"\n', "the url of site a is no database URL"),
    "an @ in a password": (
        f'[sites.a]\nurl = "postgresql://u:{SECRET}@x@h/a"\n',
        "the url of site a is no database URL",
    ),
    "another database": (f'[sites.a]\nurl = "mysql://u:{SECRET}@h/a"\n', "the url of site a names mysql://"),
    "an option that libpq lacks": (
        f'[sites.a]\nurl = "postgresql://u:{SECRET}@h/a?colour=red"\n',
        'invalid connection option "colour"',
    ),
    "a name with a space": ('[sites."a b"]\nurl = "postgresql://h/a"\n', "the name a b is none: take letters"),
    "a site that is no table": ('[sites]\na = "postgresql://h/a"\n', "site a is no table."),
    "sites that are no table": ("sites = 1\n", "sites is no table."),
    "an empty file": ("", "names no site."),
    "comments alone": ("# nothing yet\n[sites]\n", "names no site."),
    "no text": (b"\xff\xfe\x00", "is no text in UTF-8."),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    file = tmp_path / "sites.toml"
    content, says = BAD_FILES[case]
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = fleet(file, "upgrade")
    assert says in result.error
    assert "sites.toml" in result.error
    assert len(result.err.splitlines()) == 1
    assert result.out == ""


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "missing.toml cannot be read: No such file or directory." in fleet(tmp_path / "missing.toml", "verify").error
    assert "cannot be read: Is a directory." in fleet(tmp_path, "verify").error


BAD_WORDS: dict[str, tuple[str, str]] = {
    "no such site": ("upgrade --only nobody one", "--only nobody: "),
    "no such first": ("upgrade --first nobody", "--first nobody: "),
    "first is left out": ("upgrade --first two --only one", "--first two: --only leaves this site out."),
    "first of another command": ("verify --first one", "--first belongs to upgrade"),
    "no jobs": ("upgrade --jobs 0", "--jobs 0: give a number of sites from 1 to 1000"),
    "jobs that are no number": ("upgrade --jobs many", "--jobs many: give a number"),
    "a mode that is none": ("access closed", "access closed: the modes are"),
    "a script": ("access open --sql", "access --sql is the same for each site"),
    "another database": ("check --against postgresql://h/d", "check --against names a database"),
    "two ways to print": ("check --sql --json", "check --sql --json: say one of them."),
    "a URL that is none": (f"add new --url {SECRET}", "--url is no database URL"),
    "a name that is none": ("add new.site --url postgresql://h/d", "new.site is no name of a site"),
    "a name that is taken": ("add one --url postgresql://h/d", "has a site one with another url already"),
    "sites to choose from": ("add new --url postgresql://h/d --only one", "--only and --first belong to commands"),
}


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize("case", BAD_WORDS)
def test_bad_words_are_refused_before_anything_is_done(
    at_revision: Callable[[str], URL], fleet_of: Callable[..., Path], case: str
) -> None:
    words, says = BAD_WORDS[case]
    url = at_revision("004")
    file = fleet_of(one=url, two=DEAD)
    content = file.read_text()
    result = fleet(file, *words.split())
    if case != "a mode that is none":  # each site says it
        assert says in result.error
        assert len(result.err.splitlines()) == 1
    assert at(url) == ["004"]
    assert file.read_text() == content


def test_bad_options_are_refused(fleet_of: Callable[..., Path]) -> None:
    file = fleet_of(one=DEAD)
    assert (
        "-x url: a fleet's databases are those of its file." in run("-x", "url=x", "fleet", str(file), "verify").error
    )
    assert "go with upgrade head only" in fleet(file, "verify", options=("-x", "access=open")).error
    for words in (["stamp"], [], ["upgrade", "--sql"], ["reap", "--days", "3"], ["add", "new"], ["verify", "--colour"]):
        result = fleet(file, *words)
        assert result.status == 2, words
        assert "usage: oblivion-schema" in result.err


def test_one_database_by_two_addresses_is_refused(
    at_revision: Callable[[str], URL], fleet_of: Callable[..., Path], tmp_path: Path
) -> None:
    url = at_revision("004")
    host = str(url.query.get("host") or url.host)
    if not host.startswith("/"):
        pytest.skip("the server of this run has no socket here")
    (tmp_path / "s").symlink_to(host)
    other = url.set(host=None).update_query_dict({"host": str(tmp_path / "s")})
    file = fleet_of(a=url, b=other)
    assert "sites a and b are one database." in fleet(file, "upgrade").error
    assert at(url) == ["004"]
    assert fleet(file, "current", "--only", "b").status == 0


def test_site_at_a_revision_of_newer_code_stops_the_upgrade_of_all(
    at_revision: Callable[[str], URL], fleet_of: Callable[..., Path]
) -> None:
    newer, behind = at_revision(HEAD), at_revision("004")
    execute(newer, "UPDATE oblivion.alembic_version SET version_num = '999'")
    file = fleet_of(behind=behind, newer=newer)
    result = fleet(file, "upgrade")
    assert "Site newer is at 999, which this version of oblivion_schema does not have." in result.error
    assert at(behind) == ["004"]
    current = fleet(file, "current")
    assert current.out == "behind: 004\n"
    assert "newer: FAILED: The database is at 999, which this version" in current.err
    assert fleet(file, "upgrade", "--only", "behind").status == 0


def test_version_table_that_is_locked_fails_one_site(
    at_revision: Callable[[str], URL], fleet_of: Callable[..., Path]
) -> None:
    busy = at_revision(HEAD)
    file = fleet_of(busy=busy, other=at_revision(HEAD))
    with held(busy, "oblivion.alembic_version"):
        result = fleet(file, "current")
    assert "canceling statement due to lock timeout. Run the command again." in result.err
    assert failure(result) == "1 of 2 sites: busy. The lines of this site say why."
    assert result.out == f"other: {HEAD} (head)\n"


def test_password_may_come_from_libpqs_own_file(
    server: URL,
    new_sort: Callable[..., URL],
    fleet_of: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = new_sort("superuser")
    execute(
        server, "DO $$ BEGIN CREATE ROLE needs_password LOGIN PASSWORD 'right'; EXCEPTION WHEN OTHERS THEN NULL; END $$"
    )
    execute(server, f"ALTER DATABASE {url.database} OWNER TO needs_password")
    its = url.set(username="needs_password", password=None).render_as_string()
    file = fleet_of(one=its, other=its.replace(str(url.database), "nowhere"))
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    without = fleet(file, "upgrade", "--only", "one")
    if without.status == 0:
        pytest.skip("the server of this run asks for no password")
    assert "one: FAILED: Cannot connect to needs_password@" in without.err
    assert "no password supplied" in without.err
    passwords = tmp_path / "passwords"
    passwords.write_text(f"*:*:{url.database}:needs_password:right\n")
    passwords.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    assert fleet(file, "upgrade", "--only", "one").status == 0
    assert at(url) == [HEAD]


@pytest.fixture
def new_name(server: URL, new_sort: Callable[..., URL]) -> Iterator[URL]:
    """The URL of a database that is not there."""
    url = new_sort("superuser")
    missing = url.set(database=f"{url.database}-New")
    yield missing
    execute_alone(server, f'DROP DATABASE IF EXISTS "{missing.database}" WITH (FORCE)')


def execute_alone(url: URL, sql: str) -> None:
    with create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql(sql)


def test_add_makes_upgrades_verifies_and_writes_a_site(new_name: URL, tmp_path: Path) -> None:
    file = tmp_path / "sites.toml"
    before = f'# The sites.\n[sites.dead]  # of old\nurl = "{DEAD}"\n\n# The end.\n'
    file.write_text(before)
    file.chmod(0o640)
    result = fleet(file, "add", "new", "--url", written(new_name), options=("-x", "access=authenticated"))
    assert result.status == 0, result
    assert f"new: Is in {file}.\n" in result.out
    assert at(new_name) == [HEAD]
    assert query(new_name, "SELECT oblivion.open_access()") == [(False,)]
    assert file.read_text() == f'{before}\n[sites.new]\nurl = "{written(new_name)}"\n'
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["sites.toml"]
    after = dump(new_name, numbers=False)
    assert fleet(file, "add", "new", "--url", written(new_name)).status == 0, "again, it changes nothing"
    assert file.read_text().count("[sites.new]") == 1
    assert dump(new_name, numbers=False) == after
    assert "sites new and other are one database." in fleet(file, "add", "other", "--url", written(new_name)).error


def test_add_goes_on_where_it_was_cut_off(
    new_name: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_process: None
) -> None:
    file = tmp_path / "sites.toml"
    words = ("add", "new", "--url", written(new_name))
    cut = fleet(file, *words)  # no process starts, so there is the database alone
    assert failure(cut) == "1 of 1 site: new. The lines of this site say why."
    assert not file.exists()
    assert at(new_name) == []
    monkeypatch.undo()
    assert no_process is None
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise UserError("the disk is full")

        patch.setattr(replacing, "replace", full)
        assert "the disk is full" in fleet(file, *words).err
    assert at(new_name) == [HEAD]
    assert fleet(file, *words).status == 0
    assert list(files.read(file)) == ["new"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600, "it may have a password"


@pytest.mark.usefixtures("no_process")
def test_add_refuses_what_is_not_ours(
    new_sort: Callable[..., URL], state_by_hand: Callable[..., URL], fleet_of: Callable[..., Path]
) -> None:
    foreign, half = new_sort("superuser"), new_sort("superuser")
    execute(foreign, "CREATE TABLE invoices (id integer); CREATE VIEW late AS SELECT 1")
    execute(half, "CREATE TABLE token_rates (id integer)")
    by_hand = new_sort(copy_of=state_by_hand("superuser", HAND_MADE))
    file = fleet_of(dead=DEAD)
    for url, says in {
        foreign: "table public.invoices, view public.late",
        half: "public.token_rates cannot be taken over: it lacks",
        by_hand: "made by hand: calls, presence",
    }.items():
        before, content = dump(url), file.read_text()
        result = fleet(file, "add", "new", "--url", written(url))
        assert says in result.error
        assert "Nothing was changed." in result.error
        assert (dump(url), file.read_text()) == (before, content)


@pytest.mark.usefixtures("no_process")
def test_add_says_what_to_do_where_the_role_may_make_no_database(
    new_sort: Callable[..., URL], server: URL, tmp_path: Path
) -> None:
    its = new_sort("owner")
    missing = its.set(database=f"{its.database}_missing")
    result = run(
        "fleet", str(tmp_path / "sites.toml"), "add", "new", "--url", missing.render_as_string(hide_password=False)
    )
    assert f'CREATE DATABASE "{missing.database}" OWNER {its.username}, and run this again.' in result.error
    assert query(server, f"SELECT FROM pg_database WHERE datname = '{missing.database}'") == []
    dead = fleet(tmp_path / "sites.toml", "add", "new", "--url", DEAD)
    assert "new: Cannot connect to me@127.0.0.1:1/shop" in dead.error
    assert "Connection refused" in dead.error
    gone = fleet(tmp_path / "nowhere" / "sites.toml", "add", "new", "--url", DEAD)
    assert "its folder is not there" in gone.error
    assert not (tmp_path / "sites.toml").exists()


A = 'url = "postgresql://h/a"'
LAYOUTS = {
    "nothing": "",
    "no end of line": f"[sites.a]\n{A}",
    "Windows": f"# sites\r\n[sites.a]\r\n{A}\r\n",
    "dotted": f"sites.a.{A} # yes\n",
    "a table above": f"[sites]\n[sites.a]\n  {A}\n\n\n# end",
    "one line": '[sites]\na = {url = "postgresql://h/a"}\n',
    "literal": "[sites.a]\nurl = 'postgresql://h/a'\n",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_written_into_a_file_leaves_the_rest(tmp_path: Path, layout: str) -> None:
    file = tmp_path / "sites.toml"
    file.write_bytes(LAYOUTS[layout].encode())
    before = files.read_or_none(file)
    url = 'postgresql://me@/shop?host=%2Frun&application_name=a"b\\c'
    files.add(file, "b-1", url)
    content = file.read_bytes().decode()
    assert content.startswith(LAYOUTS[layout])
    assert content.endswith("\n")
    assert ("\r\n" in content) == (layout == "Windows")
    assert layout != "Windows" or content.count("\n") == content.count("\r\n")
    after = files.read(file)
    assert list(after) == [*before, "b-1"]
    assert after.items() >= before.items()
    assert after["b-1"].database.url.query["application_name"] == 'a"b\\c'


def test_file_that_cannot_take_a_site_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "sites.toml"
    file.write_text(content := 'sites = {a = {url = "postgresql://h/a"}}\n')
    with pytest.raises(UserError, match="site b cannot be added to this file as it is written"):
        files.add(file, "b", "postgresql://h/b")
    assert file.read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == ["sites.toml"]


@posix
def test_sites_that_are_added_at_once_are_all_there_and_links_stay_links(tmp_path: Path) -> None:
    file = tmp_path / "real.toml"
    file.write_text(f"[sites.a]\n{A}\n")
    link = tmp_path / "sites.toml"
    link.symlink_to(file)
    names = [f"b{number}" for number in range(16)]
    adding = [threading.Thread(target=files.add, args=(link, name, f"postgresql://h/{name}")) for name in names]
    for thread in adding:
        thread.start()
    for thread in adding:
        thread.join()
    assert sorted(files.read(link)) == sorted(["a", *names])
    assert link.is_symlink()


def test_names_of_a_service_or_of_several_hosts_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(*urls: str) -> dict[str, Any]:
        return files.parse("".join(f'[sites.s{n}]\nurl = "{url}"\n' for n, url in enumerate(urls)), "sites.toml")

    assert (
        len(of("postgresql:///?service=a", "postgresql:///?service=b", "postgresql://h,i/a", "postgresql://i/a")) == 4
    )
    assert len(of("postgresql://h/a", "postgresql://h:5433/a", "postgresql://h/A", "postgresql://i/a")) == 4
    monkeypatch.setenv("PGPORT", "5433")
    monkeypatch.setenv("PGHOST", "h")
    with pytest.raises(UserError, match="sites s0 and s1 are one database"):
        of("postgresql:///a", "postgresql://h:5433/a")
    patient = of("postgresql://h/a", "postgresql://h/b?connect_timeout=3")
    assert [site.database.url.query.get("connect_timeout") for site in patient.values()] == ["10", "3"]
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "4")
    assert of("postgresql://h/a")["s0"].database.url.query == {}


@pytest.mark.full
def test_each_command_of_the_page_runs(
    at_revision: Callable[[str], URL], new_name: URL, fleet_of: Callable[..., Path]
) -> None:
    page = (PROJECT / "docs" / "fleet.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in re.findall(r"oblivion-schema (.* fleet .*|fleet .*)", block)]
    commands = [command for command in commands if " move " not in command]  # that takes two servers: test_move.py
    assert len(commands) == 11
    file = fleet_of(shop=at_revision(HEAD), club=at_revision("004"), clinic=at_revision("003"))
    for command in commands:
        words = re.sub(r"\S*sites\.toml", "FILE", command).split()
        replaced = {"FILE": str(file), "postgresql://oblivion@db2.example.org/bakery": written(new_name)}
        result = run(*(replaced.get(word, word) for word in words))
        assert result.status == 0, result
