"""The service on a database of each test's own, by the fixtures of oblivion_schema's pytest plugin."""

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError
from service import app
from sqlalchemy import URL

SECRET = "only for these tests, 32 characters or more"
MINE, THEIRS = {"Authorization": "Bearer of ada"}, {"Authorization": "Bearer of bob"}
CALL = {"room_id": "lobby", "mode": "video", "client_key": "made up by the page"}


@pytest.fixture
def client(
    monkeypatch: pytest.MonkeyPatch, oblivion_async_url: URL, oblivion_account: Callable[..., str]
) -> Iterator[TestClient]:
    """The service, and the accounts of two users."""
    for user in ("ada", "bob"):
        oblivion_account(user, tokens=10)
    tokens = {hashlib.sha256(f"of {user}".encode()).hexdigest(): user for user in ("ada", "bob")}
    monkeypatch.setenv("DATABASE_URL", oblivion_async_url.render_as_string(hide_password=False))
    monkeypatch.setenv("PAYMENT_SECRET", SECRET)
    monkeypatch.setenv("USER_TOKENS", json.dumps(tokens))
    with TestClient(app, headers=MINE) as client:
        yield client


def paid(client: TestClient, secret: str = SECRET, **payment: Any) -> tuple[int, Any]:
    """How the service answers the webhook of a payment."""
    body = json.dumps(payment).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-Signature": signature, "Content-Type": "application/json"}
    answered = client.post("/payments", content=body, headers=headers)
    return answered.status_code, answered.json()


def test_each_started_minute_is_billed(client: TestClient, oblivion_pass_time: Callable[..., None]) -> None:
    started = client.post("/calls", json=CALL)
    assert (started.status_code, started.json()["minutes_left"]) == (201, 5)
    call = started.json()["session_id"]
    assert client.post("/calls", json=CALL).json()["session_id"] == call
    charged = []
    for _ in range(3):
        oblivion_pass_time(call, seconds=50)
        charged.append(client.post(f"/calls/{call}/tick").json()["charged"])
    assert charged == [2, 2, 2]
    ended = client.post(f"/calls/{call}/end")
    assert (ended.status_code, ended.json()["minutes_billed"], ended.json()["balance"]) == (200, 3, 4)
    assert [(row["minutes"], row["charged"]) for row in client.get(f"/calls/{call}/receipt").json()] == [(3, 6)]
    assert client.post(f"/calls/{call}/end").json()["status"] == "ended"
    assert client.post(f"/calls/{call}/tick").status_code == 409
    assert client.post("/calls", json=CALL).status_code == 409


def test_empty_balance_is_402(client: TestClient, oblivion_pass_time: Callable[..., None]) -> None:
    call = client.post("/calls", json=CALL).json()["session_id"]
    oblivion_pass_time(call, minutes=5.5)
    ticked = client.post(f"/calls/{call}/tick")
    assert (ticked.status_code, ticked.json()["charged"], ticked.json()["shortfall"]) == (402, 10, 2)
    refused = client.post("/calls", json=CALL | {"client_key": "another"})
    assert (refused.status_code, "session_id" in refused.json()) == (402, False)
    assert paid(client, id="payment 1", user_id="ada", tokens=10)[0] == 200
    assert client.post("/calls", json=CALL | {"client_key": "another"}).status_code == 201


def test_user_without_an_account_is_402(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.state.settings, "user_tokens", {hashlib.sha256(b"of ada").hexdigest(): "nobody"})
    refused = client.post("/calls", json=CALL)
    assert (refused.status_code, refused.json()["status"]) == (402, "not_billed")


def test_call_of_somebody_else_and_unknown_call_are_404(client: TestClient) -> None:
    theirs = client.post("/calls", json=CALL, headers=THEIRS).json()["session_id"]
    for call in (theirs, uuid4()):
        assert client.post(f"/calls/{call}/tick").status_code == 404
        assert client.post(f"/calls/{call}/end").status_code == 404
        assert client.get(f"/calls/{call}/receipt").status_code == 404
    assert client.post(f"/calls/{theirs}/tick", headers=THEIRS).status_code == 200


def test_payment_is_credited_once(client: TestClient) -> None:
    answers = [paid(client, id="payment 1", user_id="ada", tokens=90) for _ in range(2)]
    assert [(status, row["status"], row["balance"]) for status, row in answers] == [
        (200, "ok", 100),
        (200, "known", 100),
    ]
    assert paid(client, id="payment 1", user_id="ada", tokens=91) == (409, {"detail": "SQLSTATE 23505"})


@pytest.mark.parametrize(
    ("payment", "status"),
    [
        ({"user_id": "nobody"}, 404),
        ({"tokens": 2**31 - 1}, 422),
        ({"tokens": 0}, 422),
        ({"user_id": "a\0da"}, 422),
    ],
)
def test_payment_that_cannot_be_credited_is_refused(client: TestClient, payment: dict[str, Any], status: int) -> None:
    whole: dict[str, Any] = {"id": "payment 1", "user_id": "ada", "tokens": 1, **payment}
    assert paid(client, **whole)[0] == status


def test_payment_without_the_providers_signature_is_401(client: TestClient) -> None:
    payment: dict[str, Any] = {"id": "payment 1", "user_id": "ada", "tokens": 90}
    assert paid(client, "somebody else's", **payment)[0] == 401
    assert client.post("/payments", json=payment).status_code == 401
    assert client.post("/payments", json=payment, headers=[(b"X-Signature", b"\xe9")]).status_code == 401
    assert client.post("/calls", json=CALL).json()["balance"] == 10


@pytest.mark.parametrize("header", [{"Authorization": ""}, {"Authorization": "Bearer of nobody"}])
def test_stranger_is_401(client: TestClient, header: dict[str, str]) -> None:
    assert client.post("/calls", json=CALL, headers=header).status_code == 401
    assert client.post(f"/calls/{uuid4()}/tick", headers=header).status_code == 401


@pytest.mark.parametrize("secret", [None, "", "short"])
def test_service_does_not_start_without_a_secret(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, secret: str | None
) -> None:
    monkeypatch.delenv("PAYMENT_SECRET")
    if secret is not None:
        monkeypatch.setenv("PAYMENT_SECRET", secret)
    with pytest.raises(ValidationError, match="payment_secret"), TestClient(client.app):
        pass
