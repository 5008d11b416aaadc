"""Random pairs of schemas, as statements: `pairs()` is the strategy.

A schema is a dict of pieces, one for each object or state of one: `create()` draws the SQL of a piece, which refers to
what the schema has. A pair is a schema and a copy in which some pieces were taken away, drawn again, renamed or added.
Nothing here keeps a schema valid: `accepted()` leaves out what PostgreSQL refuses, and finds the order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hypothesis.strategies import DrawFn
    from sqlalchemy import Connection


class Key(NamedTuple):
    """Of one piece: its kind, its name, and what it is on."""

    kind: str
    name: str
    on: str = ""


@dataclass(frozen=True)
class Piece:
    """A statement, and what other pieces refer to: the type of a column, the columns of a view."""

    sql: str
    type: str = ""
    columns: tuple[str, ...] = ()


Schema: TypeAlias = dict[Key, Piece]


class Pair(NamedTuple):
    """What a database has, and what it should have."""

    before: Schema
    after: Schema

    def __repr__(self) -> str:
        """Nothing: a failure shows the statements that PostgreSQL took."""
        return "..."


TABLES: Final = ("public.rooms", "public.guests", "oblivion.meters", 'public."Odd one"')
COLUMNS: Final = ("alpha", "bravo", "carol", "delta", '"Odd col"')
VIEWS: Final = ("public.seen", "public.counted", "oblivion.audit")
# What people write most stands first: Hypothesis shrinks to it.
TYPES: Final = {
    "integer": ("7", "1 + 1", "length('abc')"),
    "text": ("'x'", "'a' || 'b'", "public.norm('A')", "CURRENT_USER", "'it''s'"),
    "bigint": ("9", "oblivion.num('abc')::bigint"),
    "boolean": ("true", "public.yes('b')"),
    "timestamptz": ("now()", "'2020-02-02 00:00+00'"),
    "varchar(9)": ("'y'", "lower('Q')"),
    "numeric(9,2)": ("0.5", "1"),
    "smallint": ("3",),
    'text COLLATE "C"': ("'c'",),
    "uuid": ("gen_random_uuid()",),
    "jsonb": ("'{}'", "'{\"a\": 1}'"),
    "integer[]": ("'{1,2}'", "ARRAY[1, 2]"),
    "date": ("'2020-02-02'", "CURRENT_DATE"),
    "interval": ("'1 day'",),
    "char(3)": ("'abc'",),
    "double precision": ("1.5",),
    "bytea": ("'\\x00'",),
}
NUMBERS: Final = ("integer", "bigint", "smallint")
ROLES: Final = ("anon", "authenticated", "service_role", "PUBLIC")
PUBLICATION: Final = "supabase_realtime"

# The order in which the pieces are tried first; what is refused is tried again after the others.
ORDER: Final = (
    "table", "column", "function", "generated", "default", "constraint", "foreign key", "index", "table setting",
    "column setting", "index setting", "view", "trigger", "trigger state", "security", "policy", "grant", "publication",
    "comment",
)  # fmt: skip


def short(name: str) -> str:
    """A name without its schema and quotes, for names made of it."""
    return re.sub(r"\W", "_", name.rpartition(".")[2].strip('"')).lower()


def names(schema: Schema, kind: str) -> list[str]:
    return [key.name for key in schema if key.kind == kind]


def columns(schema: Schema, table: str) -> list[str]:
    return [key.name for key in schema if key.kind in {"column", "generated"} and key.on == table]


def type_of(schema: Schema, table: str, column: str) -> str:
    found = schema.get(Key("column", column, table)) or schema.get(Key("generated", column, table))
    return found.type if found else ""


class Drawing:
    """What draws the pieces of one schema."""

    def __init__(self, draw: DrawFn, schema: Schema) -> None:
        self.draw, self.schema = draw, schema

    def one(self, options: Iterable[str]) -> str:
        """One of the options; the empty string of none."""
        options = list(options)
        return self.draw(st.sampled_from(options)) if options else ""

    def number(self, most: int) -> int:
        """A number from 0 to `most`."""
        return self.draw(st.integers(0, most))

    def maybe(self, *options: str) -> str:
        """Nothing, or a blank and one of the options."""
        return self.one(["", *(f" {option}" for option in options)])

    def some(self, options: Sequence[str], at_most: int = 3) -> list[str]:
        """One or more of the options, in random order."""
        if not options:
            return [""]
        found = st.lists(st.sampled_from(options), min_size=1, max_size=at_most, unique=True)
        return list(self.draw(found))

    def chance(self) -> bool:
        return self.draw(st.booleans())

    def column(self, table: str) -> str:
        return self.one(columns(self.schema, table))

    def table(self) -> str:
        return self.one(names(self.schema, "table"))

    def condition(self, table: str, prefix: str = "", *, plain: bool = False) -> str:
        """A condition on a row of a table; `plain` without a function of ours, a subquery or the whole row."""
        column = self.column(table)
        name = f"{prefix}{column}"
        its = type_of(self.schema, table, column)
        options = [f"{name} IS NOT NULL", f"{name}::text <> 'q'", f"length({name}::text) < 90"]
        if its in (*NUMBERS, "numeric(9,2)"):
            options += [f"{name} > 0", f"{name} IN (1, 2, 3)", f"{name} BETWEEN 0 AND 99", f"NOT {name} = 5"]
        elif its.startswith(("text", "varchar", "char")):
            options += [
                f"{name} IN ('a', 'b', 'abc')",
                f"{name} ~ '^[a-z]'",
                f"{name} <> 'it''s'",
                f"{name} LIKE '%a:b%' OR true",
            ]
        elif its == "boolean":
            options += [name, f"{name} IS NOT TRUE"]
        elif its == "timestamptz":
            options += [f"{name} > '2020-01-01 00:00+00'"]
        elif its == "jsonb":
            options += [f"NOT {name} ? 'k'"]
        if not plain:
            options += [f"public.yes({name}::text)", f"public.norm({name}::text) <> 'q'"]
            if table == "public.rooms" and not prefix:
                options += ["public.whole(rooms) <> 'q'"]
        condition = self.one(options)
        if not prefix and self.number(3) == 3:
            condition = f"({condition}) {self.one(['AND', 'OR'])} {self.column(table)} IS NOT NULL"
        return condition

    def value(self, table: str, prefix: str = "") -> str:
        """An immutable expression of a row of a table."""
        column = self.column(table)
        name = f"{prefix}{column}"
        its = type_of(self.schema, table, column)
        options = [f"lower({name}::text)", f"public.norm({name}::text)", f"coalesce({name}::text, 'none')"]
        if its in NUMBERS:
            options += [f"{name} * 2", f"{name} + 1", f"oblivion.num({name}::text)"]
        elif its.startswith(("text", "varchar")):
            options += [f"{name} || 'x'", f"CASE WHEN {name} IN ('a', 'b') THEN 'ab' ELSE {name} END"]
        return self.one(options)


def table(d: Drawing, key: Key) -> Piece:
    return Piece(f"CREATE{d.one(['', '', '', ' UNLOGGED'])} TABLE {key.name} ()")


TEXTS: Final = ("text", "varchar(9)", 'text COLLATE "C"', "char(3)")
DECIMALS: Final = (*NUMBERS, "numeric(9,2)", "double precision")


def convertible(old: str) -> Sequence[str]:
    """The types to which PostgreSQL converts by an assignment or a cast; most changes are of this sort."""
    groups = (DECIMALS, TEXTS, ("timestamptz", "date"))
    group = next((group for group in groups if old in group), (old,))
    return list(TYPES) if old in TEXTS else [*group, *TEXTS]


def column(d: Drawing, key: Key) -> Piece:
    old = type_of(d.schema, key.on, key.name)
    its = d.one(convertible(old) if old and d.number(15) else TYPES)
    extra = d.one(["", "", " NOT NULL"])
    if its in NUMBERS and d.number(4) == 4:
        options = d.some(["INCREMENT BY 2", "START WITH 7", "CACHE 5", "CYCLE", "MAXVALUE 3000", "MINVALUE 5"])
        listed = f" ({' '.join(options)})" if d.chance() else ""
        extra = f" GENERATED {d.one(['ALWAYS', 'BY DEFAULT'])} AS IDENTITY{listed}"
    return Piece(f"ALTER TABLE {key.on} ADD COLUMN {key.name} {its}{extra}", its)


def generated(d: Drawing, key: Key) -> Piece:
    its = d.one(["text", "integer", "boolean"])
    value = d.condition(key.on) if its == "boolean" else d.value(key.on)
    cast = f"({value})::integer" if its == "integer" and "::text" in value else value
    # Servers before 18 have no virtual ones.
    stored = d.one(["STORED", "STORED", "VIRTUAL"])
    return Piece(f"ALTER TABLE {key.on} ADD COLUMN {key.name} {its} GENERATED ALWAYS AS ({cast}) {stored}", its)


def default(d: Drawing, key: Key) -> Piece:
    its = type_of(d.schema, key.on, key.name)
    return Piece(f"ALTER TABLE {key.on} ALTER COLUMN {key.name} SET DEFAULT {d.one(TYPES.get(its, ('NULL',)))}")


def constraint(d: Drawing, key: Key) -> Piece:
    start = f"ALTER TABLE {key.on} ADD CONSTRAINT {key.name} "
    later = d.maybe("DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED")
    listed = ", ".join(d.some(columns(d.schema, key.on), 2))
    if key.name.endswith("pkey"):
        return Piece(f"{start}PRIMARY KEY ({d.one(['id', 'id', listed])}){later}")
    match d.one(["check", "check", "unique", "exclusion"]):
        case "check":
            return Piece(f"{start}CHECK ({d.condition(key.on)}){d.maybe('NOT VALID', 'NO INHERIT')}")
        case "unique":
            include = f" INCLUDE ({d.column(key.on)})" if d.chance() else ""
            return Piece(f"{start}UNIQUE{d.maybe('NULLS NOT DISTINCT')} (id, {listed}){include}{later}")
    where = f" WHERE ({d.condition(key.on)})" if d.chance() else ""
    method = d.one(["btree", "hash"])
    return Piece(
        f"{start}EXCLUDE USING {method} ({d.one([d.column(key.on), '(' + d.value(key.on) + ')'])} WITH =){where}"
    )


def foreign_key(d: Drawing, key: Key) -> Piece:
    action = d.maybe("ON DELETE CASCADE", "ON UPDATE CASCADE ON DELETE SET NULL", "MATCH FULL ON DELETE RESTRICT")
    later = d.maybe("DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED", "NOT VALID")
    numbers = [name for name in columns(d.schema, key.on) if type_of(d.schema, key.on, name) in NUMBERS]
    return Piece(
        f"ALTER TABLE {key.on} ADD CONSTRAINT {key.name} FOREIGN KEY ({d.one(numbers or ['id'])})"
        f" REFERENCES {d.table()} (id){action}{later}"
    )


def index(d: Drawing, key: Key) -> Piece:
    name = key.name.partition(".")[2]
    method = d.one(["btree", "btree", "btree", "hash", "gin", "brin"])
    part = d.one([d.column(key.on), f"({d.value(key.on)})", "id"])
    order = d.maybe("DESC", "DESC NULLS LAST", "text_pattern_ops", 'COLLATE "C"') if method == "btree" else ""
    more = f", {d.column(key.on)}" if method == "btree" and d.chance() else ""
    include = f" INCLUDE ({d.column(key.on)})" if method == "btree" and d.number(3) == 3 else ""
    options = d.maybe("WITH (fillfactor = 70)") if method == "btree" else ""
    where = f" WHERE {d.condition(key.on)}" if d.chance() else ""
    unique = "UNIQUE " if method == "btree" and d.number(3) == 3 else ""
    return Piece(
        f"CREATE {unique}INDEX {name} ON {key.on} USING {method} ({part}{order}{more}){include}{options}{where}"
    )


def table_setting(d: Drawing, key: Key) -> Piece:
    match key.name:
        case "identity":
            what = d.one(["REPLICA IDENTITY FULL", "REPLICA IDENTITY NOTHING"])
        case "parameters":
            options = ["fillfactor = 70", "fillfactor = 80", "autovacuum_enabled = false", "parallel_workers = 2"]
            what = f"SET ({', '.join({one.split()[0]: one for one in d.some(options)}.values())})"
        case _:
            what = d.one(["SET LOGGED", "SET UNLOGGED"])
    return Piece(f"ALTER TABLE {key.on} {what}")


def index_setting(d: Drawing, key: Key) -> Piece:
    indexes = [k.name.partition(".")[2] for k in d.schema if k.kind == "index" and k.on == key.on]
    keys = [k.name for k in d.schema if k.kind == "constraint" and k.on == key.on]
    verb = "CLUSTER ON" if key.name == "cluster" else "REPLICA IDENTITY USING INDEX"
    return Piece(f"ALTER TABLE {key.on} {verb} {d.one(indexes + keys)}")


def column_setting(d: Drawing, key: Key) -> Piece:
    its = {
        "storage": ["SET STORAGE EXTERNAL", "SET STORAGE MAIN", "SET STORAGE EXTENDED", "SET STORAGE PLAIN"],
        "compression": ["SET COMPRESSION pglz"],
        "statistics": ["SET STATISTICS 50", "SET STATISTICS 500", "SET STATISTICS 0"],
        "distinct": ["SET (n_distinct = 2)", "SET (n_distinct = -0.5)"],
    }
    column, _, what = key.name.rpartition(" ")
    return Piece(f"ALTER TABLE {key.on} ALTER COLUMN {column} {d.one(its[what])}")


def function(d: Drawing, key: Key) -> Piece:
    create = f"{d.one(['CREATE FUNCTION', 'CREATE OR REPLACE FUNCTION'])} {key.name}"
    more = d.maybe("STRICT", "SECURITY DEFINER", "PARALLEL SAFE", "COST 7", "LEAKPROOF")
    more += d.maybe("SET search_path = ''", "SET search_path = '' SET work_mem = '8MB'")
    immutable = f"IMMUTABLE{more}"
    a = d.one(["a", "b"])
    optional = d.maybe("DEFAULT 'x'", "DEFAULT public.norm('d')")
    its = d.table() or "public.rooms"
    match key.name:
        case "public.yes" | "public.norm":
            second = d.one(["", "", ", more integer DEFAULT 2"])
            arguments = f"{a} text{optional or ' DEFAULT NULL' * bool(second)}{second}"
            if key.name == "public.yes":
                result = "boolean"
                value = d.one([f"coalesce({a}, '') <> 'q'", f"{a} IN ('a', 'b') IS NOT NULL", "true"])
            else:
                result = d.one(["text", "text", "varchar"])
                value = d.one([f"lower({a})", f"CASE WHEN {a} IN ('a', 'b') THEN 'ab' ELSE {a} END"])
            return Piece(f"{create}({arguments}) RETURNS {result} {d.one(body(value, immutable))}")
        case "oblivion.num":
            value = d.one([f"length({a})", "1", f"length(public.norm({a}))"])
            result = d.one(["integer", "bigint"])
            return Piece(f"{create}({a} text{optional}) RETURNS {result} {d.one(body(value, immutable))}")
        case "public.whole":
            value = d.one([f"({a}).{d.column('public.rooms') or 'id'}::text", f"{a}::text", "'w'"])
            return Piece(f"{create}({a} public.rooms) RETURNS text {d.one(body(value, immutable))}")
        case "public.rows":
            query = f"SELECT * FROM {its} WHERE {d.condition(its)}"
            text = d.one([f"BEGIN ATOMIC {query}; END", f"AS $$ {query} $$"])
            return Piece(f"{create}() RETURNS SETOF {its} LANGUAGE sql STABLE {text}")
        case "public.many":
            source = d.one([*names(d.schema, "table"), *names(d.schema, "view")])
            query = f"SELECT count(*) FROM {source}"
            plpgsql = f"LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN ({query}); END $$"
            atomic = f"LANGUAGE sql STABLE BEGIN ATOMIC {query}; END"
            return Piece(f"{create}() RETURNS bigint {d.one([atomic, plpgsql, 'LANGUAGE sql STABLE RETURN 1'])}")
        case "public.act":
            query = f"DELETE FROM {its} WHERE id = {a}"
            text = d.one([f"AS $$ {query} $$", f"BEGIN ATOMIC {query}; END"])
            create = create.replace("FUNCTION", "PROCEDURE")
            return Piece(f"{create}({a} integer{d.maybe('DEFAULT 1')}) LANGUAGE sql {text}")
    line = d.one(["RETURN NEW;", "RETURN NULL;", "-- 100 %, a:b\n  RETURN NEW;"])
    return Piece(f"{create}() RETURNS trigger LANGUAGE plpgsql{more} AS $$\nBEGIN\n  {line}\nEND\n$$")


def body(value: str, attributes: str) -> list[str]:
    """A function that gives a value, in each way to write one."""
    return [
        f"LANGUAGE sql {attributes} RETURN {value}",
        f"LANGUAGE sql {attributes} AS $$ SELECT {value} $$",
        f"LANGUAGE plpgsql {attributes} AS $$ BEGIN RETURN {value}; END $$",
        f"LANGUAGE sql {attributes} BEGIN ATOMIC SELECT {value}; END",
    ]


def view(d: Drawing, key: Key) -> Piece:
    source = d.table()
    mine = d.some(columns(d.schema, source))
    listed = ", ".join(mine)
    given = tuple(mine)
    options = d.maybe("WITH (security_invoker = true)", "WITH (security_barrier = true, security_invoker = true)")
    start = f"{d.one(['CREATE VIEW', 'CREATE OR REPLACE VIEW'])} {key.name}{options} AS "
    where = f" WHERE {d.condition(source)}" if d.chance() else ""
    others = [name for name in names(d.schema, "view") if name != key.name]
    match d.one(["plain", "value", "join", "group", "view", "function", "whole", "union", "with"]):
        case "value":
            return Piece(
                f"{start}SELECT {listed}, {d.value(source)} AS made FROM {source}{where}", columns=(*given, "made")
            )
        case "join":
            other = d.table()
            return Piece(
                f"{start}SELECT l.{mine[0]}, r.id AS other FROM {source} AS l {d.one(['LEFT ', ''])}JOIN {other} AS r"
                f" ON l.id = r.id",
                columns=(mine[0], "other"),
            )
        case "group":
            return Piece(
                f"{start}SELECT {listed}, count(*) AS n FROM {source} GROUP BY {d.one(['id', listed])}",
                columns=(*given, "n"),
            )
        case "view" if others:
            other = d.one(others)
            its = d.some(d.schema[Key("view", other)].columns)
            return Piece(f"{start}SELECT {', '.join(its)} FROM {other}", columns=tuple(its))
        case "function":
            return Piece(f"{start}SELECT id, public.many() AS n FROM public.rows()", columns=("id", "n"))
        case "whole":
            alias = short(source)
            return Piece(f"{start}SELECT id, {alias} AS whole FROM {source} AS {alias}", columns=("id", "whole"))
        case "union":
            return Piece(f"{start}SELECT id FROM {source}{where} UNION ALL SELECT id FROM {d.table()}", columns=("id",))
        case "with":
            return Piece(
                f"{start}WITH w AS (SELECT {listed} FROM {source}{where})"
                f" SELECT {listed}, row_number() OVER () AS n FROM w",
                columns=(*given, "n"),
            )
    check = d.maybe("WITH LOCAL CHECK OPTION") if not options else ""
    return Piece(f"{start}SELECT {listed} FROM {source}{where}{check}", columns=given)


def trigger(d: Drawing, key: Key) -> Piece:
    argument = d.one(["", "", "'arg'"])
    run = f"EXECUTE FUNCTION {d.one(['public.stamp', 'oblivion.guard'])}({argument})"
    match d.one(["row", "of", "statement", "transition", "constraint"]):
        case "row":
            when = f" WHEN ({d.condition(key.on, 'NEW.')})" if d.chance() else ""
            moment = d.one(["BEFORE INSERT OR UPDATE", "AFTER INSERT", "BEFORE UPDATE"])
            return Piece(f"CREATE TRIGGER {key.name} {moment} ON {key.on} FOR EACH ROW{when} {run}")
        case "of":
            listed = ", ".join(d.some(columns(d.schema, key.on), 2))
            when = d.maybe(
                f"WHEN (OLD.{d.column(key.on)} IS DISTINCT FROM NEW.{d.column(key.on)})", "WHEN (OLD.* <> NEW.*)"
            )
            return Piece(f"CREATE TRIGGER {key.name} BEFORE UPDATE OF {listed} ON {key.on} FOR EACH ROW{when} {run}")
        case "transition":
            return Piece(
                f"CREATE TRIGGER {key.name} AFTER UPDATE ON {key.on} REFERENCING NEW TABLE AS fresh OLD TABLE AS stale"
                f" FOR EACH STATEMENT {run}"
            )
        case "constraint":
            later = d.maybe("DEFERRABLE INITIALLY DEFERRED")
            return Piece(f"CREATE CONSTRAINT TRIGGER {key.name} AFTER INSERT ON {key.on}{later} FOR EACH ROW {run}")
    return Piece(
        f"CREATE TRIGGER {key.name} AFTER {d.one(['INSERT', 'DELETE', 'TRUNCATE'])} ON {key.on}"
        f" FOR EACH STATEMENT {run}"
    )


def trigger_state(d: Drawing, key: Key) -> Piece:
    return Piece(f"ALTER TABLE {key.on} {d.one(['DISABLE', 'ENABLE ALWAYS', 'ENABLE REPLICA'])} TRIGGER {key.name}")


def security(_: Drawing, key: Key) -> Piece:
    return Piece(f"ALTER TABLE {key.on} {key.name} ROW LEVEL SECURITY")


def policy(d: Drawing, key: Key) -> Piece:
    other = d.table()
    using = d.one([d.condition(key.on), f"EXISTS (SELECT FROM {other} AS o WHERE {d.condition(other, 'o.')})", "true"])
    check = d.condition(key.on)
    command, clauses = d.one(["SELECT", "INSERT", "UPDATE", "ALL", "DELETE"]), f" USING ({using})"
    if command == "INSERT":
        clauses = f" WITH CHECK ({check})"
    elif command in {"UPDATE", "ALL"} and d.chance():
        clauses += f" WITH CHECK ({check})"
    to = ", ".join(d.some(ROLES[:3], 2)) if d.chance() else "PUBLIC"
    return Piece(f"CREATE POLICY {key.name} ON {key.on}{d.maybe('AS RESTRICTIVE')} FOR {command} TO {to}{clauses}")


def grant(d: Drawing, key: Key) -> Piece:
    kind, _, name = key.on.partition(" ")
    role = key.name.partition(" ")[0]
    option = d.maybe("WITH GRANT OPTION") if role != "PUBLIC" else ""
    if kind == "FUNCTION":
        return Piece(
            d.one(
                [f"GRANT EXECUTE ON ROUTINE {name} TO {role}{option}", f"REVOKE EXECUTE ON ROUTINE {name} FROM PUBLIC"]
            )
        )
    if kind == "SEQUENCE":
        return Piece(f"GRANT {d.one(['USAGE', 'SELECT', 'USAGE, UPDATE'])} ON SEQUENCE {name} TO {role}{option}")
    its = columns(d.schema, name) or list(d.schema.get(Key("view", name), Piece("")).columns)
    if key.name.endswith("columns"):
        listed = ", ".join(d.some(its, 2))
        what = ", ".join(
            f"{privilege} ({listed})" for privilege in d.some(["SELECT", "UPDATE", "INSERT", "REFERENCES"], 2)
        )
    else:
        what = ", ".join(d.some(["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER", "REFERENCES"]))
    return Piece(f"GRANT {what} ON {name} TO {role}{option}")


def publication(d: Drawing, key: Key) -> Piece:
    listed = f" ({', '.join(dict.fromkeys(['id', *d.some(columns(d.schema, key.on))]))})" if d.chance() else ""
    where = f" WHERE ({d.condition(key.on, plain=True)})" if d.chance() else ""
    return Piece(f"ALTER PUBLICATION {PUBLICATION} ADD TABLE {key.on}{listed}{where}")


def comment(d: Drawing, key: Key) -> Piece:
    said = d.one(["'Said.'", "'it''s 50 %:a'", "'Two\nlines'"])
    return Piece(f"COMMENT ON {key.on} IS {said}")


MAKERS: Final[dict[str, Callable[[Drawing, Key], Piece]]] = {
    "table": table,
    "column": column,
    "generated": generated,
    "default": default,
    "constraint": constraint,
    "foreign key": foreign_key,
    "index": index,
    "table setting": table_setting,
    "column setting": column_setting,
    "index setting": index_setting,
    "function": function,
    "view": view,
    "trigger": trigger,
    "trigger state": trigger_state,
    "security": security,
    "policy": policy,
    "grant": grant,
    "publication": publication,
    "comment": comment,
}
FUNCTIONS: Final = (
    "public.norm", "public.yes", "oblivion.num", "public.whole", "public.rows", "public.many", "public.stamp",
    "oblivion.guard", "public.act",
)  # fmt: skip


def key(d: Drawing, kind: str) -> Key | None:
    """The key of a piece of that kind; None if the schema has nothing that it could be on."""
    alone = {"function": FUNCTIONS, "table": TABLES, "view": VIEWS}
    its = d.table()
    if kind in alone or not its:
        return Key(kind, d.one(alone[kind])) if kind in alone else None
    if kind == "grant":
        return _grant_key(d)
    if kind == "comment":
        return _comment_key(d)
    name = short(its)
    options = {
        "default": [key.name for key in d.schema if key.kind == "column" and key.on == its],
        "column": [one for one in COLUMNS if Key("generated", one, its) not in d.schema],
        "generated": [one for one in COLUMNS if Key("column", one, its) not in d.schema],
        "constraint": [f"{name}_pkey", f"{name}_one", f"{name}_two"],
        "foreign key": [f"{name}_fkey", f"{name}_other_fkey"],
        "index": [f"{its.partition('.')[0]}.{name}_{one}" for one in "xyz"],
        "table setting": ["parameters", "identity", "logged"],
        "index setting": ["cluster", "identity"],
        "column setting": [f"{d.column(its)} {one}" for one in ("storage", "compression", "statistics", "distinct")],
        "trigger": ["watch", "keep"],
        "trigger state": ["watch", "keep"],
        "security": ["ENABLE", "FORCE"],
        "policy": [f"{name}_read", f"{name}_write"],
        "publication": [PUBLICATION],
    }
    found = d.one(options[kind])
    return Key(kind, found, its) if found else None


def _grant_key(d: Drawing) -> Key | None:
    columned = [(key.on, key.name) for key in d.schema if key.kind == "column" and "IDENTITY" in d.schema[key].sql]
    targets = [
        *(f"TABLE {name}" for name in (*names(d.schema, "table"), *names(d.schema, "view"))),
        *(f"FUNCTION {name}" for name in names(d.schema, "function")),
        *(f"SEQUENCE {on.partition('.')[0]}.{short(on)}_{short(column)}_seq" for on, column in columned),
    ]
    target = d.one(targets)
    return Key("grant", d.one(ROLES) + (d.one(["", " columns"]) if target.startswith("TABLE") else ""), target)


def _comment_key(d: Drawing) -> Key | None:
    options = []
    for kind, name, on in d.schema:
        match kind:
            case "table" | "view" | "index":
                options.append(f"{kind.upper()} {name}")
            case "function":
                options.append(f"ROUTINE {name}")
            case "column" | "generated":
                options.append(f"COLUMN {on}.{name}")
            case "constraint" | "foreign key":
                options.append(f"CONSTRAINT {name} ON {on}")
            case "trigger" | "policy":
                options.append(f"{kind.upper()} {name} ON {on}")
    for its in names(d.schema, "view"):
        options += [f"COLUMN {its}.{name}" for name in d.schema[Key("view", its)].columns]
    target = d.one(options)
    return Key("comment", "", target) if target else None


# How often an addition is of a kind.
ADDED: Final = (
    "column", "view", "function", "index", "constraint", "trigger", "policy", "grant", "comment", "generated",
    "default", "foreign key", "column setting", "index setting", "table setting", "publication", "security",
    "trigger state", "view", "function", "grant", "comment", "column", "constraint", "table",
)  # fmt: skip


def add(d: Drawing, kind: str = "") -> None:
    """Add a piece, or draw again the one that has its key."""
    its = key(d, kind or d.one(ADDED))
    if its is not None:
        d.schema[its] = MAKERS[its.kind](d, its)


def add_table(d: Drawing, name: str) -> None:
    d.schema[Key("table", name)] = table(d, Key("table", name))
    d.schema[Key("column", "id", name)] = Piece(f"ALTER TABLE {name} ADD COLUMN id integer NOT NULL", "integer")
    for its in d.some(COLUMNS, 4):
        d.schema[Key("column", its, name)] = column(d, Key("column", its, name))
    d.schema[Key("constraint", f"{short(name)}_pkey", name)] = Piece(
        f"ALTER TABLE {name} ADD CONSTRAINT {short(name)}_pkey PRIMARY KEY (id)"
    )


def rename(d: Drawing) -> None:
    """Rename a column in its place, and wherever its table is mentioned."""
    its = d.table()
    old = d.column(its)
    new = f"new_{short(old)}"
    if not old or old == "id" or Key("column", new, its) in d.schema:
        return

    def renamed(text: str) -> str:
        return re.sub(rf"(?<![\w\"]){re.escape(old)}(?![\w\"])", new, text)

    def there(key: Key, piece: Piece) -> bool:
        return its in {key.name, key.on} or its in piece.sql or its in key.on

    pieces = [
        (
            Key(key.kind, renamed(key.name), renamed(key.on)),
            Piece(renamed(piece.sql), piece.type, tuple(map(renamed, piece.columns))),
        )
        if there(key, piece)
        else (key, piece)
        for key, piece in d.schema.items()
    ]
    d.schema.clear()
    d.schema.update(pieces)


def edit(d: Drawing) -> None:
    """One of the changes that people make."""
    pieces = list(d.schema)
    match d.one(["again", "again", "again", "retype", "remove", "remove", "add", "add", "add", "rename", "table"]):
        case "remove" if pieces:
            del d.schema[d.draw(st.sampled_from(pieces))]
        case "again" if pieces:
            its = d.draw(st.sampled_from(pieces))
            d.schema[its] = MAKERS[its.kind](d, its)
        case "retype":
            ours = [its for its in pieces if its.kind == "column"]
            if ours:
                its = d.draw(st.sampled_from(ours))
                d.schema[its] = column(d, its)
        case "rename":
            rename(d)
        case "table":
            add_table(d, d.one(TABLES))
        case _:
            add(d)


@st.composite
def schemas(draw: DrawFn) -> Schema:
    """A schema of one to three tables, and what is on and over them."""
    d = Drawing(draw, {})
    for name in d.some(TABLES):
        add_table(d, name)
    for name in d.some(FUNCTIONS, 5):
        d.schema[Key("function", name)] = function(d, Key("function", name))
    for _ in range(draw(st.integers(0, 25))):
        add(d)
    return d.schema


@st.composite
def pairs(draw: DrawFn) -> Pair:
    """Two schemas, `before` and `after`: mostly the second is the first after some edits."""
    before = draw(schemas())
    if draw(st.integers(0, 9)) == 9:
        return Pair(before, draw(schemas()))
    d = Drawing(draw, dict(before))
    for _ in range(draw(st.integers(2, 9))):
        edit(d)
    return Pair(before, d.schema)


def _rank(item: tuple[Key, Piece]) -> int:
    # What has all columns of a table comes after them.
    return ORDER.index("index" if item[0].name in {"public.rows", "public.many"} else item[0].kind)


def accepted(connection: Connection, schema: Schema) -> tuple[list[str], int]:
    """Execute the pieces, in an order that works; returns what PostgreSQL took, and how many pieces it refused."""
    taken: list[str] = []
    left = sorted(schema.items(), key=_rank)
    while left:
        refused = []
        for its, piece in left:
            savepoint = connection.begin_nested()
            try:
                connection.exec_driver_sql(piece.sql, execution_options={"no_parameters": True})
                savepoint.commit()
                taken.append(piece.sql)
            except DBAPIError:
                savepoint.rollback()
                refused.append((its, piece))
        if len(refused) == len(left):
            break
        left = refused
    return taken, len(left)
