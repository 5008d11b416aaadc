#!/usr/bin/env bash
# pytest-alembic 0.13.1 on pytest 9.2.0: `pytest --test-alembic` collects nothing, and ends with an AttributeError.
#
# Its collector appends to the private attribute `_nodeid` of pytest's node, which pytest 9.2.0 no longer has. Its
# metadata asks for no upper bound of pytest, so both are installed together. On pytest 9.0.3 the same folder gives its
# four tests. Importing the four functions from pytest_alembic.tests, with pytest_alembic_enabled set to nothing, works
# on both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
install() { "$folder/venv/bin/pip" install -q --no-warn-conflicts "$@"; }
install 'pytest==9.2.0' 'pytest-alembic==0.13.1' 'alembic==1.20.1' 'sqlalchemy==2.1.9'
mkdir -p "$folder/project/tests"
cd "$folder/project"
"$folder/venv/bin/alembic" init migrations >/dev/null
touch tests/conftest.py
collect() { "$folder/venv/bin/pytest" -q --collect-only --test-alembic 2>&1 || true; }
new=$(collect | grep -E "^E  |error")
install 'pytest==9.0.3'
old=$(collect | grep -E "::|collected")
printf 'pytest-alembic 0.13.1 on pytest 9.2.0:\n%s\non pytest 9.0.3:\n%s\n' "$new" "$old"
grep -q "AttributeError: 'TestCollector' object has no attribute '_nodeid'" <<<"$new"
[ "$(grep -c '::pytest-alembic::' <<<"$old")" = 4 ]
