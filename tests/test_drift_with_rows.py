"""Drift: what a revision does to rows, to the numbers of identities, and to what roles passed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from support import declared

from oblivion_schema import metadata, operations
from oblivion_schema.deploy import upgrade as migrate
from oblivion_schema.drift.compare import Drift, find_drift
from oblivion_schema.drift.plan import Call, File, in_the_way

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Engine

    from oblivion_schema.drift.plan import Statement

pytestmark = pytest.mark.server

REVISIONS = ScriptDirectory.from_config(migrate.config())


@pytest.fixture
def connection(shared_engine: Engine) -> Iterator[Connection]:
    """A transaction as an Alembic run has it, rolled back."""
    with shared_engine.connect() as connection:
        connection.execute(text("SET LOCAL search_path = public"))
        yield connection


def drift(connection: Connection, before: str, after: str) -> Drift:
    """From a database with `before` to a metadata with `before` and `after`."""
    run(connection, [before])
    return to(connection, before, after)


def to(connection: Connection, before: str, after: str) -> Drift:
    with declared(before, after):
        scratch = MigrationContext.configure(connection=connection)
        return find_drift(connection, scratch, metadata, REVISIONS, drop_unknown=True)


def to_keeping_what_is_unknown(connection: Connection) -> Drift:
    return find_drift(connection, MigrationContext.configure(connection=connection), metadata, REVISIONS)


def run(connection: Connection, statements: Sequence[Statement]) -> None:
    with Operations.context(MigrationContext.configure(connection=connection)):
        for statement in statements:
            if isinstance(statement, Call):
                getattr(operations, statement.function)(*statement.arguments)
            else:
                sql = statement.text if isinstance(statement, File) else statement
                connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


def refused(connection: Connection, statements: Sequence[Statement]) -> str:
    with pytest.raises(DBAPIError) as error, connection.begin_nested():
        run(connection, statements)
    return str(error.value.orig)


PLAIN = "CREATE TABLE spots (id integer, twice integer)"
STORED = "ALTER TABLE spots DROP twice, ADD twice integer GENERATED ALWAYS AS (2 * id) STORED"


def test_column_with_values_becomes_generated_only_when_told(connection: Connection) -> None:
    found = drift(connection, PLAIN, STORED)
    run(connection, ["INSERT INTO spots VALUES (1, 7)"])
    assert "public.spots holds values in twice, which would be dropped" in refused(connection, found.upgrade())
    run(connection, ["SET LOCAL oblivion.drop_data = 'yes'", *found.upgrade()])
    assert connection.scalar(text("SELECT twice FROM spots")) == 2


def test_generated_column_becomes_plain_and_keeps_its_values(connection: Connection) -> None:
    before = f"{PLAIN}; {STORED}"
    found = drift(connection, before, "ALTER TABLE spots ALTER twice DROP EXPRESSION, ALTER twice TYPE bigint")
    run(connection, ["INSERT INTO spots VALUES (1)", *found.upgrade()])
    assert connection.scalar(text("SELECT twice FROM spots")) == 2
    assert "holds values in twice" in refused(connection, found.downgrade())


def test_virtual_column_becomes_plain_only_when_told(connection: Connection) -> None:
    if (connection.dialect.server_version_info or ()) < (18,):
        pytest.skip("PostgreSQL has no virtual columns before 18")
    before = "CREATE TABLE spots (id integer, twice integer GENERATED ALWAYS AS (2 * id) VIRTUAL)"
    found = drift(connection, before, "ALTER TABLE spots DROP twice, ADD twice integer")
    run(connection, ["INSERT INTO spots VALUES (1)"])
    assert "holds values in twice" in refused(connection, found.upgrade())


def test_changed_expression_is_computed_for_old_rows(connection: Connection) -> None:
    found = drift(connection, f"{PLAIN}; {STORED}", STORED.replace("2 * id", "id + 2"))
    run(connection, ["INSERT INTO spots VALUES (7)", *found.upgrade()])
    assert connection.scalar(text("SELECT twice FROM spots")) == 9
    run(connection, found.downgrade())
    assert connection.scalar(text("SELECT twice FROM spots")) == 14


IDENTITY = "CREATE TABLE numbers (id integer GENERATED ALWAYS AS IDENTITY, note text)"


@pytest.mark.parametrize(
    ("change", "used", "numbers"),
    [
        ("SET START 1000 SET MINVALUE 1000 RESTART", 0, [1000]),
        ("SET START 1000 SET MINVALUE 1000 RESTART", 2, [1, 2, 1000]),
        ("SET START 1000", 2, [1, 2, 3]),
        ("SET START 1000", 0, [1000]),
        ("SET START -1 SET INCREMENT -1 SET NO MINVALUE SET NO MAXVALUE RESTART", 2, [1, 2, -1]),
        ("SET MAXVALUE 2", 1, [1, 2]),
    ],
)
@pytest.mark.few(change=(1, 4))
def test_identity_hands_out_no_number_twice(connection: Connection, change: str, used: int, numbers: list[int]) -> None:
    found = drift(connection, IDENTITY, f"ALTER TABLE numbers ALTER id {change}")
    run(connection, ["INSERT INTO numbers (note) VALUES ('')"] * used)
    run(connection, [*found.upgrade(), "INSERT INTO numbers (note) VALUES ('')"])
    assert connection.scalars(text("SELECT id FROM numbers ORDER BY ctid")).all() == numbers


def test_identity_that_would_hand_out_numbers_twice_is_refused(connection: Connection) -> None:
    found = drift(connection, IDENTITY, "ALTER TABLE numbers ALTER id SET MAXVALUE 2")
    run(connection, ["INSERT INTO numbers (note) VALUES ('')"] * 5)
    assert "cannot be greater than MAXVALUE (2)" in refused(connection, found.upgrade())


@pytest.mark.parametrize("grantor", ["service_role", "reporter"])
@pytest.mark.parametrize("option", ["", " WITH GRANT OPTION"])
@pytest.mark.few(grantor="reporter", option=1)
def test_what_a_role_passed_on_is_taken_back(connection: Connection, grantor: str, option: str) -> None:
    if grantor == "reporter":
        run(connection, ["CREATE ROLE reporter", "GRANT USAGE ON SCHEMA public TO reporter"])
    own = "SELECT (id), UPDATE"
    run(
        connection,
        [
            "GRANT anon TO CURRENT_USER",
            f"GRANT {own} ON call_sessions TO {grantor} WITH GRANT OPTION",
            f"SET LOCAL ROLE {grantor}",
            f"GRANT {own} ON call_sessions TO anon{option}",
            *(["SET LOCAL ROLE anon", "GRANT UPDATE ON call_sessions TO authenticated"] if option else ()),
            "RESET ROLE",
        ],
    )
    found = to(connection, "", "")
    assert "grant UPDATE on table public.call_sessions to anon differs" in " ".join(map(repr, found.differences))
    run(connection, found.upgrade())
    assert to(connection, "", "").differences == ()
    kept = connection.scalar(
        text("SELECT has_table_privilege(:role, 'call_sessions', 'UPDATE WITH GRANT OPTION')"), {"role": grantor}
    )
    assert kept == (grantor == "reporter")


@pytest.mark.parametrize(
    ("theirs", "blocker"),
    [
        ("CREATE MATERIALIZED VIEW theirs AS SELECT email FROM user_accounts", "materialized view public.theirs"),
        ("CREATE RULE theirs AS ON UPDATE TO call_sessions DO ALSO SELECT email FROM user_accounts", "rule theirs on"),
        ("CREATE VIEW other.theirs AS SELECT email FROM user_accounts", "view other.theirs"),
        (
            "CREATE POLICY theirs ON other.t USING (EXISTS (SELECT email FROM user_accounts))",
            "policy theirs on table other.t",
        ),
        (
            "CREATE FUNCTION other.theirs() RETURNS text RETURN (SELECT max(email) FROM user_accounts)",
            "function other.theirs()",
        ),
        (
            "CREATE PUBLICATION theirs FOR TABLE user_accounts WHERE (email <> '')",
            "publication of table public.user_accounts in publication theirs",
        ),
    ],
)
@pytest.mark.few(theirs=(0, 4))
def test_whatever_stands_in_the_way_is_named(connection: Connection, theirs: str, blocker: str) -> None:
    run(connection, ["CREATE SCHEMA other", "CREATE TABLE other.t ()", theirs])
    found = to(connection, "", "ALTER TABLE user_accounts ALTER email TYPE varchar(99)")
    blocked = [str(item) for item in in_the_way(found.steps, found.others)]
    assert [name for name in blocked if name.startswith(blocker)], (blocked, found.steps and found.upgrade())


def test_index_of_a_setting_that_somebody_dropped_is_named(connection: Connection) -> None:
    run(
        connection,
        [
            "CREATE UNIQUE INDEX mine ON call_sessions (id)",
            "ALTER TABLE call_sessions REPLICA IDENTITY USING INDEX mine",
            "DROP INDEX mine",
        ],
    )
    found = to(connection, "", "")
    assert [*map(repr, found.differences)] == [
        "setting replica identity on public.call_sessions is not in the metadata"
    ]
    run(connection, found.upgrade())
    assert to(connection, "", "").differences == ()
    run(connection, found.downgrade())


def test_other_roles_keep_their_privileges_on_columns_that_are_made_again(connection: Connection) -> None:
    run(connection, ["CREATE ROLE reporter"])
    before = f"{PLAIN}; {STORED}; CREATE VIEW seen AS SELECT id FROM spots"
    run(connection, [before, "GRANT SELECT (twice) ON spots TO reporter; GRANT SELECT (id) ON seen TO reporter"])
    after = (
        f"DROP VIEW seen; {STORED.replace('2 * id', '3 * id')} UNIQUE; CREATE VIEW seen AS SELECT twice, id FROM spots"
    )
    found = to(connection, before, after)
    run(connection, found.upgrade())
    rights = text("SELECT has_column_privilege('reporter', :table, :column, 'SELECT')")
    for table, column in (("spots", "twice"), ("seen", "id")):
        assert connection.scalar(rights, {"table": table, "column": column})


def test_new_identity_goes_on_after_the_rows(connection: Connection) -> None:
    before = "CREATE TABLE numbers (id integer NOT NULL, note text)"
    found = drift(connection, before, "ALTER TABLE numbers ALTER id ADD GENERATED BY DEFAULT AS IDENTITY")
    run(connection, ["INSERT INTO numbers VALUES (1), (7)", *found.upgrade(), "INSERT INTO numbers (note) VALUES ('')"])
    assert connection.scalars(text("SELECT id FROM numbers ORDER BY ctid")).all() == [1, 7, 8]
    run(connection, [*found.downgrade(), *found.upgrade(), "INSERT INTO numbers (note) VALUES ('')"])
    assert connection.scalar(text("SELECT max(id) FROM numbers")) == 9


def test_column_that_somebody_renamed_gets_its_name_back_with_its_values(connection: Connection) -> None:
    run(connection, ["ALTER TABLE user_accounts RENAME COLUMN email TO address"])
    found = to(connection, "", "")
    assert "ALTER TABLE public.user_accounts RENAME COLUMN address TO email" in "".join(map(str, found.upgrade()))
    run(connection, found.upgrade())
    assert to(connection, "", "").differences == ()


def test_whatever_has_the_name_of_a_new_object_is_named(connection: Connection) -> None:
    run(connection, ["ALTER TABLE user_presence RENAME TO presence"])
    found = to_keeping_what_is_unknown(connection)
    blocked = {str(item) for item in in_the_way(found.steps, found.others)}
    assert "primary key user_presence_pkey on public.presence" in blocked


def test_widened_types_carry_no_warning(connection: Connection) -> None:
    before = "CREATE TABLE t (a varchar(9), b numeric(9,2), c timestamp(3), d uuid, e integer[], f integer)"
    found = drift(
        connection,
        before,
        "ALTER TABLE t ALTER a TYPE varchar(20), ALTER b TYPE numeric(12,2), ALTER c TYPE timestamp(0),"
        " ALTER d TYPE text, ALTER e TYPE bigint[], ALTER f TYPE bigint",
    )
    assert "-- Fails" not in "".join(map(str, found.upgrade()))
    assert "-- Fails" in "".join(map(str, found.downgrade()))


def test_replaced_function_names_what_it_computed(connection: Connection) -> None:
    function = "CREATE OR REPLACE FUNCTION norm(t text) RETURNS text LANGUAGE sql IMMUTABLE RETURN {}(t)"
    before = f"{function.format('lower')}; CREATE TABLE t (a text); CREATE INDEX t_norm ON t (norm(a))"
    found = drift(connection, before, function.format("upper"))
    assert "-- Computed by the old function, and not anew: index public.t_norm on public.t." in "".join(
        statement.text if isinstance(statement, File) else str(statement) for statement in found.upgrade()
    )


def test_other_roles_keep_what_they_may_do_with_a_procedure_and_lose_a_lost_column(connection: Connection) -> None:
    run(connection, ['CREATE ROLE "it\'s"'])
    before = """
        CREATE PROCEDURE act(a integer) LANGUAGE sql AS 'SELECT 1';
        CREATE VIEW "50%" AS SELECT 1 AS a, 2 AS b;
        CREATE VIEW "it's" AS SELECT a, b FROM "50%"
    """
    run(
        connection,
        [before, 'GRANT EXECUTE ON PROCEDURE act TO "it\'s"; GRANT SELECT (a), SELECT (b) ON "50%" TO "it\'s"'],
    )
    after = """
        DROP PROCEDURE act; CREATE PROCEDURE act(b integer) LANGUAGE sql AS 'SELECT 1';
        DROP VIEW "it's"; DROP VIEW "50%"; CREATE VIEW "50%" AS SELECT 1 AS a; CREATE VIEW "it's" AS SELECT a FROM "50%"
    """
    found = to(connection, before, after)
    run(connection, found.upgrade())
    kept = connection.execute(
        text(
            """
            SELECT has_function_privilege('it''s', 'act(integer)', 'EXECUTE'),
              has_column_privilege('it''s', '"50%"', 'a', 'SELECT')
            """
        )
    ).one()
    assert kept == (True, True)
    run(connection, found.downgrade())


def test_page_billing_that_is_neither_becomes_what_check_says(connection: Connection) -> None:
    run(
        connection,
        ["CREATE OR REPLACE FUNCTION oblivion.page_billing() RETURNS text LANGUAGE sql IMMUTABLE RETURN 'foo'::text"],
    )
    found = to(connection, "", "")
    [difference] = [item for item in found.differences if item.kind == "function"]
    run(connection, found.upgrade())
    said = connection.scalar(text("SELECT oblivion.page_billing()"))
    assert f"RETURN '{said}'::text" in difference.metadata
    assert to(connection, "", "").differences == ()


def test_identity_whose_sequence_has_another_name_keeps_its_numbers(connection: Connection) -> None:
    run(connection, [IDENTITY, *["INSERT INTO numbers (note) VALUES ('')"] * 3])
    run(connection, ["ALTER SEQUENCE numbers_id_seq RENAME TO odd"])
    found = to(connection, IDENTITY, "ALTER TABLE numbers ALTER id SET CACHE 7")
    run(connection, [*found.upgrade(), "INSERT INTO numbers (note) VALUES ('')"])
    assert connection.scalar(text("SELECT max(id) FROM numbers")) == 4


def test_parent_that_somebody_gave_a_table_of_ours_stands_in_the_way(connection: Connection) -> None:
    run(connection, ["CREATE TABLE parent (i integer)", "ALTER TABLE user_presence ADD i integer, INHERIT parent"])
    found = to(connection, "", "")
    blocked = [str(item) for item in in_the_way(found.steps, found.others)]
    assert blocked == ["inheritance of public.user_presence from public.parent"]


def test_new_reference_row_says_that_users_may_have_its_key(connection: Connection) -> None:
    found = to(connection, "", "INSERT INTO token_rates VALUES ('video', true, '2027-01-01 00:00+00', 7)")
    assert "-- Fails if users have a row with such a key.\nINSERT INTO" in "".join(map(str, found.upgrade()))
