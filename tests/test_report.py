"""`oblivion-schema report`: its figures are those of the rows, and its page is safe to look at and to replace."""

from __future__ import annotations

import os
import re
import stat
import sys
import zipfile
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alembic.script import ScriptDirectory
from hatchling.builders.wheel import WheelBuilder
from sqlalchemy import text
from support import PROJECT, dump, engine_of, execute, psql, query, run

import oblivion_schema.report
from oblivion_schema import upgrade
from oblivion_schema.report.figures import Figures, Span, read

if TYPE_CHECKING:
    from sqlalchemy import URL

REVISIONS = ScriptDirectory(PROJECT / "alembic")
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src="http://example.org/x" onerror="alert(1)">',
    "</title><style>@import 'http://example.org/x'</style>",
    "{{ 7 * 7 }} {% raw %}",
    "$\\frac{1}{$",
    "\N{RIGHT-TO-LEFT OVERRIDE}nimda\nline\ttwo",
    "a" * 500,
    "名前 \N{GRINNING FACE}",
)


class Page(HTMLParser):
    """What a browser would make of a page: its tags with their attributes, its text, and its key figures by name."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.cards: dict[str, str] = {}
        self.number = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data
        match self.tags[-1][0] if self.tags else "":
            case "b":
                self.number = data.strip() or self.number
            case "a" | "span" if self.number:
                self.cards[data], self.number = self.number, ""

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def written(url: URL, tmp_path: Path, *options: str) -> Page:
    file = tmp_path / "report.html"
    result = run("report", str(file), *options, url=url)
    assert (result.status, result.out, result.err) == (0, f"{file}\n", "")
    found = Page(file.read_text(encoding="utf-8"))
    assert_loads_nothing(found)
    return found


def assert_loads_nothing(found: Page) -> None:
    assert {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image"} & {
        t for t, _ in found.tags
    } == set()
    for _, attributes in found.tags:
        assert not attributes.keys() & {"src", "srcset", "data", "action", "xlink:href", "background"}
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("href", "#").startswith("#")
        assert set(re.findall(r"url\((.)", " ".join(attributes.values()))) <= {"#"}
    [policy] = [a["content"] for _, a in found.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def figures(url: URL, days: int = 30, *, pages: bool = True) -> Figures:
    with engine_of(url).connect() as connection:
        return read(connection, days, REVISIONS, pages=pages)


FILL = """
DO $$
DECLARE
  who text; what text; turn boolean; ago interval; lasted interval; call uuid;
BEGIN
  PERFORM setseed(%s);
  DELETE FROM user_accounts;
  INSERT INTO user_accounts (user_id, tokens_remaining) SELECT 'u' || n, 100 FROM generate_series(0, 9) AS n;
  UPDATE token_ledger SET created_at = now() - interval '90 days';
  FOR n IN 1..60 LOOP
    who := 'u' || floor(random() * 12);
    what := (ARRAY['video', 'voice-only'])[1 + n %% 2];
    turn := random() < 0.3;
    ago := floor(random() * 24 * 45) * interval '1 hour';
    lasted := random() * interval '70 minutes';
    INSERT INTO call_sessions (room_id, user_id, mode, used_turn, start_time, end_time)
    VALUES ('r', who, what, turn, now() - ago - lasted, now() - ago);
    INSERT INTO token_usage (user_id, session_id, tokens_used, "timestamp", mode, used_turn)
    SELECT user_id, 'c', random() * 60, now() - ago, left(what, 5), turn FROM user_accounts WHERE user_id = who;
    SELECT session_id INTO call FROM start_call(who, 'r', what, turn);
    UPDATE call_sessions SET start_time = start_time - lasted WHERE id = call;
    PERFORM end_call(call);
    UPDATE oblivion.call_meters SET seen_at = now() - ago WHERE session_id = call;
  END LOOP;
  PERFORM top_up('u1', 50, 'order');
  INSERT INTO oblivion.billing_incidents (session_id, user_id, action, error_code, message)
  SELECT gen_random_uuid(), 'u1', 'settle', '22003', 'too many' FROM generate_series(1, 17);
END
$$
"""
USER_OF_THAT_NAME = """
INSERT INTO user_accounts (user_id, tokens_remaining) VALUES (:user, 0);
INSERT INTO call_sessions (room_id, user_id, mode, end_time)
VALUES ('r', 'no ' || :user, 'video', now() + interval '1 s'), ('r', :user, 'video', now() + interval '1 s');
INSERT INTO oblivion.billing_incidents (session_id, user_id, action, error_code, message)
VALUES (gen_random_uuid(), :user, 'settle', '22003', :user);
INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn) VALUES (:user, 'c', 2, 'video', false);
"""

METERED_CALL = """
SELECT end_call(session_id) FROM start_call(:user, 'r', 'video')
"""


def fill(url: URL, seed: int) -> None:
    """Calls of pages and of the engine, with and without an account, some of them older than 30 days."""
    execute(url, FILL % (seed / 100))


def plain(url: URL, since: datetime) -> dict[str, Any]:
    """The same figures, counted over all rows."""
    [row] = query(
        url,
        f"""
        WITH span AS (SELECT timestamptz '{since.isoformat()}' AS since),
        pace AS (
          SELECT user_id, sum(tokens_used) AS used FROM token_usage
          WHERE "timestamp" > now() - interval '7 days' GROUP BY user_id
        )
        SELECT
          (SELECT count(*) FROM call_sessions, span WHERE start_time >= since),
          (SELECT count(*) FROM call_sessions, span WHERE start_time >= since AND mode = 'video'),
          (SELECT count(*) FROM call_sessions, span WHERE start_time >= since AND used_turn),
          (SELECT sum(tokens_used) FROM token_usage, span WHERE "timestamp" >= since),
          (SELECT sum(tokens_used) FROM token_usage, span WHERE "timestamp" >= since AND mode = 'voice' AND used_turn),
          (SELECT count(DISTINCT user_id) FROM token_usage, span WHERE "timestamp" >= since),
          (SELECT -sum(tokens) FROM token_ledger, span WHERE created_at >= since AND kind = 'charge'),
          (SELECT sum(shortfall) FROM oblivion.call_meters, span WHERE seen_at >= since),
          (SELECT count(*) FROM oblivion.call_meters, span WHERE seen_at >= since AND shortfall > 0),
          (SELECT count(*) FROM user_accounts JOIN pace USING (user_id)
           WHERE used > 0 AND (tokens_remaining < used OR tokens_remaining < 20)),
          (SELECT count(*) FROM oblivion.billing_incidents WHERE resolved_at IS NULL),
          (SELECT count(DISTINCT user_id) FROM call_sessions AS c, span
           WHERE NOT EXISTS (SELECT FROM user_accounts AS a WHERE a.user_id = c.user_id) AND start_time >= since)
        """,
    )
    names = (
        "calls", "video", "turn", "tokens", "voice over turn", "active", "charged", "shortfall", "short", "low",
        "incidents", "callers",
    )  # fmt: skip
    return dict(zip(names, row, strict=True))


@pytest.mark.server
@pytest.mark.few(seed=0)
@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_the_rows(upgraded: URL, tmp_path: Path, seed: int) -> None:
    fill(upgraded, seed)
    found = figures(upgraded)
    wanted = plain(upgraded, found.span.since)
    assert wanted == {
        "calls": sum(row.voice + row.video for row in found.calls),
        "video": sum(row.video for row in found.calls),
        "turn": sum(row.turn for row in found.calls),
        "tokens": sum(row.tokens for row in found.tokens),
        "voice over turn": sum(row.tokens for row in found.tokens if row.mode == "voice" and row.used_turn),
        "active": found.active_accounts,
        "charged": found.money.charged,
        "shortfall": found.shortfall,
        "short": found.short.total,
        "low": found.low.total,
        "incidents": found.incidents.total,
        "callers": found.callers.total,
    }
    assert sum(found.low_by_days) == found.low.total
    assert (found.money.top_ups, found.incidents.more, found.callers.total) == (50, 2, 2)
    assert [row.days_left for row in found.low.rows] == sorted(row.days_left for row in found.low.rows)
    shown = written(upgraded, tmp_path).cards
    assert shown["calls"] == f"{wanted['calls']:,}"
    assert shown["tokens used"] == f"{wanted['tokens']:,}"
    assert shown["tokens short"] == f"{wanted['shortfall']:,}"


def test_losses_are_those_that_pages_reports(upgraded: URL, tmp_path: Path) -> None:
    fill(upgraded, 4)
    found = figures(upgraded).pages
    assert found is not None
    assert found.tokens_lost > 0
    assert sum(day.due for day in found.by_day) == found.tokens_due
    assert written(upgraded, tmp_path).cards["tokens lost by pages"] == f"{found.tokens_lost:,}"
    without = written(upgraded, tmp_path, "--without-pages")
    assert "What pages that bill lose" not in without.text
    assert "tokens lost by pages" not in without.cards


def test_empty_database_has_a_page_without_plots(empty: URL, tmp_path: Path) -> None:
    upgrade(empty, demo=False)
    found = written(empty, tmp_path)
    assert "No calls in this time." in found.text
    assert found.count("svg") == found.count("table") == 0
    assert set(found.cards.values()) == {"0"}
    assert len(found.cards) == 12


def test_one_call_has_a_plot(upgraded: URL, tmp_path: Path) -> None:
    execute(upgraded, "SELECT end_call(session_id) FROM start_call('demo_user', 'lobby', 'video')")
    found = written(upgraded, tmp_path, "--days", "1")
    assert (found.cards["call"], found.cards["tokens used"], found.cards["active account"]) == ("1", "2", "1")
    [calls] = [a["aria-label"] for tag, a in found.tags if tag == "svg" and "Calls" in a["aria-label"]]
    today = datetime.now(UTC).date()
    assert calls == f"Bar chart. Calls per day: Voice 0, Video 1. Most on {today.day} {today:%B %Y}: 1."


def test_what_has_no_time_or_no_number_is_left_out(upgraded: URL, tmp_path: Path) -> None:
    execute(
        upgraded,
        """
        INSERT INTO call_sessions (room_id, user_id, mode, start_time, end_time, credit_cost)
        VALUES
          ('r', 'nobody', 'video', '-infinity', 'infinity', 'NaN'),
          ('r', 'demo_user', 'video', 'infinity', 'infinity', 1),
          ('r', 'demo_user', 'video', '4713-01-01 BC', now(), 'NaN'),
          ('r', 'demo_user', 'video', now(), '9999-01-01', 'NaN');
        INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, "timestamp")
        SELECT 'demo_user', 'c', 2000, 'video', false, at
        FROM unnest(ARRAY['infinity', '-infinity', '290000-01-01', '4713-01-01 BC']::timestamptz[]) AS at;
        """,
    )
    cards = written(upgraded, tmp_path).cards
    assert {name: number for name, number in cards.items() if number != "0"} == {"call": "1"}


def test_ids_and_messages_are_shown_as_text(upgraded: URL, tmp_path: Path) -> None:
    with engine_of(upgraded).begin() as connection:
        for user in HOSTILE:
            connection.execute(text(USER_OF_THAT_NAME), {"user": user})
            connection.execute(text(METERED_CALL), {"user": user})
    found = written(upgraded, tmp_path)
    for user in HOSTILE[:5]:
        assert found.text.count(user) >= 5, user  # low, short, lost, incident twice, without account
    assert r"\u202enimda line two" in found.text
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in found.text
    assert f"{'a' * 59}…" in found.text
    assert "a" * 201 not in found.text


def test_page_is_the_same_in_each_time_zone(upgraded: URL) -> None:
    fill(upgraded, 5)
    before = figures(upgraded)
    execute(upgraded, f"ALTER DATABASE {upgraded.database} SET timezone = 'Pacific/Auckland'")
    after = figures(upgraded)
    for name in ("calls", "tokens", "active_by_bar", "short_by_day", "money"):
        assert getattr(before, name) == getattr(after, name), name
    assert (
        before.span.since
        == after.span.since
        == after.span.until.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(29)
    )


@pytest.mark.parametrize(
    ("days", "unit", "bars"),
    [(1, "day", 1), (92, "day", 92), (93, "week", 15), (644, "week", 93), (3650, "month", 121)],
)
def test_bars_stand_for_days_weeks_or_months(days: int, unit: str, bars: int) -> None:
    span = Span(datetime(2026, 1, 5, tzinfo=UTC) - timedelta(days=days - 1), datetime(2026, 1, 5, 12, tzinfo=UTC), days)
    assert (span.unit, len(span.bars())) == (unit, bars)
    assert span.bars()[-1] == span.bar(date(2026, 1, 5))


@pytest.mark.parametrize(("days", "unit"), [(365, "week"), (3650, "month")])
def test_accounts_are_counted_once_for_each_bar(upgraded: URL, tmp_path: Path, days: int, unit: str) -> None:
    execute(upgraded, FILL % 0.7)
    found = figures(upgraded, days, pages=False)
    counted = query(
        upgraded,
        f"SELECT date_trunc('{unit}', \"timestamp\", 'UTC')::date, count(DISTINCT user_id) FROM token_usage GROUP BY 1",
    )
    assert sorted(found.active_by_bar.items()) == sorted(counted)
    assert found.active_by_bar.keys() <= set(found.span.bars())
    assert f"Active accounts per {unit}" in written(upgraded, tmp_path, "--days", str(days)).text


@pytest.mark.server
def test_database_is_only_read(upgraded: URL, tmp_path: Path) -> None:
    fill(upgraded, 6)
    execute(upgraded, f"ALTER DATABASE {upgraded.database} SET default_transaction_read_only = on")
    before = dump(upgraded)
    written(upgraded, tmp_path)
    assert dump(upgraded) == before


def test_file_is_replaced_at_once_and_keeps_its_mode(
    upgraded: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, link = tmp_path / "report.html", tmp_path / "link.html"
    link.symlink_to(file)
    assert run("report", str(link), url=upgraded).status == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600, "it names users"
    file.write_text("old")
    file.chmod(0o644)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        failed = run("report", str(file), url=upgraded)
    assert failed.error == (
        f"FAILED: {file} cannot be written: No space left on device. Run the command again once it can."
    )
    assert file.read_text() == "old"
    assert run("report", str(link), url=upgraded).status == 0
    assert (link.is_symlink(), stat.S_IMODE(file.stat().st_mode)) == (True, 0o644)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.html", "report.html"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("{tmp}/none/report.html",),
            "{tmp}/none/report.html cannot be written: its folder does not exist. Make it first.",
        ),
        (("{tmp}",), "{tmp} cannot be written: it is no file. Name another one."),
        ((os.devnull,), f"{os.devnull} cannot be written: it is no file. Name another one."),
        (("{tmp}/report.html", "--days", "0"), "--days 0: give a number of days from 1 to 3650, such as 30."),
        (("{tmp}/report.html", "--days", "ten"), "--days ten: give a number of days from 1 to 3650, such as 30."),
    ],
)
def test_mistake_is_one_line(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    result = run("report", *(word.format(tmp=tmp_path) for word in words), url="postgresql://127.0.0.1:1/none")
    assert result.error == f"FAILED: {says.format(tmp=tmp_path)}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_missing_extra_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in ("page", "plots"):
        monkeypatch.delitem(sys.modules, f"oblivion_schema.report.{name}", raising=False)
        monkeypatch.delattr(oblivion_schema.report, name, raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    result = run("report", str(tmp_path / "report.html"), url="postgresql://127.0.0.1:1/none")
    assert result.error == "FAILED: report needs matplotlib and Jinja2: install oblivion-schema[report]."


def test_database_of_another_revision_is_one_line(empty: URL, tmp_path: Path) -> None:
    result = run("report", str(tmp_path / "report.html"), url=empty)
    assert "no revision was applied" in result.error


def test_role_that_may_not_read_all_is_one_line_and_one_that_may_reads(
    closed: URL, server: URL, tmp_path: Path
) -> None:
    name = f"reader_of_{closed.database}"
    execute(server, f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
    its = server.set(database=closed.database, username=name, password=name)
    file = str(tmp_path / "report.html")
    try:
        assert "GRANT USAGE ON SCHEMA oblivion" in run("report", file, url=its).error
        # What policies hide would be missing in the sums.
        execute(server, f"GRANT pg_read_all_data TO {name}")
        says = f"{name} may not read all that the report is about: connect as the owner of the database."
        assert run("report", file, url=its).error == f"FAILED: {says}"
        assert not Path(file).exists()
        execute(server, f"ALTER ROLE {name} BYPASSRLS")
        assert written(its, tmp_path).cards["calls"] == "4"
    finally:
        execute(server, f"DROP ROLE {name}")


def test_password_is_not_in_the_page(upgraded: URL, tmp_path: Path) -> None:
    url = upgraded.set(password="very secret")
    file = tmp_path / "report.html"
    result = run("report", str(file), url=url)
    assert (result.status, len(result.named)) == (0, 1)
    assert "secret" not in f"{result}{file.read_text(encoding='utf-8')}"


def test_wheel_has_the_template(tmp_path: Path) -> None:
    [wheel] = WheelBuilder(str(PROJECT)).build(directory=str(tmp_path), versions=["standard"])
    assert "oblivion_schema/report/page.html.j2" in zipfile.ZipFile(wheel).namelist()


@pytest.mark.full
def test_demo_rows_fill_each_section(empty: URL, tmp_path: Path) -> None:
    upgrade(empty, demo=False)
    psql(empty, (PROJECT / "docs" / "demo.sql").read_text(encoding="utf-8"))
    found = written(empty, tmp_path)
    assert "0" not in found.cards.values()
    assert found.count("svg") == 6
    assert query(empty, "SELECT user_id FROM oblivion.balance_audit WHERE drift <> 0 OR gaps <> 0") == []
