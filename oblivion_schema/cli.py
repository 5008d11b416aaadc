"""`oblivion-schema`: Alembic's command line on the packaged revisions, and four commands beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from alembic.config import CommandLine, Config

from . import embedded, migrate, url
from .environment import Options
from .errors import UserError
from .verify import verify as run_checks

if TYPE_CHECKING:
    from collections.abc import Sequence


def psql(config: Config, arguments: Sequence[str]) -> None:
    """Open the database with psql, which gets all further arguments."""
    program = shutil.which("psql") or embedded.binary("psql")
    if program is None:
        raise UserError("No psql here: install PostgreSQL's client, or oblivion-schema[embedded].")
    # In the environment: other users can read a process's arguments, password and all.
    sys.exit(
        subprocess.run(  # noqa: S603 - what runs is psql, and what it is told is its user's to say
            [program, *arguments], env=os.environ | _libpq_environment(_database(config)), check=False
        ).returncode
    )


def verify(config: Config) -> None:
    """Check that the database holds what the schema documents, a line each; exit status 1 when any fails."""
    with _database(config).connect() as connection:
        failed = 0
        for check in run_checks(connection):
            failed += not check.passed
            config.print_stdout(str(check))
    if failed:
        sys.exit(1)


def stop(config: Config) -> None:
    """Stop the embedded PostgreSQL; its data stays."""
    directory = embedded.data_directory()
    stopped = embedded.is_installed() and embedded.stop(directory)
    config.print_stdout(f"{'Stopped' if stopped else 'Not running'}: embedded PostgreSQL in {directory}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exits with a status other than 0, and one line on stderr, where a command fails."""
    line = CommandLine(prog="oblivion-schema")
    line.register_command(verify)
    line.register_command(stop)
    # No prefix makes an option here: all that follows is psql's.
    open_psql = line.subparsers.add_parser("psql", help=psql.__doc__, add_help=False, prefix_chars="\0")
    open_psql.add_argument("arguments", nargs="*")
    open_psql.set_defaults(cmd=(psql, ["arguments"], []))

    options = line.parser.parse_args(argv)
    if not hasattr(options, "cmd"):
        line.parser.error("too few arguments")
    line.run_cmd(migrate.config(options), options)


def _database(config: Config) -> url.Database:
    options = Options.from_config(config)
    return url.find_or_start(options.url, config.get_main_option("sqlalchemy.url"), os.environ)


def _libpq_environment(database: url.Database) -> dict[str, str]:
    found = database.url
    named = {
        "PGHOST": found.host,
        "PGPORT": found.port and str(found.port),
        "PGUSER": found.username,
        "PGPASSWORD": found.password,
        "PGDATABASE": found.database,
    }
    options = {f"PG{key.upper()}": value for key, value in found.query.items() if isinstance(value, str)}
    return {name: value for name, value in (named | options).items() if value}
