#!/usr/bin/env bash
# SQLAlchemy 2.1.9 with mypy 2.4.1: select() of two typed tables has the type of a row of the first table alone.
#
# TypedColumns.__row_pos__ types the rows of a whole table. For two tables SQLAlchemy has an overload with two packs of
# types, which mypy does not take: it falls through to the overload of one table, without an error. Code that unpacks
# such a row passes the type check, and fails when it runs. A table and single columns of another one are typed right,
# and pyright types two tables right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q 'sqlalchemy==2.1.9' 'mypy==2.4.1'
cd "$folder"
cat >two.py <<'PYTHON'
from sqlalchemy import Column, Integer, MetaData, Named, Table, Text, TypedColumns, create_engine, insert, select


class AccountColumns(TypedColumns):
    user_id: Named[str] = Column(Text, primary_key=True)
    tokens: Named[int] = Column(Integer)
    __row_pos__: tuple[str, int]


class CallColumns(TypedColumns):
    id: Named[int] = Column(Integer, primary_key=True)
    __row_pos__: tuple[int]


metadata = MetaData()
accounts = Table("accounts", metadata, AccountColumns)
calls = Table("calls", metadata, CallColumns)
both = select(accounts, calls)
one_and_a_column = select(accounts, calls.c.id)
with create_engine("sqlite://").begin() as connection:
    metadata.create_all(connection)
    connection.execute(insert(accounts).values(user_id="ada", tokens=1))
    connection.execute(insert(calls).values(id=1))
    row = connection.execute(both).one()
    print(tuple(row))
    user_id, tokens = row
PYTHON
types=$("$folder/venv/bin/mypy" --strict two.py)
revealed=$({ cat two.py; echo 'reveal_type(both)'; echo 'reveal_type(one_and_a_column)'; } >shown.py; "$folder/venv/bin/mypy" --strict shown.py)
ran=$("$folder/venv/bin/python" two.py 2>&1 || true)
printf 'mypy: %s\n%s\npython: %s\n' "$types" "$revealed" "$ran"
grep -q 'Success: no issues found' <<<"$types"
grep -q 'Select\[str, int\]"' <<<"$revealed"
grep -q 'Select\[str, int, int\]"' <<<"$revealed"
grep -q "('ada', 1, 1)" <<<"$ran"
grep -q 'ValueError: too many values to unpack (expected 2)' <<<"$ran"
