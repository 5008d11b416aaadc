"""Declare objects that SQLAlchemy cannot express, beside the table that they belong to.

`metadata.create_all()` creates in this order: the private schema; functions of the metadata; tables with their indexes,
each followed by what is declared on it, in the order of declaration; views after everything that they read; triggers.

PostgreSQL gets the SQL as it was written: nothing is parsed, and no percent sign or colon is an escape.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sqlalchemy import Column, Connection, MetaData, Table, TypedColumns, event, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateView, ExecutableDDLElement

from oblivion_schema.declare.privileges import exact_grants
from oblivion_schema.declare.sql import commented, quoted, statements_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy.sql.compiler import DDLCompiler

    from oblivion_schema.declare.privileges import GrantMode, Grants

Kind = Literal[
    "comment", "function", "grant", "index", "policy", "publication", "role", "row level security",
    "schema", "setting", "storage parameter", "trigger", "view",
]  # fmt: skip
Columns = TypeVar("Columns", bound=TypedColumns)

_DECLARED = "oblivion_schema.declared"
_GRANTED = "oblivion_schema.granted"
_REFERENCE = "oblivion_schema.reference"
_READS = "oblivion_schema.reads"


@dataclass(frozen=True)
class Declared:
    """One object that a table or the metadata declares, and that SQLAlchemy cannot express.

    `name` is the object's name in PostgreSQL's catalogs; `create` the statement that creates it.
    """

    kind: Kind
    name: str
    create: str


class Statement(ExecutableDDLElement):
    """A statement that is executed as it was written."""

    inherit_cache = False

    def __init__(self, sql: str) -> None:
        self.sql = sql


@compiles(Statement)
def _compile_statement(statement: Statement, _: DDLCompiler, **__: object) -> str:
    return statement.sql


class CreateViewAsWritten(CreateView):
    """SQLAlchemy's CREATE VIEW, which executes `sql` as it was written."""

    inherit_cache = False
    sql: str


@compiles(CreateViewAsWritten)
def _compile_view(create: CreateViewAsWritten, compiler: DDLCompiler, **__: object) -> str:
    # The driver turns %% back into one percent sign.
    return create.sql.replace("%", "%%") if compiler.dialect.paramstyle in {"format", "pyformat"} else create.sql


def declare(owner: Table[Any] | MetaData, kind: Kind, name: str, create: str) -> None:
    """Let `create_all()` execute `create`: after the table that owns it, or before all tables if the metadata owns it.

    Every `create_all()` executes the statements of the metadata, even if it creates no table: they must be repeatable.
    """
    _note(owner, Declared(kind, name, create))
    _execute_on(owner, "before_create" if isinstance(owner, MetaData) else "after_create", create)


def qualified(table: Table[Any]) -> str:
    """The table's name with its schema, quoted as SQL needs it."""
    return quoted(table.schema or "public", table.name)


def declared(owner: Table[Any] | MetaData) -> tuple[Declared, ...]:
    """The objects that `owner` declares, in the order of declaration."""
    return tuple(owner.info.get(_DECLARED, ()))


def grants(
    owner: Table[Any] | MetaData,
    name: str,
    target: str,
    when_open: Grants,
    authenticated: Grants | None = None,
    *,
    metered: Grants | None = None,
) -> None:
    """Declare the privileges of PUBLIC and the API roles on an object in each of the `GRANT_MODES`.

    `target` is the object as GRANT names it. A mode that is left out has the privileges of the one before it.
    """
    closed = when_open if authenticated is None else authenticated
    by_mode: dict[GrantMode, Grants] = {
        "open": when_open,
        "authenticated": closed,
        "metered": closed if metered is None else metered,
    }
    owner.info.setdefault(_GRANTED, []).append((target, by_mode))
    declare(owner, "grant", name, exact_grants(target, by_mode))


def granted(metadata: MetaData) -> Iterator[tuple[str, Mapping[GrantMode, Grants]]]:
    """Each object with declared grants, as GRANT names it, and its grants in each mode."""
    for owner in (metadata, *metadata.tables.values()):
        yield from owner.info.get(_GRANTED, ())


def identities(metadata: MetaData) -> Iterator[str]:
    """The sequences of the identity columns, whose names PostgreSQL makes."""
    for table in metadata.tables.values():
        yield from (
            quoted(table.schema or "public", f"{table.name}_{column.name}_seq")
            for column in table.columns
            if column.identity is not None
        )


def function(owner: Table[Any] | MetaData, file: Path, *, granted: Grants = MappingProxyType({})) -> None:
    """Declare the function of an .sql file, which holds CREATE FUNCTION and COMMENT ON FUNCTION.

    Besides its owner only the roles in `granted` may execute it. A function of the metadata is created before all
    tables, so that their triggers and policies may call it. A function of a table is created after the table, so that
    it may use the table's row type.
    """
    create, comment = definition(file)
    declare(owner, "function", file.stem, create)
    describe_function(owner, comment, granted=granted)


def definition(file: Path) -> tuple[str, str]:
    """The two statements of the .sql file of a function or view: CREATE, and COMMENT ON, both of the file's name.

    Raises ValueError, which names the file, if it holds anything else.
    """
    if not file.is_file():
        raise ValueError(f"{file} does not exist: write it, with CREATE, an empty line, and COMMENT ON.")
    found = statements_of(file)
    if len(found) != len(("CREATE", "COMMENT")) or not found[1].startswith("COMMENT ON "):
        raise ValueError(
            f"{file} holds {len(found)} statements: write CREATE, an empty line, and COMMENT ON. A semicolon before an"
            " empty line ends a statement, except between quotes or dollar signs."
        )
    if (named := commented(found[1]).partition("(")[0]) != file.stem:
        raise ValueError(f"{file} comments on {named}: a file has the name of its one function or view.")
    return found[0], found[1]


def describe_function(owner: Table[Any] | MetaData, comment: str, *, granted: Grants) -> None:
    """Declare comment, grants and DROP of a declared function; `comment` names it with the types of its arguments."""
    signature = commented(comment)
    declare(owner, "comment", signature, comment)
    grants(owner, signature, f"FUNCTION {signature}", granted)
    # A table's function may use the table's row type, so it is dropped first; CASCADE drops functions that need it.
    moment = "after_drop" if isinstance(owner, MetaData) else "before_drop"
    _execute_on(owner, moment, f"DROP FUNCTION IF EXISTS {signature} CASCADE")


def trigger(
    table: Table[Any],
    name: str,
    moment: str,
    function: str,
    *,
    when: str = "",
    transition: str = "",
) -> None:
    """Declare a trigger that executes `function`, a name with its schema.

    - `moment`: for example BEFORE UPDATE.
    - `when`: the condition that a row has to meet.
    - `transition`: names for the tables of changed rows, for example OLD TABLE AS removed NEW TABLE AS added.

    It fires for each row; with `transition`, or on TRUNCATE, once for each statement. It is created after all tables.
    A table's trigger can therefore be declared below the table, even if another module declares its function.
    """
    each = "STATEMENT" if transition or moment.endswith("TRUNCATE") else "ROW"
    rows = f" REFERENCING {transition}" if transition else ""
    condition = f" WHEN ({when})" if when else ""
    create = (
        f"CREATE OR REPLACE TRIGGER {quoted(name)} {moment} ON {qualified(table)}{rows} FOR EACH {each}{condition}"
        f" EXECUTE FUNCTION {function}()"
    )
    _note(table, Declared("trigger", name, create))

    def execute(_: object, connection: Connection, *, tables: Sequence[Table[Any]], **__: Any) -> None:
        if table in tables:
            _execute(connection, create)

    event.listen(table.metadata, "after_create", execute)


def view(file: Path, metadata: MetaData, columns: type[Columns], *, reads: Sequence[Table[Any]]) -> Table[Columns]:
    """Declare the view of an .sql file, which holds CREATE VIEW and COMMENT ON VIEW.

    `columns` has the type and comment of each column that it selects, in order. The view is created after the tables
    and views in `reads`.
    """
    create, comment = definition(file)
    schema, _, name = file.stem.partition(".")
    typed = Table(name, MetaData(), columns)
    selected = text(create).columns(*(Column(c.name, c.type) for c in typed.c))
    made = CreateViewAsWritten(selected, name, metadata=metadata, schema=None if schema == "public" else schema)
    made.sql = create
    table = made.table
    for column in typed.c:
        table.c[column.name].comment = column.comment
    table.info[_READS] = tuple(reads)
    for read in reads:
        table.add_is_dependent_on(read)
    _note(table, Declared("view", file.stem, create))
    declare(table, "comment", name, comment)
    return table.with_cols(columns)


def read_by(view: Table[Any]) -> tuple[Table[Any], ...]:
    """The tables and views that `view` selects from."""
    return tuple(view.info[_READS])


def reference_rows(table: Table[Any], *rows: Mapping[str, object]) -> None:
    """Declare rows that belong to the schema; `create_all()` inserts them, and the drift compares them.

    Their primary key identifies them. Other rows of the table belong to its users.
    """
    table.info[_REFERENCE] = tuple(dict.fromkeys(name for row in rows for name in row))

    def insert(_: object, connection: Connection, **__: Any) -> None:
        connection.execute(table.insert(), list(rows))

    event.listen(table, "after_create", insert)


def reference_tables(metadata: MetaData) -> dict[Table[Any], tuple[str, ...]]:
    """The tables that have reference rows, and the columns that these rows set."""
    return {table: table.info[_REFERENCE] for table in metadata.tables.values() if _REFERENCE in table.info}


def _note(owner: Table[Any] | MetaData, item: Declared) -> None:
    owner.info.setdefault(_DECLARED, []).append(item)


def _execute_on(owner: Table[Any] | MetaData, moment: str, sql: str) -> None:
    event.listen(owner, moment, lambda _, connection, **__: _execute(connection, sql))


def _execute(connection: Connection, sql: str) -> None:
    connection.execute(Statement(sql), execution_options={"no_parameters": True})
