"""Calls billed by the minute, over HTTP: start, tick, end, receipt, and top-ups by a payment provider's webhook."""

import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field, SecretStr
from pydantic_settings import BaseSettings
from sqlalchemy import Executable, FromClause, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from oblivion_schema import call_sessions
from oblivion_schema.billing import CallMode, call_quote, end_call, explain_call, start_call, tick_call, top_up

# What the engine answers, by its status or PostgreSQL's SQLSTATE, as an HTTP status. All else is a success, or 500.
HTTP_STATUS: Final = {
    "short": 402,  # the balance does not cover it
    "not_billed": 402,  # the user has no account
    "unknown": 404,  # no such call, or somebody else's
    "ended": 409,  # the call had ended before
    "22003": 422,  # more tokens than an account can hold
    "22021": 422,  # a text with a character that PostgreSQL has not
    "22023": 422,  # an argument that the engine refuses
    "23503": 404,  # a top-up of an account that does not exist
    "23505": 409,  # a key that was used for something else
}


class Settings(BaseSettings):
    """The environment's variables of these names. Without the first two the service does not start."""

    database_url: str  # postgresql+asyncpg://...
    payment_secret: SecretStr = Field(min_length=32)
    user_tokens: dict[str, str] = {}  # by the SHA-256 of a bearer token, in hex: whose it is


class NewCall(BaseModel):
    """A call to start. The client makes up the key, and repeats it with a start whose answer was lost."""

    room_id: str = Field(min_length=1)
    mode: CallMode
    used_turn: bool = False
    client_key: str = Field(min_length=1, max_length=200)


class Payment(BaseModel):
    """What the payment provider posts. `id` is the payment's: the key by which it is credited once."""

    id: str = Field(min_length=1, max_length=200)
    user_id: str
    tokens: int = Field(gt=0, lt=2**31)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold the settings and the connections while the service runs."""
    app.state.settings = settings = Settings.model_validate({})
    app.state.engine = create_async_engine(settings.database_url, pool_pre_ping=True)
    yield
    await app.state.engine.dispose()


app = FastAPI(title="Calls", lifespan=lifespan)


@app.exception_handler(DBAPIError)
async def refused(_: Request, error: DBAPIError) -> JSONResponse:
    """Answer what the database refused because of what the client sent."""
    code = getattr(error.orig, "sqlstate", None)
    if code not in HTTP_STATUS:
        raise error
    return JSONResponse({"detail": f"SQLSTATE {code}"}, HTTP_STATUS[code])


async def rows(statement: Executable) -> list[dict[str, Any]]:
    """What one statement returns. It has a transaction of its own, so that its locks are free at once."""
    async with app.state.engine.begin() as connection:
        return [dict(row) for row in (await connection.execute(statement)).mappings()]


async def answer(function: FromClause, response: Response) -> dict[str, Any]:
    """The row that a function of the engine returns, sent with the HTTP status of its status."""
    [row] = await rows(select(function))
    response.status_code = HTTP_STATUS.get(row["status"], response.status_code)
    return row


def current_user(bearer: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
    """The user who asks. Replace this function by your own sign-in; as it is, it knows the users of USER_TOKENS."""
    digest = hashlib.sha256(bearer.credentials.encode()).hexdigest()
    user: str | None = app.state.settings.user_tokens.get(digest)
    if user is None:
        raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})
    return user


User = Annotated[str, Depends(current_user)]


async def own_call(call_id: UUID, user: User) -> UUID:
    """The call of the path, if it is the user's: the role of this service may tick and end everybody's."""
    its = call_sessions.c.id == call_id, call_sessions.c.user_id == user
    if not await rows(select(call_sessions.c.id).where(*its)):
        raise HTTPException(HTTP_STATUS["unknown"])
    return call_id


OwnCall = Annotated[UUID, Depends(own_call)]


async def signed(request: Request, x_signature: Annotated[str, Header()] = "") -> None:
    """Let nobody in but the payment provider: the header is the HMAC-SHA-256 of the body, in hex."""
    secret = app.state.settings.payment_secret.get_secret_value().encode()
    expected = hmac.new(secret, await request.body(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), x_signature.encode()):
        raise HTTPException(401)


@app.post("/calls", status_code=201)
async def start(call: NewCall, user: User, response: Response) -> dict[str, Any]:
    """Start a call, if the balance covers a minute of it."""
    quote = await answer(call_quote(user, call.mode, used_turn=call.used_turn), response)
    if quote["status"] != "ok":
        return quote
    return await answer(start_call(user, **call.model_dump()), response)


@app.post("/calls/{call_id}/tick")
async def tick(call_id: OwnCall, response: Response) -> dict[str, Any]:
    """Bill the minutes that have started: every 30 s. The client ends a call that is answered with 402."""
    return await answer(tick_call(call_id), response)


@app.post("/calls/{call_id}/end")
async def end(call_id: OwnCall) -> dict[str, Any]:
    """End a call. A repetition changes nothing, so every status is a success: the call has ended."""
    [row] = await rows(select(end_call(call_id)))
    return row


@app.get("/calls/{call_id}/receipt")
async def receipt(call_id: OwnCall) -> list[dict[str, Any]]:
    """What a call has cost: a row for each span of minutes at one rate."""
    return await rows(select(explain_call(call_id)))


@app.post("/payments", dependencies=[Depends(signed)])
async def pay(payment: Payment, response: Response) -> dict[str, Any]:
    """Credit a payment. The provider may repeat it as often as it likes."""
    return await answer(top_up(payment.user_id, payment.tokens, payment.id), response)
