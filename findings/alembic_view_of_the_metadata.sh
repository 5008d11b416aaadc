#!/usr/bin/env bash
# Alembic 1.20.1: autogenerate makes a table of each view that the metadata declares with SQLAlchemy 2.1's CreateView.
#
# MetaData.tables has a view beside the tables, and Table.is_view tells it from them. Alembic takes all of them for
# tables, but reads the names of tables alone from the database. So `alembic check` is never clean while the view is
# there as declared, and the revision has op.create_table() for it: on a new database a table takes the view's place.
# include_object=lambda item, *_: not getattr(item, "is_view", False) leaves views out.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q 'alembic==1.20.1' 'sqlalchemy==2.1.9'
"$folder/venv/bin/python" - <<'PYTHON'
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.migration import MigrationContext
from sqlalchemy import Column, CreateView, Integer, MetaData, Table, create_engine, inspect, select

metadata = MetaData()
calls = Table("calls", metadata, Column("id", Integer, primary_key=True))
CreateView(select(calls.c.id), "active_calls", metadata=metadata)
with create_engine("sqlite://").connect() as connection:
    metadata.create_all(connection)
    assert inspect(connection).get_view_names() == ["active_calls"]
    found = compare_metadata(MigrationContext.configure(connection), metadata)
    print("check, right after create_all():", found)
    assert [(change, item.name) for change, item in found] == [("add_table", "active_calls")]
    context = MigrationContext.configure(connection)
    source = render_python_code(produce_migrations(context, metadata).upgrade_ops)
    print(source)
    assert "op.create_table('active_calls'" in source and "VIEW" not in source
    options = {"include_object": lambda item, *_: not getattr(item, "is_view", False)}
    assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
PYTHON
