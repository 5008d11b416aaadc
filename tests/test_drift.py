"""Drift: every kind of object is seen, and the revision that mends it leads there and back."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from alembic.autogenerate import render_python_code
from alembic.operations import Operations, ops
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from support import PROJECT, declared

from oblivion_schema import metadata
from oblivion_schema.deploy import upgrade as migrate
from oblivion_schema.drift.catalog import KINDS, Catalog, read
from oblivion_schema.drift.compare import Drift, find_drift
from oblivion_schema.drift.plan import in_the_way
from oblivion_schema.drift.plugin import ChangeSchema, write_files
from oblivion_schema.drift.standin import reread
from oblivion_schema.operations import keep_grants, restore_grants, run_file, run_sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from oblivion_schema.drift.plan import Statement

pytestmark = pytest.mark.server

REVISIONS = ScriptDirectory.from_config(migrate.config())


class Mutation(NamedTuple):
    """A change of one kind of object: what makes it, after what, and what the report names."""

    change: str
    kind: str
    name: str
    since: int
    once: str
    setup: str
    sql: str

    def concerns(self, kind: str, name: str) -> bool:
        """Whether an object is the one that changes."""
        return self.name in name and self.kind in {kind, "together"}


def mutations() -> Iterator[Mutation]:
    """Those of mutations.sql."""
    text = (PROJECT / "tests" / "mutations.sql").read_text(encoding="utf-8")
    for change, kind, name, body in re.findall(
        r"^-- (add|change|remove) ([^:\n]+): (.*)\n((?:(?!-- (?:add|change|remove) ).*\n?)*)", text, flags=re.MULTILINE
    ):
        parts = dict(
            re.findall(r"^-- (once|setup|then):\n((?:(?!-- (?:setup|then):).*\n?)*)", body, flags=re.MULTILINE)
        )
        since = re.search(r"^-- since (\d+)$", body, flags=re.MULTILINE)
        yield Mutation(
            change,
            kind,
            name,
            int(since[1]) if since else 0,
            parts.get("once", ""),
            parts.get("setup", ""),
            parts.get("then", body),
        )


MUTATIONS = list(mutations())

FIRST_OF_EACH_KIND = tuple(map(str, {mutation.kind: mutation for mutation in reversed(MUTATIONS)}.values()))

# What a kind cannot undergo. A state that is always there only changes; what is there or not does not.
NOT_POSSIBLE = {
    "schema": {"add", "change"},
    "type": {"add", "remove"},
    "nullability": {"add", "remove"},
    "row level security": {"change"},
    "trigger state": {"add", "remove"},
    "owner": {"add", "remove"},
}


def test_every_kind_has_its_mutations() -> None:
    tried = {(mutation.kind, mutation.change) for mutation in MUTATIONS if mutation.kind != "together"}
    possible = {
        (kind, change)
        for kind in KINDS
        for change in ("add", "change", "remove")
        if change not in NOT_POSSIBLE.get(kind, ())
    }
    assert tried == possible


@pytest.fixture
def connection(shared_engine: Engine) -> Iterator[Connection]:
    """A transaction as an Alembic run has it, rolled back."""
    with shared_engine.connect() as connection:
        connection.execute(text("SET LOCAL search_path = public; SET LOCAL oblivion.drop_data = yes"))
        yield connection
    # Hundreds of schemas that were rolled back would lie in the catalogs, and mislead the planner.
    with shared_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(
            text("VACUUM pg_attribute, pg_class, pg_constraint, pg_depend, pg_policy, pg_proc, pg_rewrite")
        )


@pytest.fixture(scope="module")
def as_it_is(shared_engine: Engine) -> Catalog:
    """What the database of this module has, which each test leaves as it was."""
    with shared_engine.connect() as connection:
        return read(connection, metadata)


def prepared(connection: Connection, as_it_is: Catalog, mutation: Mutation) -> Catalog:
    """What there is once a mutation's first parts have run; skips the test if the server is too old for it."""
    if int((connection.dialect.server_version_info or (0,))[0]) < mutation.since:
        pytest.skip(f"the server is older than PostgreSQL {mutation.since}")
    execute(connection, mutation.once)
    execute(connection, mutation.setup)
    return read(connection, metadata) if f"{mutation.once}{mutation.setup}".strip() else as_it_is


def execute(connection: Connection, sql: str) -> None:
    if sql.strip():
        connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


def drift(connection: Connection, *, drop_unknown: bool = False) -> Drift:
    scratch = MigrationContext.configure(connection=connection)
    return find_drift(connection, scratch, metadata, REVISIONS, drop_unknown=drop_unknown)


def run_rendered(connection: Connection, statements: list[Statement]) -> None:
    """Execute the Python source that a revision would have, with the files that it would have."""
    source = render_python_code(ops.UpgradeOps([ChangeSchema(statements, [])]))
    operations = Operations.context(MigrationContext.configure(connection=connection))
    with tempfile.TemporaryDirectory() as folder, operations:
        write_files(f"{folder}/revision.py")
        exec(
            f"def upgrade():\n    {source}\nupgrade()",
            {
                "SQL": Path(folder) / "revision",
                "run_file": run_file,
                "run_sql": run_sql,
                "keep_grants": keep_grants,
                "restore_grants": restore_grants,
            },
        )


def objects(catalog: Catalog) -> dict[tuple[str, str], str]:
    """What of two catalogs has to be equal: the addresses differ."""
    return {key: item.definition for key, item in catalog.objects.items()}


def leads_there_and_back(connection: Connection, before: Catalog, found: Drift) -> None:
    """The upgrade leaves no difference, the downgrade what was there."""
    wanted = {step.after.key: step.after.definition for step in found.steps if step.after}
    run_rendered(connection, found.upgrade())
    if objects(read(connection, metadata)) != wanted:  # PostgreSQL may print its own print differently
        assert drift(connection, drop_unknown=True).differences == (), found.upgrade()
    run_rendered(connection, found.downgrade())
    after = read(connection, metadata)
    assert after.objects.keys() == before.objects.keys(), found.downgrade()
    for key, item in before.objects.items():
        definition = after[key].definition
        # What is made from PostgreSQL's print may be printed differently, once.
        same = definition == item.definition or definition == reread(connection, metadata, item).definition
        assert same, (item, definition, found.downgrade())


def ids(mutations: list[Mutation]) -> list[str]:
    return [f"{mutation.change}-{mutation.kind}".replace(" ", "-") for mutation in mutations]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=ids(MUTATIONS))
@pytest.mark.few(mutation=FIRST_OF_EACH_KIND)
def test_mutation_by_hand_is_in_the_catalog(connection: Connection, as_it_is: Catalog, mutation: Mutation) -> None:
    """What a database is compared by differs, whichever side it is."""
    before = objects(prepared(connection, as_it_is, mutation))
    execute(connection, mutation.sql)
    after = objects(read(connection, metadata))
    found = {
        "add": after.keys() - before.keys(),
        "remove": before.keys() - after.keys(),
        "change": {key for key in before.keys() & after.keys() if before[key] != after[key]},
    }
    changed = found[mutation.change] if mutation.kind != "together" else set().union(*found.values())
    assert any(mutation.concerns(kind, name) for kind, name in changed), changed


# The private schema is always there, and whoever builds owns.
OF_THE_METADATA = [mutation for mutation in MUTATIONS if mutation.kind not in {"schema", "owner"}]


@pytest.mark.parametrize("mutation", OF_THE_METADATA, ids=ids(OF_THE_METADATA))
@pytest.mark.few(mutation=FIRST_OF_EACH_KIND[::2])
def test_mutation_of_the_metadata_is_named_and_the_revision_leads_there_and_back(
    connection: Connection, as_it_is: Catalog, mutation: Mutation
) -> None:
    before = prepared(connection, as_it_is, mutation)
    with declared(mutation.setup, mutation.sql):
        found = drift(connection, drop_unknown=True)
        named = [
            item
            for item in found.differences
            if mutation.name in item.name and mutation.kind in {item.kind, "together"}
        ]
        change = {"add": "missing", "change": "different", "remove": "extra"}[mutation.change]
        seen = {item.change for item in named} - {"unknown"}  # which is what only `setup` made
        assert seen >= ({change} if mutation.kind != "together" and not mutation.setup else set()), found.differences
        assert named, found.differences
        assert in_the_way(found.steps, found.others) == []
        leads_there_and_back(connection, before, found)


@pytest.mark.parametrize("sql", [m.sql for m in MUTATIONS if m.kind in {"schema", "owner"}])
def test_what_only_a_database_can_undergo_is_mended(connection: Connection, sql: str) -> None:
    execute(connection, sql)
    found = drift(connection)
    assert found.differences
    leads_there_and_back(connection, read(connection, metadata), found)
