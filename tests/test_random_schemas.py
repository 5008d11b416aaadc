"""Random pairs of schemas: the revision from one to the other runs, there and back, and leaves what it says.

As many other pairs as wanted, on both CPUs: OBLIVION_TEST_EXAMPLES=1000 .venv/bin/pytest tests/test_random_schemas.py
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import tempfile
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, Phase, assume, event, given, seed, settings
from hypothesis.errors import UnsatisfiedAssumption
from random_schemas import PUBLICATION, Pair, Schema, accepted, pairs
from sqlalchemy import URL, Connection, MetaData, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError
from support import examples, libpq, program

from oblivion_schema.declare.ddl import declare
from oblivion_schema.drift.plugin import PLUGIN, write_files
from oblivion_schema.drift.standin import made_by_revisions
from oblivion_schema.errors import UserError, sqlstate
from oblivion_schema.operations import keep_grants, restore_grants, run_file, run_sql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Engine

pytestmark = pytest.mark.server

_EXAMPLES: Final = int(os.environ.get("OBLIVION_TEST_EXAMPLES", "0"))
PARTS: Final = range(10)

# What a revision is refused for, as docs/drift.md says; each by a part of its message.
REFUSALS: Final = {
    "renamed?": "a new column of the same type may be the same column renamed",
    "misplaced": "the columns stand in another order than in the database",
    "circle": "No order is possible for",
}
# Of a hundred pairs at least so many lead there and back: more refusals, or known faults, would hide what is wrong. It
# was 92 when this was written.
LEAST_RIGHT: Final = 60

# What is no fault, and looks like one: a name, and a pattern of the failure's text. Such a failure is counted.
KNOWN: Final[dict[str, str]] = {
    # A column that a downgrade adds again is the last one. SELECT * in BEGIN ATOMIC lists the columns in their order.
    "the order of columns": r"^after the \w+ .*\n- CREATE FUNCTION public.rows\(\)[\s\S]*\n    BEGIN ATOMIC",
}

START: Final = f"""
DROP SCHEMA IF EXISTS oblivion CASCADE;
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
CREATE SCHEMA oblivion;
CREATE TABLE oblivion.alembic_version (
  version_num varchar(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
DROP PUBLICATION IF EXISTS {PUBLICATION};
CREATE PUBLICATION {PUBLICATION};
"""
REVISION: Final = """
from pathlib import Path
from oblivion_schema.operations import run_file
revision = "001"
down_revision = None
def upgrade() -> None:
    run_file(Path(__file__).with_suffix("") / "before.sql")
"""


class Found(Exception):  # noqa: N818
    """What went wrong with a pair."""

    @property
    def kind(self) -> str:
        """Its first line without what differs between pairs that fail for the same reason."""
        return re.sub(
            r"""'[^']*'|"[^"]*"|\w*_\w*|\d+|\b(alpha|bravo|carol|delta|id)\b""", "", str(self).partition("\n")[0]
        )

    @property
    def known(self) -> str:
        """The name of the known fault that it is; empty if it is new."""
        return next((name for name, pattern in KNOWN.items() if re.search(pattern, str(self))), "")


class Database:
    """A database that each example fills anew."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.engine: Engine = create_engine(url, poolclass=NullPool)
        self.open: Connection = self.engine.connect()

    @contextmanager
    def transaction(self, *, keep: bool, drop_data: bool = True) -> Iterator[Connection]:
        """A transaction as a run of Alembic has it."""
        self.open.exec_driver_sql(
            f"SET LOCAL search_path = public; SET LOCAL oblivion.drop_data = '{'yes' * drop_data}'"
        )
        try:
            yield self.open
            if keep:
                self.open.commit()
        finally:
            self.open.rollback()

    def vacuum(self) -> None:
        """Forget what examples left in the catalogs: it would mislead the planner."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM")

    def dump(self) -> str:
        """What pg_dump prints of it."""
        command = [str(program("pg_dump")), "--no-sync", "--schema-only", libpq(self.url)]
        printed: str = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return printed


def comparable(dumped: str) -> list[str]:
    """The statements of a dump in no order, and without the order of columns and options."""
    dumped = re.sub(r"^(\\(un)?restrict|SET|SELECT pg_catalog.set_config|--).*\n", "", dumped, flags=re.MULTILINE)

    # A renamed column keeps the name of its NOT NULL.
    dumped = re.sub(r"""CONSTRAINT ("[^"]*"|\w*) NOT NULL""", "NOT NULL", dumped)

    def columns_sorted(found: re.Match[str]) -> str:
        lines = sorted(line.rstrip(",") for line in found[2].splitlines())
        return f"{found[1]}{chr(10).join(lines)}\n{found[3]}"

    dumped = re.sub(
        r"^(CREATE (?:UNLOGGED )?TABLE .*\(\n)((?:    .*\n)*?)(\)[^;]*;\n)", columns_sorted, dumped, flags=re.MULTILINE
    )
    dumped = re.sub(
        r"(?<=^ALTER PUBLICATION )(.* \()(.*?)(\).*)",
        lambda found: f"{found[1]}{', '.join(sorted(found[2].split(', ')))}{found[3]}",
        dumped,
        flags=re.MULTILINE,
    )
    dumped = re.sub(
        r"(?<=WITH \()[\w.]+='?[^',)]*'?(?:, [\w.]+='?[^',)]*'?)+(?=\))",
        lambda found: ", ".join(sorted(found[0].split(", "))),
        dumped,
    )
    # Nor does the order in which privileges were given.
    dumped = re.sub(
        r"(?:^(?:GRANT|REVOKE) .*;\n)+",
        lambda found: "\n".join(sorted(found[0].splitlines())) + "\n",
        dumped,
        flags=re.MULTILINE,
    )
    return sorted(re.split(r"\n{2,}", dumped.strip()))


def metadata_of(statements: Sequence[str]) -> MetaData:
    made = MetaData()
    for sql in ("CREATE SCHEMA oblivion", *statements):
        kind = "view" if re.match(r"CREATE (OR REPLACE )?VIEW", sql) else "function"
        declare(made, kind, sql, sql)  # type: ignore[arg-type]
    return made


def revisions_of(folder: Path, statements: Sequence[str]) -> ScriptDirectory:
    """A folder with the one revision that makes these."""
    (folder / "versions" / "001_before").mkdir(parents=True)
    (folder / "versions" / "001_before.py").write_text(REVISION)
    (folder / "versions" / "001_before" / "before.sql").write_text("".join(f"{sql};\n\n" for sql in statements))
    return ScriptDirectory(str(folder), version_locations=[str(folder / "versions")])


class Revision:
    """A revision as it is written: its source, and its files."""

    def __init__(self, folder: Path, upgrade: str, downgrade: str) -> None:
        self.folder, self.upgrade, self.downgrade = folder, upgrade, downgrade
        write_files(f"{folder}/002_after.py")

    def run(self, connection: Connection, source: str) -> None:
        names = {"SQL": self.folder / "002_after"}
        functions = {f.__name__: f for f in (keep_grants, restore_grants, run_file, run_sql)}
        with Operations.context(MigrationContext.configure(connection=connection)):
            exec(f"def run():\n    {source}\nrun()", names | functions)

    def __str__(self) -> str:
        files = [
            f"-- {path.relative_to(self.folder)}\n{path.read_text()}"
            for path in sorted(self.folder.rglob("002_after/**/*.sql"))
        ]
        return f"def upgrade():\n    {self.upgrade}\n\ndef downgrade():\n    {self.downgrade}\n\n" + "\n".join(files)


def autogenerated(connection: Connection, after: MetaData, revisions: ScriptDirectory, *, writes: bool) -> Any:
    """What Alembic's autogenerate makes of a database and a metadata, with this package's plugin."""
    context = MigrationContext.configure(
        connection=connection,
        opts={
            "target_metadata": after,
            "version_table_schema": "oblivion",
            "autogenerate_plugins": [PLUGIN],
            "revisions": revisions,
            "drop_unknown": True,
            "writes_revision": writes,
        },
    )
    return produce_migrations(context, after)


Values: TypeAlias = "dict[str, tuple[str, tuple[str | None, ...]]]"


def values(connection: Connection) -> Values:
    """Type and values of each column that is not generated, by the names of table and column."""
    found = {}
    for its, column, kind in connection.execute(
        text(
            "SELECT attrelid::regclass::text, quote_ident(attname), format_type(atttypid, NULL)"
            " FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid"
            " WHERE relkind = 'r' AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
            " AND relnamespace::regnamespace::text IN ('public', 'oblivion') AND relname <> 'alembic_version'"
        )
    ).all():
        rows = connection.exec_driver_sql(f"SELECT {column}::text FROM {its}").scalars()
        found[f"{its}.{column}"] = kind, tuple(sorted(rows, key=str))
    return found


VALUES: Final = {
    "integer": "{n}", "bigint": "{n}", "smallint": "{n}", "numeric": "{n}", "double precision": "{n}",
    "text": "'a'", "character varying": "'b'", "character": "'abc'", "boolean": "true",
    "timestamp with time zone": "'2021-01-0{n}'", "date": "'2021-01-0{n}'", "uuid": "gen_random_uuid()",
    "jsonb": "'{{\"n\": {n}}}'", "integer[]": "'{{{n}}}'", "interval": "'{n} days'", "bytea": "'\\x0{n}'",
}  # fmt: skip


def fill(connection: Connection) -> None:
    """Two rows for each table that takes them."""
    for its, pairs_ in itertools.groupby(
        connection.execute(
            text(
                "SELECT attrelid::regclass::text, quote_ident(attname), format_type(atttypid, NULL), attnotnull"
                " FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid"
                " WHERE relkind = 'r' AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attidentity <> 'a'"
                " AND relnamespace::regnamespace::text IN ('public', 'oblivion') AND relname <> 'alembic_version'"
                " ORDER BY attrelid, attnum"
            )
        ).all(),
        key=lambda row: row[0],
    ):
        columns = [(name, VALUES[kind], not_null) for _, name, kind, not_null in pairs_]
        for n in (1, 2):
            for wanted in (columns, [one for one in columns if one[2]]):
                listed = ", ".join(name for name, _, _ in wanted)
                row = ", ".join(value.format(n=n) for _, value, _ in wanted)
                sql = f"INSERT INTO {its} ({listed}) VALUES ({row})" if wanted else f"INSERT INTO {its} DEFAULT VALUES"
                savepoint = connection.begin_nested()
                try:
                    connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
                    connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
                    savepoint.commit()
                    break
                except DBAPIError:
                    savepoint.rollback()


@pytest.fixture(scope="module")
def databases(module_database: Callable[..., URL]) -> Iterator[tuple[Database, Database, Database]]:
    """For what is upgraded, for what is built as it should be, and for dumps."""
    made = [Database(module_database("superuser")) for _ in range(3)]
    yield made[0], made[1], made[2]
    for one in made:
        one.open.close()


def restored(scratch: Database, dumped: str) -> str:
    """The dump of what a dump restores: PostgreSQL prints some expressions in other words then."""
    with scratch.transaction(keep=True) as connection:
        connection.exec_driver_sql(
            "DROP SCHEMA IF EXISTS oblivion CASCADE; DROP SCHEMA IF EXISTS public CASCADE;"
            f"DROP PUBLICATION IF EXISTS {PUBLICATION}"
        )
    psql = [str(program("psql")), "-Xq", "-v", "ON_ERROR_STOP=1", libpq(scratch.url)]
    # A server may be older than pg_dump.
    dumped = dumped.replace("SET transaction_timeout = 0;", "")
    if "CREATE SCHEMA public" not in dumped:
        dumped = f"CREATE SCHEMA public;\n{dumped}"
    subprocess.run(psql, input=dumped, text=True, check=True, capture_output=True)
    return scratch.dump()


def differing(scratch: Database, one: str, other: str) -> str:
    """What differs between two dumps; empty if they are equal, or their restored databases are."""
    for _ in range(3):
        left, right = comparable(one), comparable(other)
        if left == right:
            return ""
        difference = "\n".join(
            [*(f"- {sql}" for sql in left if sql not in right), *(f"+ {sql}" for sql in right if sql not in left)]
        )
        one, other = restored(scratch, one), restored(scratch, other)
    return difference


class Trial:
    """One pair, on the databases."""

    def __init__(self, databases: tuple[Database, Database, Database], folder: Path) -> None:
        self.live, self.want, self.scratch = databases
        self.folder = folder
        self.revision: Revision | None = None
        self.before: list[str] = []
        self.after: list[str] = []
        self.refused = 0

    def __str__(self) -> str:
        sides = [";\n".join([f"\n-- {name}", *side]) for name, side in (("before", self.before), ("after", self.after))]
        return "\n".join([*sides, "", str(self.revision or "")])

    def build(self, database: Database, schema: Schema) -> tuple[list[str], int]:
        with database.transaction(keep=True) as connection:
            connection.exec_driver_sql(START)
            return accepted(connection, schema)

    def __call__(self, before: Schema, after: Schema) -> str:
        """Raises Found; returns how it ended."""
        self.before, refused = self.build(self.live, before)
        self.after, refused_too = self.build(self.want, after)
        self.refused = 10 * (refused + refused_too) // max(1, len(before) + len(after))
        event(f"tenths of the statements that PostgreSQL refused: {self.refused}")
        assume(sorted(self.before) != sorted(self.after))
        metadata, revisions = metadata_of(self.after), revisions_of(self.folder, self.before)
        original = self.live.dump()
        with self.live.transaction(keep=False) as connection:
            try:
                made = autogenerated(connection, metadata, revisions, writes=True)
            except UserError as error:
                for name, part in REFUSALS.items():
                    if part in str(error):
                        return name
                raise Found(f"refused: {error}") from error
            except Exception as error:
                raise Found(f"not written: {error!r}") from error
            sides = made.upgrade_ops, made.downgrade_ops
            upgrade, downgrade = (
                render_python_code(side, migration_context=made_context(connection)) for side in sides
            )
            self.revision = Revision(self.folder, upgrade, downgrade)
        kept = self.with_rows()
        self.run(self.revision.upgrade, "upgrade")
        self.require_clean(self.live, metadata, revisions, "after the upgrade")
        upgraded = self.live.dump()
        if wrong := differing(self.scratch, self.want.dump(), upgraded):
            raise Found(f"after the upgrade (- the metadata built directly, + the upgraded database)\n{wrong}")
        if len(self.after) % 5 == 0:  # as good as by chance
            try:
                restored(self.scratch, upgraded)
            except subprocess.CalledProcessError as error:
                raise Found(f"the upgraded database's dump cannot be restored: {error.stderr}") from error
            self.require_clean(self.scratch, metadata, revisions, "on a restored dump of the upgraded database")
        self.run(self.revision.downgrade, "downgrade")
        if wrong := differing(self.scratch, original, self.live.dump()):
            raise Found(f"after the downgrade (- as it was, + the downgraded database)\n{wrong}")
        return f"right, {kept}"

    @staticmethod
    def require_clean(database: Database, metadata: MetaData, revisions: ScriptDirectory, when: str) -> None:
        try:
            with database.transaction(keep=False) as connection:
                left = autogenerated(connection, metadata, revisions, writes=False).upgrade_ops.as_diffs()
        except Exception as error:
            raise Found(f"not read {when}: {error!r}") from error
        if left:
            raise Found(f"not clean {when}: {left}")

    def is_sound(self) -> bool:
        """Whether PostgreSQL restores its own dumps of both sides: if not, nothing can lead there."""
        try:
            for database, schema in ((self.live, self.before), (self.want, self.after)):
                with database.transaction(keep=True) as connection:
                    connection.exec_driver_sql(START)
                    for sql in schema:
                        connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
                restored(self.scratch, database.dump())
        except subprocess.CalledProcessError:
            return False
        return True

    def run(self, source: str, name: str) -> None:
        assert self.revision
        try:
            with self.live.transaction(keep=True) as connection:
                self.revision.run(connection, source)
        except DBAPIError as error:
            raise Found(f"the {name} fails: {error}") from error

    def with_rows(self) -> str:
        """Both ways with rows in the tables: each value survives, or the revision refuses to run."""
        with self.live.transaction(keep=False, drop_data=False) as connection:
            fill(connection)
            was = values(connection)
            savepoint = connection.begin_nested()
            try:
                there, back = self.both_ways(connection)
            except DBAPIError as error:
                savepoint.rollback()
                if not refuses_to_drop(error):
                    return allowed(error)
            else:
                if lost := lost_values(was, back, there):
                    raise Found(f"values lost there and back, without refusal: {lost}")
                if lost := lost_values({name: was[name] for name in was.keys() & there.keys()}, there):
                    raise Found(f"values lost by the upgrade, without refusal: {lost}")
                return "rows kept" if was else "no rows"
            connection.exec_driver_sql("SET LOCAL oblivion.drop_data = 'yes'")
            try:
                there, back = self.both_ways(connection)
            except DBAPIError as error:
                return f"rows would be dropped, {allowed(error)}"
            stay = {name: was[name] for name in was.keys() & there.keys()}
            if lost := lost_values(stay, there) or lost_values(stay, back, there):
                raise Found(f"values of columns that stay lost with drop-data=yes: {lost}")
            return "rows would be dropped, others kept"

    def both_ways(self, connection: Connection) -> tuple[Values, Values]:
        """The values after the upgrade, and after the downgrade."""
        assert self.revision
        self.revision.run(connection, self.revision.upgrade)
        connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
        there = values(connection)
        self.revision.run(connection, self.revision.downgrade)
        return there, values(connection)


def refuses_to_drop(error: DBAPIError) -> bool:
    return "drop-data=yes" in str(error)


def allowed(error: DBAPIError) -> str:
    """How PostgreSQL says that the rows do not fit; raises Found for any other error."""
    state = sqlstate(error)
    if state[:2] in {"22", "23"} or refuses_to_drop(error):
        return f"rows do not fit ({state})"
    raise Found(f"with rows: {error}") from error


def lost_values(was: Values, now: Values, between: Values | None = None) -> str:
    """What columns lost: a value that was converted to another type, maybe `between`, may be another one."""
    lost = []
    for name, (kind, its) in was.items():
        kind_now, its_now = now.get(name, ("gone", ()))
        converted = kind != kind_now or (between and between.get(name, (kind,))[0] != kind)
        same = its.count(None) == its_now.count(None) and len(its) == len(its_now) if converted else its == its_now
        if not same:
            lost.append(f"{name} {kind} {its} became {kind_now} {its_now}")
    return "; ".join(lost)


def smaller(pair: Pair, kind: str, shown: str, failure: Callable[[Schema, Schema], tuple[Found | None, str]]) -> str:
    """Take statements away, and changes, while the pair fails in the same way; returns how the failure is shown."""
    before, after = dict(pair.before), dict(pair.after)

    def fails(less_before: Schema, less_after: Schema) -> bool:
        nonlocal before, after, shown
        if (less_before, less_after) == (before, after):
            return False
        with suppress(UnsatisfiedAssumption):
            found, its = failure(less_before, less_after)
            if found and found.kind == kind:
                before, after, shown = less_before, less_after, its
                return True
        return False

    size = len(before | after)
    while size := size // 2:
        again = True
        while again:
            again = False
            keys = list(reversed(before | after))
            for start in range(0, len(keys), size):
                gone = keys[start : start + size]
                again |= fails(
                    *({key: its for key, its in side.items() if key not in gone} for side in (before, after))
                )
            again = again and size == 1
    for key in before.keys() & after.keys():
        fails({**before, key: after[key]}, after)
    return shown


def made_context(connection: Connection) -> MigrationContext:
    return MigrationContext.configure(connection=connection)


@pytest.mark.parametrize("part", PARTS)
def test_random_pairs(
    databases: tuple[Database, Database, Database], part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same pairs each time; OBLIVION_TEST_EXAMPLES looks for others, as many as it says."""
    for database in databases:
        database.vacuum()
    # Each example has other revisions: the cache of conftest.py would keep them all.
    monkeypatch.setattr("oblivion_schema.drift.reading.made_by_revisions", made_by_revisions)
    ended: Counter[str] = Counter()
    number = -(-(_EXAMPLES or examples(100, quick=30)) // len(PARTS))

    def failure(before: Schema, after: Schema) -> tuple[Found | None, str]:
        """What goes wrong with a pair, and how it is shown; or nothing, and how it ended."""
        with tempfile.TemporaryDirectory() as folder:
            trial = Trial(databases, Path(folder))
            try:
                return None, trial(before, after)
            except Found as found:
                if not found.known:
                    assume(trial.is_sound())
                return found, f"{found}\n{trial}"

    @settings(
        max_examples=number,
        database=None,
        deadline=None,
        # smaller() does it in a tenth of the time: it takes away whole statements.
        phases={Phase.generate},
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(pairs())
    def try_pair(pair: Pair) -> None:
        found, end = failure(*pair)
        if found and not found.known:
            pytest.fail(smaller(pair, found.kind, end, failure), pytrace=False)
        end = f"known: {found.known}" if found else end
        event(end)
        ended[end] += 1

    if _EXAMPLES:
        try_pair()
    else:
        seed(part)(try_pair)()
    total, right = sum(ended.values()), sum(count for end, count in ended.items() if end.startswith("right"))
    assert total < 10 or 100 * right >= LEAST_RIGHT * total, ended
