"""A tool that builds on Alembic's autogenerate, in an environment of its own; benchmarks/drift.py starts it.

    python alembic_peer.py alembic | alembic_utils | declarative_extensions

Each line of stdin is a request in JSON, each line of stdout its answer. The wanted state is declared as the tool reads
it from the wanted database: tables by SQLAlchemy's reflection, everything else by the tool's own readers. A request
names two databases, and a new folder for the revision: `there` writes a revision and upgrades, `back` downgrades.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.config import Config
from sqlalchemy import MetaData, NullPool, create_engine
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from sqlalchemy import Connection

SCHEMAS = ("public", "oblivion")
ENV = """
from alembic import context

connection = context.config.attributes["connection"]


def is_ours(name, kind, parents):
    return kind != "schema" or name in (None, "oblivion")


def is_compared(item, name, kind, reflected, other):
    if getattr(item, "identity", None) in context.config.attributes["equal"]:
        return False
    return name != "alembic_version" and getattr(item, "schema", None) != "peer"


context.configure(
    connection=connection,
    target_metadata=context.config.attributes["metadata"],
    version_table_schema="peer",
    include_schemas=True,
    include_name=is_ours,
    include_object=is_compared,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
"""
TEMPLATE = """
from alembic import op
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade():
    ${upgrades if upgrades else "pass"}


def downgrade():
    ${downgrades if downgrades else "pass"}
"""


def declare_utils(live: Connection, wanted: Connection) -> set[str]:
    """Register the entities of alembic_utils, which creates each of them anew to compare it.

    Returns those that it reads from both databases alike: they would take it minutes, and make no difference.
    """
    from alembic_utils.pg_function import PGFunction
    from alembic_utils.pg_grant_table import PGGrantTable
    from alembic_utils.pg_policy import PGPolicy
    from alembic_utils.pg_trigger import PGTrigger
    from alembic_utils.pg_view import PGView
    from alembic_utils.replaceable_entity import register_entities, registry

    registry.clear()
    kinds = (PGFunction, PGView, PGPolicy, PGTrigger, PGGrantTable)
    is_there, is_wanted = (
        {
            entity.identity: (entity, str(entity.to_sql_statement_create()))
            for kind in kinds
            for schema in SCHEMAS
            for entity in kind.from_database(session, schema)
        }
        for session in (Session(live), Session(wanted))
    )
    equal = {name for name, (_, sql) in is_wanted.items() if name in is_there and is_there[name][1] == sql}
    register_entities([entity for name, (entity, _) in is_wanted.items() if name not in equal], entity_types=kinds)
    return equal


def declare_extensions(metadata: MetaData, live: Connection, wanted: Connection) -> None:
    """Declare the objects of sqlalchemy-declarative-extensions.

    It need not look at a view that it reads from both databases alike: it cannot print each of ours.
    """
    from sqlalchemy_declarative_extensions import (
        Functions,
        Procedures,
        Row,
        Rows,
        Triggers,
        Views,
        declare_database,
        dialects,
    )

    there = {view.qualified_name: view.definition for view in dialects.get_views(live)}
    views = {view.qualified_name: view for view in dialects.get_views(wanted)}
    equal = [name for name, view in views.items() if there.get(name) == view.definition]
    rates = metadata.tables.get("token_rates")
    rows = [] if rates is None else [Row("token_rates", **row) for row in wanted.execute(rates.select()).mappings()]
    declare_database(
        metadata,
        functions=Functions().are(*dialects.get_functions(wanted)),
        procedures=Procedures().are(*dialects.get_procedures(wanted)),
        triggers=Triggers().are(*dialects.get_triggers(wanted)),
        views=Views(ignore=equal).are(*(view for name, view in views.items() if name not in equal)),
        rows=Rows().are(*rows) if rows else None,
    )


def declared(tool: str, live: Connection, url: str) -> tuple[MetaData, set[str]]:
    """What the tool is told to make, and what it need not look at."""
    metadata, equal = MetaData(), set[str]()
    with create_engine(url, poolclass=NullPool).connect() as wanted:
        metadata.reflect(wanted)
        metadata.reflect(wanted, schema="oblivion")
        if tool == "alembic_utils":
            equal = declare_utils(live, wanted)
        elif tool == "declarative_extensions":
            declare_extensions(metadata, live, wanted)
    return metadata, equal


def answer(tool: str, request: dict[str, str]) -> dict[str, Any]:
    """Serve one request."""
    folder = Path(request["folder"])
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    back = request["do"] == "back"
    if not back:
        (folder / "versions").mkdir(parents=True)
        (folder / "env.py").write_text(ENV, encoding="utf-8")
        (folder / "script.py.mako").write_text(TEMPLATE, encoding="utf-8")
    with create_engine(request["live"], poolclass=NullPool).connect() as connection:
        connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS peer")
        connection.commit()
        config.attributes |= {"connection": connection, "metadata": MetaData(), "equal": set()}
        if back:
            command.downgrade(config, "base")
        else:
            config.attributes["metadata"], config.attributes["equal"] = declared(tool, connection, request["want"])
            connection.rollback()
            command.revision(config, "change", autogenerate=True)
            connection.rollback()
            command.upgrade(config, "head")
        connection.commit()
    [script] = (folder / "versions").glob("*.py")
    return {"seen": "op." in script.read_text(encoding="utf-8").partition("def upgrade")[2]}


def main() -> None:
    """Serve the requests of stdin."""
    tool = sys.argv[1]
    warnings.simplefilter("ignore")
    logging.disable()
    if tool == "declarative_extensions":
        from sqlalchemy_declarative_extensions import register_alembic_events

        register_alembic_events(databases=False, schemas=False, roles=False, grants=False)
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):
            try:
                said = answer(tool, json.loads(line))
            except Exception as error:  # noqa: BLE001 - whatever the tool says is its answer
                traceback.print_exc()
                said = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
