"""Write the types of browser pages: clients/js/database.d.ts.

    .venv/bin/python tests/typescript.py

`supabase gen types` writes them from a new database. It loses the row of a function that has OUT parameters or returns
the row of a private view. It cannot know which arguments, and which columns of views and functions, may be NULL, nor
the values of a status, mode or tier. The package's own types say all of that, and tests compare these with the
database.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tempfile
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_origin
from uuid import UUID

from npm import packages
from pushing import SupabaseCLI, by_tcp
from sqlalchemy import CheckConstraint
from support import PROJECT
from typed_rows import CLASSES, columns_of

from oblivion_schema import active_calls, billing, daily_token_usage, metadata, upgrade, user_token_summary
from oblivion_schema.tables.access import PageBilling
from oblivion_schema.testing import running_server, template, url_of

if TYPE_CHECKING:
    from sqlalchemy import URL, TypedColumns

TYPES: Final = PROJECT / "clients" / "js" / "database.d.ts"
COMMAND: Final = ".venv/bin/python tests/typescript.py"

# As PostgREST's JSON has them.
_JSON: Final = {
    NoneType: "null",
    bool: "boolean",
    int: "number",
    Decimal: "number",
    str: "string",
    UUID: "string",
    date: "string",
    datetime: "string",
    timedelta: "string",
}
# A view has no CHECK; these show the checked columns of a table, by the same name.
_VIEW_OF: Final = {
    active_calls.name: "call_sessions",
    daily_token_usage.name: "token_usage",
    user_token_summary.name: "user_accounts",
}
# These are not in oblivion_schema.billing.
_ROWS: Final[dict[str, dict[str, Any]]] = {
    "open_account": {"user_id": str, "status": Literal["ok", "known", "closed"], "balance": int | None},
    "host_presence": {"is_available": bool, "room_id": str, "updated_at": datetime},
}


def main() -> int:
    """Write the file, from a database of its own."""
    with (
        running_server() as server,
        template(server, lambda url: upgrade(url, demo=False)) as name,
        tempfile.TemporaryDirectory() as home,
    ):
        TYPES.write_text(generated(url_of(server, name), Path(home)), encoding="utf-8")
        sys.stdout.write(f"Wrote {TYPES}.\n")
    return 0


def generated(database: URL, home: Path) -> str:
    """The text of the file; `home` is a folder for the CLI. Skips a test where npm cannot give the programs."""
    with by_tcp(database) as url:
        plain = url.set(drivername="postgresql", query={"sslmode": "disable"}).render_as_string(hide_password=False)
        said = SupabaseCLI.at_home_in(home).run("gen", "types", "--lang", "typescript", "--db-url", plain, folder=home)
    assert said.status == 0, said.err
    # What follows is for enums and composite types, of which the database has none.
    types = said.out.partition("export type Enums<")[0]
    relations, functions, rest = re.split(r"(?:Functions|Enums): (?=\{\s*[\"\[])", types)
    return _formatted(
        f"// Written by {COMMAND}\n{_relations(relations)}Functions: {{ {_functions(functions)} }}\nEnums: {rest}"
    )


def _formatted(text: str) -> str:
    prettier = packages(PROJECT / "tests" / "supabase_js") / ".bin" / "prettier"
    command = [str(prettier), "--parser", "typescript", "--print-width", "120"]
    ended = subprocess.run(command, input=text, capture_output=True, text=True, check=True, timeout=60)
    return ended.stdout


def _relations(text: str) -> str:
    """The CLI's tables and views, each column as the package types it."""
    found = re.split(r'"(\w+)": (?=\{\s*Row: )', text)
    for at in range(1, len(found), 2):
        name = found[at]
        found[at] = f"{name}: "
        found[at + 1] = re.sub(
            r"(Row|Insert|Update): \{([^{}]*)\}",
            lambda part: f"{part[1]}: {{\n{_columns(name, part[1], part[2])}\n}}",  # noqa: B023 - called at once
            found[at + 1],
        )
    return "".join(found)


def _columns(relation: str, part: str, members: str) -> str:
    table = metadata.tables[relation]
    [held] = [columns_of(columns) for columns in CLASSES if list(columns_of(columns)) == table.c.keys()]
    lines = []
    for name, optional, said in re.findall(r'"(\w+)"(\??): ([^,\n]+)', members):
        type_ = said
        if part == "Row":
            type_ = _type(held[name])
            assert said.removesuffix(" | null") == type_.removesuffix(" | null"), f"{relation}.{name}"
            lines.append(f"/** {table.c[name].comment} */")
        lines.append(f"{name}{optional}: {type_.replace('string', _checked(relation, name))}")
    return "\n".join(lines)


def _checked(relation: str, column: str) -> str:
    """The values that a column's CHECK allows, as a type."""
    for check in metadata.tables[_VIEW_OF.get(relation, relation)].constraints:
        if isinstance(check, CheckConstraint) and (said := re.fullmatch(rf"{column} IN \((.*)\)", str(check.sqltext))):
            return said[1].replace("'", '"').replace(", ", " | ")
    return "string"


def _functions(text: str) -> str:
    """The CLI's functions, with the arguments and the rows of the package."""
    said = re.findall(r'"(\w+)":\s*\{ Args: (.*?); Returns: ', text)
    return "\n".join(
        f"{name}: {{ Args: {_arguments(name, arguments)}; Returns: {_returned(name)} }}" for name, arguments in said
    )


def _arguments(name: str, said: str) -> str:
    if name not in billing.__all__:
        return said
    parameters = inspect.signature(getattr(billing, name)).parameters.values()
    taken = {p.name: "" if p.default is p.empty else "?" for p in parameters}
    assert dict(re.findall(r'"(\w+)"(\??): ', said)) == taken, name
    types = {p.name: _type(eval(p.annotation, vars(billing))) for p in parameters}
    return f"{{ {'; '.join(f'{argument}{taken[argument]}: {type_}' for argument, type_ in types.items())} }}"


def _returned(name: str) -> str:
    if name == "page_billing":
        return _type(PageBilling)
    assert name in billing.__all__ or name in _ROWS, f"say in _ROWS what {name} returns"
    row = _ROWS.get(name) or columns_of(_columns_class(name))
    # An array, also of a function that returns one row and no set: to supabase-js .single() of an object is never.
    return f"{{ {'; '.join(f'{column}: {_type(held)}' for column, held in row.items())} }}[]"


def _columns_class(function: str) -> type[TypedColumns]:
    [name] = re.findall(r"\w+(?=\]$)", getattr(billing, function).__annotations__["return"])
    return getattr(billing, name)  # type: ignore[no-any-return]


def _type(hint: Any) -> str:
    """A type of Python's, as PostgREST's JSON has its values."""
    if get_origin(hint) is Literal:
        return " | ".join(f'"{value}"' for value in get_args(hint))
    return " | ".join(_type(part) for part in get_args(hint)) or _JSON[hint]


if __name__ == "__main__":
    sys.exit(main())
