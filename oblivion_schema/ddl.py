"""Declaring what SQLAlchemy has no object for, beside the table that it belongs to.

`metadata.create_all()` creates in this order: the private schema, functions, tables with their indexes, what is
declared on a table in the order of its declaration, views after all that they read. PostgreSQL is given the SQL as
it stands here: nothing is parsed, and no percent sign or colon is an escape.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sqlalchemy import Column, Connection, MetaData, Table, TypedColumns, event, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateView, ExecutableDDLElement

from .privileges import exact_grants
from .sql import quoted, text_literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.sql.compiler import DDLCompiler

Kind = Literal["comment", "function", "grant", "index", "policy", "role", "row level security", "schema", "trigger"]
Columns = TypeVar("Columns", bound=TypedColumns)

_FUNCTIONS = Path(__file__).with_name("functions")
_DECLARED = "oblivion_schema.declared"
_REFERENCE = "oblivion_schema.reference"


@dataclass(frozen=True)
class Declared:
    """One object that a table or the metadata declares beyond SQLAlchemy's own.

    `name` is the object's name as PostgreSQL's catalogs give it; `create` the statement that makes it.
    """

    kind: Kind
    name: str
    create: str


class Statement(ExecutableDDLElement):
    """SQL executed as it is written."""

    inherit_cache = False

    def __init__(self, sql: str) -> None:
        self.sql = sql


@compiles(Statement)
def _compile_statement(statement: Statement, _: DDLCompiler, **__: object) -> str:
    return statement.sql


class CreateInvokerView(CreateView):
    """A view that reads with the rights, and under the row level security, of whoever queries it."""

    inherit_cache = False
    query: str


@compiles(CreateInvokerView)
def _compile_view(create: CreateInvokerView, compiler: DDLCompiler, **__: object) -> str:
    name = compiler.preparer.format_table(create.table)
    query = create.query
    if compiler.dialect.paramstyle in {"format", "pyformat"}:
        query = query.replace("%", "%%")  # undone by the driver
    return f"CREATE VIEW {name} WITH (security_invoker = true) AS\n{query}"


def declare(owner: Table[Any] | MetaData, kind: Kind, name: str, create: str) -> None:
    """Let `create_all()` execute `create`: after its table, or before all tables where the metadata owns it.

    What the metadata owns is executed each time, tables or not, and so has to bear that.
    """
    owner.info.setdefault(_DECLARED, []).append(Declared(kind, name, create))
    _execute_on(owner, "before_create" if isinstance(owner, MetaData) else "after_create", create)


def declared(owner: Table[Any] | MetaData) -> tuple[Declared, ...]:
    """What `owner` declares, in the order of creation."""
    return tuple(owner.info.get(_DECLARED, ()))


def function(owner: Table[Any] | MetaData, name: str, arguments: str = "", *, comment: str) -> None:
    """Declare the function of `functions/<name>.sql`; nobody but its owner may execute it unless granted.

    `arguments` are the types of its arguments, as DROP FUNCTION takes them. It is created before all tables, for their
    triggers and policies, or after the table that owns it, whose rows it may then name.
    """
    signature = f"public.{name}({arguments})"
    declare(owner, "function", name, (_FUNCTIONS / f"{name}.sql").read_text(encoding="utf-8"))
    declare(owner, "comment", signature, f"COMMENT ON FUNCTION {signature} IS {text_literal(comment)}")
    declare(owner, "grant", signature, exact_grants(f"FUNCTION {signature}", {}))
    _execute_on(owner, "after_drop", f"DROP FUNCTION IF EXISTS {signature}")


def trigger(table: Table[Any], name: str, moment: str, function: str) -> None:
    """Declare a trigger of each row, `moment` such as BEFORE UPDATE, that executes `public.<function>()`."""
    on = quoted("public", table.name)
    create = f"CREATE TRIGGER {quoted(name)} {moment} ON {on} FOR EACH ROW EXECUTE FUNCTION public.{function}()"
    declare(table, "trigger", name, create)


def view(
    name: str, metadata: MetaData, columns: type[Columns], query: str, *, reads: Sequence[Table[Any]], comment: str
) -> Table[Columns]:
    """Declare a view: `columns` types and documents what `query` selects, in order; `reads` it is created after."""
    typed = Table(name, MetaData(), columns)
    create = CreateInvokerView(text(query).columns(*(Column(c.name, c.type) for c in typed.c)), name, metadata=metadata)
    create.query = query
    table = create.table
    for column in typed.c:
        table.c[column.name].comment = column.comment
    for read in reads:
        table.add_is_dependent_on(read)
    declare(table, "comment", name, f"COMMENT ON VIEW {quoted('public', name)} IS {text_literal(comment)}")
    return table.with_cols(columns)


def reference_rows(table: Table[Any], *rows: Mapping[str, object]) -> None:
    """Declare rows that belong to the schema, by their primary key; `create_all()` inserts them.

    Other rows of the table are its users'.
    """
    table.info[_REFERENCE] = tuple(dict.fromkeys(name for row in rows for name in row))

    def insert(_: object, connection: Connection, **__: Any) -> None:
        connection.execute(table.insert(), list(rows))

    event.listen(table, "after_create", insert)


def reference_tables(metadata: MetaData) -> dict[Table[Any], tuple[str, ...]]:
    """The tables that have reference rows, and the columns that these give."""
    return {table: table.info[_REFERENCE] for table in metadata.tables.values() if _REFERENCE in table.info}


def _execute_on(owner: Table[Any] | MetaData, moment: str, sql: str) -> None:
    def execute(_: object, connection: Connection, **__: Any) -> None:
        connection.execute(Statement(sql), execution_options={"no_parameters": True})

    event.listen(owner, moment, execute)
