"""What the revisions make is built once for each kind of database, and not for each comparison.

`made_by_revisions` builds all of it in a stand-in, which is rolled back, and reads it: what comes of that depends on
the files of the revisions, on who builds, and on what the schemas and their grants depend on. The rest of a comparison
is done each time.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from oblivion_schema.declare.ddl import reference_tables
from oblivion_schema.drift.standin import made_by_revisions as build

if TYPE_CHECKING:
    import pytest
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection, MetaData

    from oblivion_schema.drift.catalog import Catalog

_BUILDER = text(
    """
    SELECT current_user, current_setting('server_version_num'), d.datdba::regrole::text,
      current_setting('is_superuser'),
      current_setting('oblivion.drop_data', true), current_setting('oblivion.demo', true),
      ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') ORDER BY 1),
      ARRAY(SELECT concat(pubname, puballtables) FROM pg_publication ORDER BY 1),
      ARRAY(SELECT concat(defaclrole::regrole, defaclnamespace::regnamespace, defaclobjtype, defaclacl)
        FROM pg_default_acl ORDER BY 1),
      ARRAY(SELECT evtname::text FROM pg_event_trigger ORDER BY 1)
    FROM pg_database AS d WHERE d.datname = current_database()
    """
)


def _files(revisions: ScriptDirectory) -> str:
    """The revisions, with the SQL beside them."""
    digest = hashlib.sha256()
    for folder in sorted({Path(str(script.path)).parent for script in revisions.walk_revisions()}):
        for path in sorted(path for path in folder.rglob("*") if path.suffix in {".py", ".sql"}):
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def build_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember in this process what `made_by_revisions` gave."""
    known: dict[object, Catalog] = {}

    def made_by_revisions(
        scratch: MigrationContext, metadata: MetaData, revisions: ScriptDirectory, mode: Any
    ) -> Catalog:
        connection: Connection | None = scratch.connection
        assert connection is not None
        builder = tuple(map(str, connection.execute(_BUILDER).one()))
        rows = {str(table): tuple(names) for table, names in reference_tables(metadata).items()}
        key = (builder, mode, _files(revisions), str(rows))
        if key not in known:
            known[key] = build(scratch, metadata, revisions, mode)
        return known[key]

    monkeypatch.setattr("oblivion_schema.drift.reading.made_by_revisions", made_by_revisions)
