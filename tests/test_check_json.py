"""`check --json`: one JSON object on stdout, which says what `check` says, and an exit status for each outcome."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from support import REVISIONS, dump, execute, run
from test_drift import FIRST_OF_EACH_KIND, MUTATIONS, Mutation, ids

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL

KEYS: Final = {
    "status": str,
    "revision": str,
    "access": str,
    "differences": list,
    "kept": list,
    "left_alone": list,
    "missing_roles": list,
}
CHANGES: Final = {"missing", "different", "renamed", "extra", "unknown"}


def document(out: str) -> dict[str, Any]:
    """The document, once it has the form that docs/drift.md describes."""
    found: dict[str, Any] = json.loads(out)
    assert {key: type(value) for key, value in found.items()} == KEYS
    assert found["status"] == ("differs" if found["differences"] else "same")
    assert found["revision"] == REVISIONS[-1]
    assert found["access"] in {"open", "authenticated"}
    for names in (found["kept"], found["left_alone"], found["missing_roles"]):
        assert all(isinstance(name, str) and name for name in names)
    for difference in found["differences"]:
        assert set(difference) == {"change", "kind", "name", "metadata", "database"}
        assert difference["change"] in CHANGES
        assert isinstance(difference["name"], str)
        assert all(value is None or (isinstance(value, str) and value) for value in difference.values())
    assert set(found["kept"]) <= {f"{difference['kind']} {difference['name']}" for difference in found["differences"]}
    return found


def said(difference: dict[str, Any]) -> str:
    """The difference as `check` names it."""
    says = {
        "missing": "is missing",
        "different": "differs",
        "renamed": f"is {difference['metadata']} in the metadata",
        "extra": "is not in the metadata",
        "unknown": "is in neither the metadata nor a revision",
    }
    return " ".join(filter(None, (difference["kind"], difference["name"], says[difference["change"]])))


def test_no_difference_is_status_0(upgraded: URL) -> None:
    result = run("check", "--json", url=upgraded)
    assert (result.status, result.err) == (0, "")
    found = document(result.out)
    assert (found["differences"], found["kept"], found["left_alone"]) == ([], [], [])
    assert run("-q", "check", "--json", url=upgraded).out == result.out


# Alone, and of what belongs to this database.
A_FEW: Final = [
    mutation
    for mutation in MUTATIONS
    if str(mutation) in FIRST_OF_EACH_KIND
    and not f"{mutation.once}{mutation.setup}".strip()
    and mutation.kind not in {"schema", "reference row"}
][::2]


@pytest.mark.parametrize("mutation", A_FEW, ids=ids(A_FEW))
@pytest.mark.few(mutation=(0, 5, 10))
@pytest.mark.server
def test_differences_are_those_that_check_names(upgraded: URL, mutation: Mutation) -> None:
    execute(upgraded, mutation.sql)
    before = dump(upgraded)
    result = run("check", "--json", url=upgraded)
    assert result.err == ""
    found = document(result.out)
    assert result.status == int(found["status"] == "differs")
    named = [*(difference["name"] for difference in found["differences"]), *found["left_alone"]]
    assert any(mutation.name in name for name in named), found
    lines = run("check", url=upgraded)
    assert lines.status == result.status
    if found["differences"]:
        assert f"[{', '.join(map(said, found['differences']))}]" in lines.err
    assert dump(upgraded) == before


def test_what_is_not_ours_is_left_alone_and_what_is_unknown_is_kept(upgraded: URL) -> None:
    execute(upgraded, "CREATE TABLE theirs (id integer)")
    result = run("check", "--json", url=upgraded)
    assert (result.status, document(result.out)["left_alone"]) == (0, ["table public.theirs"])
    execute(upgraded, "CREATE INDEX odd ON token_usage (mode)")
    result = run("check", "--json", url=upgraded)
    assert (result.status, document(result.out)["kept"]) == (1, ["index public.odd on public.token_usage"])


def test_database_that_is_only_read_gets_the_same_document(upgraded: URL, new_database: Callable[..., URL]) -> None:
    execute(upgraded, "ALTER TABLE token_usage ALTER duration_seconds SET DEFAULT 60")
    here = run("check", "--json", url=upgraded)
    against, scratch = (url.render_as_string(hide_password=False) for url in (upgraded, new_database()))
    there = run("check", "--json", "--against", against, "--scratch", scratch)
    assert (there.status, there.out, there.err) == (1, here.out, "")


def test_error_is_status_2_with_one_line_and_no_document(empty: URL, upgraded: URL) -> None:
    refused = [
        run("check", "--json", url="postgresql://nobody@127.0.0.1:1/nothing"),
        run("check", "--json", url=empty),
        run("check", "--json", "--sql", url=upgraded),
        run("check", "--json", "--against", "nonsense"),
        run("-x", "demo=maybe", "check", "--json", url=upgraded),
    ]
    assert [(result.status, result.out) for result in refused] == [(2, "")] * len(refused)
    assert all(result.error for result in refused)
    assert "check --sql --json: say one of them." in refused[2].error
