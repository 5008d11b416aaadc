#!/usr/bin/env bash
# paracelsus 0.15.0 with SQLAlchemy 2.1.9: a foreign key that is one column of a composite primary key.
#
# A row of `segment` is known by its call and its number, so a call has many segments. paracelsus takes each column of
# the composite key for unique, and draws the relation as one to none-or-one (||--o|). The Mermaid notation for what the
# metadata says is one to none-or-many (||--o{). With a surrogate key beside the same foreign key it draws that.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q 'paracelsus==0.15.0' 'sqlalchemy==2.1.9'
"$folder/venv/bin/python" - <<'END'
from importlib.metadata import version

from paracelsus.transformers.mermaid import Mermaid
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table


def relation(*columns: Column) -> str:
    metadata = MetaData()
    Table("call", metadata, Column("id", Integer, primary_key=True))
    Table("segment", metadata, *columns)
    drawn = str(Mermaid(metadata, "preserve-order"))
    return next(line.strip() for line in drawn.splitlines() if "--" in line)


composite = relation(
    Column("call_id", ForeignKey("call.id"), primary_key=True), Column("number", Integer, primary_key=True)
)
surrogate = relation(Column("id", Integer, primary_key=True), Column("call_id", ForeignKey("call.id"), nullable=False))
print(f"paracelsus {version('paracelsus')}, SQLAlchemy {version('sqlalchemy')}")
print("composite key:", composite)
print("surrogate key:", surrogate)
assert composite == "call ||--o| segment : call_id", composite
assert surrogate == "call ||--o{ segment : call_id", surrogate
END
