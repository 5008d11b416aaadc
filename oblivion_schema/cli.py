"""`oblivion-schema`: Alembic's command line on the package's revisions, with a few more commands.

The docstring of a command is its help text.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from argparse import REMAINDER, ArgumentParser
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from alembic.config import CommandLine, Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from oblivion_schema import __version__, progress
from oblivion_schema.adoption.inspection import inspect as run_inspection
from oblivion_schema.adoption.preparation import run as run_steps
from oblivion_schema.adoption.preparation import script as script_of
from oblivion_schema.adoption.preparation import steps
from oblivion_schema.adoption.report import Finding
from oblivion_schema.commands.maintenance import Tally, at_most, duration, reasons
from oblivion_schema.commands.maintenance import burn as run_burn
from oblivion_schema.commands.maintenance import reap as run_reap
from oblivion_schema.commands.maintenance import settle as run_settle
from oblivion_schema.commands.pages import number_of_days
from oblivion_schema.commands.pages import report as report_on_pages
from oblivion_schema.deploy import upgrade as migrate
from oblivion_schema.deploy.export import export as export_revisions
from oblivion_schema.deploy.export import write
from oblivion_schema.deploy.options import MODES_ARE_FOR_UPGRADES, Options, parse_mode, parse_pages
from oblivion_schema.deploy.revisions import read_revisions
from oblivion_schema.deploy.target import connect, find_database, name_it
from oblivion_schema.deploy.turns import alone, wait_for_other_deployers
from oblivion_schema.drift.check import check_against as run_check_against
from oblivion_schema.drift.check import compare_here, document, require_newest_revision
from oblivion_schema.drift.check import script as script_that_mends
from oblivion_schema.errors import UserError, explain, interrupted
from oblivion_schema.fleet import command as fleets
from oblivion_schema.operations import requests_of
from oblivion_schema.operations.files import require_sound_files
from oblivion_schema.replacing import replace, require_writable
from oblivion_schema.server import embedded
from oblivion_schema.server.database import (
    EMBEDDED,
    TRANSACTION_POOLER,
    hear_interrupts,
    parse,
    require_own_session,
)
from oblivion_schema.tables.access import current_modes, has_modes, others_policies, switch
from oblivion_schema.tables.base import metadata
from oblivion_schema.verification.check import Status
from oblivion_schema.verification.checklist import verify as run_checks

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from oblivion_schema.server.database import Database

NOT_COMPARED: Final = 2
"""Exit status of `check --json` that failed: 1 says that there are differences."""
_BEFORE_THE_COMMAND: Final = frozenset({"-x", "-q", "-c", "-n"})
_MOST_JOBS: Final = 1000
_ADD: Final = """
Make a new site: make its database if that is missing, upgrade it, verify it, and write it into the file. If this is
interrupted, the same command goes on.
"""
_MOVE: Final = """
Move a site to another database, on a server of the same major version, while its clients go on: PostgreSQL's logical
replication copies it, writes are held for a moment, and the new URL is written into the file. If this is interrupted at
any point, one side takes the writes, and the same command goes on.
"""


def psql(config: Config, arguments: Sequence[str]) -> None:
    """Open the database with psql; all further arguments go to psql."""
    database = find_database(config)
    # For the embedded server its own psql first, which is never older; elsewhere the user's own psql first.
    candidates: list[str | Path | None] = [shutil.which("psql"), embedded.binary("psql")]
    program = next(filter(None, candidates[::-1] if database.source == EMBEDDED else candidates), None)
    if program is None:
        raise UserError("No psql here: install PostgreSQL's client, or oblivion-schema[embedded].")
    conninfo, password = database.conninfo()
    command = [str(program), f"--dbname={conninfo}", *arguments]
    # The password goes into the environment, because other users can read a process's arguments.
    environment = os.environ | ({"PGPASSWORD": password} if password else {})
    name_it(config, database)
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":  # psql replaces this process, so that Ctrl-C cancels its query and does not end it
        os.execve(str(program), command, environment)  # noqa: S606 - the program is psql, with its user's arguments
    sys.exit(subprocess.run(command, env=environment, check=False).returncode)  # noqa: S603 - as above


def verify(config: Config) -> None:
    """Check objects and data, a line for each check (with -q if it fails or is skipped); exit status 1 if any fails."""
    hear_interrupts()
    failed, revisions = 0, read_revisions(config)
    with connect(config) as connection:
        try:
            with progress.shown("verify", connection):
                for check in run_checks(connection, revisions):
                    failed += check.failed
                    # Under -q, too: whoever is told nothing believes that all was tried.
                    _print(config, str(check), always=check.failed or check.status is Status.NOT_TRIED)
        except DBAPIError as error:
            raise explain(error, connection.engine) from error
    if failed:
        sys.exit(1)


def _take_turn(config: Config, connection: Connection) -> None:
    """Wait for an upgrade that runs, and then for locks not longer than an upgrade would."""
    connection.execute(text(f"SET LOCAL lock_timeout = '{Options.from_config(config).lock_timeout}'"))
    wait_for_other_deployers(connection)


def check(config: Config, against: str | None, scratch: str | None, *, sql: bool, json: bool) -> None:
    """Compare a database with the code: print the SQL that mends it, or the differences, for people or as JSON.

    With `json` exit status 1 means that there are differences, and NOT_COMPARED any error. Raises UserError as
    `oblivion_schema.drift.check.check_against()`.
    """
    hear_interrupts()
    revisions, named = read_revisions(config), partial(name_it, config)
    if against is None:
        drop_unknown = Options.from_config(config).drop_unknown
        turn = partial(_take_turn, config)
        drift = compare_here(find_database(config), revisions, named, turn, drop_unknown=drop_unknown)
    else:
        drift = run_check_against(
            parse(against, "--against"), parse(scratch, "--scratch") if scratch else None, revisions, named
        )
    if sql:
        for line in script_that_mends(drift):
            _print(config, line, always=True)
        return
    if json:
        _print(config, document(drift, revisions.get_current_head()), always=True)
        sys.exit(int(bool(drift.differences)))
    for line in drift.report():
        config.print_stdout("%s", line)
    if drift.differences:
        raise UserError(f"The database differs from the code: {list(drift.differences)}")
    config.print_stdout("No difference between the database and the code.")


def access(config: Config, mode: str | None, *, sql: bool) -> None:
    """Print the access mode, open or authenticated; with a mode, switch to it, in all sessions at once."""
    statement = switch(metadata, access=parse_mode(mode, f"access {mode}")) if mode is not None else ""
    if sql:
        if not statement:
            raise UserError("access --sql needs a mode: say access open --sql or access authenticated --sql.")
        _print(config, f"{statement};", always=True)
        return
    hear_interrupts()
    with connect(config, unnamed="start" if statement else "make") as connection:
        try:
            if statement:
                _switch(config, connection, statement)
                for line in others_policies(connection, metadata):
                    progress.say(line)
            elif not has_modes(connection):
                raise UserError("The database has no access mode yet: upgrade it first.")
            config.print_stdout(current_modes(connection).access)
        except DBAPIError as error:
            raise explain(error, connection.engine) from error


def pages(config: Config, mode: str | None, days: str | None, *, sql: bool, json: bool) -> None:
    """Report how calls of pages were billed; with trusted or metered, switch who bills them, in all sessions."""
    statement = switch(metadata, pages=parse_pages(mode, f"pages {mode}")) if mode is not None else ""
    if sql:
        if not statement:
            raise UserError("pages --sql needs a mode: say pages metered --sql or pages trusted --sql.")
        _print(config, f"{statement};", always=True)
        return
    if mode is not None and (days is not None or json):
        raise UserError(f"pages {mode}: --days and --json belong to the report, which is pages without a mode.")
    since = number_of_days("30" if days is None else days, "--days")
    hear_interrupts()
    with connect(config, unnamed="start" if statement else "make") as connection:
        try:
            if statement:
                _switch(config, connection, statement)
                config.print_stdout(current_modes(connection).pages)
                return
            require_newest_revision(connection, read_revisions(config), "This role")
            found = report_on_pages(connection, since)
            for line in [found.json()] if json else found.lines():
                config.print_stdout("%s", line)
        except DBAPIError as error:
            raise explain(error, connection.engine) from error


def report(config: Config, file: str, days: str | None, *, without_pages: bool) -> None:
    """Write a page with plots of calls, tokens, balances that run low and losses; the database is only read."""
    since = number_of_days("30" if days is None else days, "--days")
    path = Path(file)
    require_writable(path)
    try:
        from oblivion_schema.report import figures, page
    except ImportError as error:
        raise UserError("report needs matplotlib and Jinja2: install oblivion-schema[report].") from error

    hear_interrupts()
    with connect(config) as connection:
        found = figures.read(connection, since, read_revisions(config), pages=not without_pages)
    replace(path.resolve(), page.write(found))
    config.print_stdout("%s", path)


def _switch(config: Config, connection: Connection, statement: str) -> None:
    """Switch a mode, in turn with other deployers."""
    connection.execute(text(f"SET LOCAL lock_timeout = '{Options.from_config(config).lock_timeout}'"))
    wait_for_other_deployers(connection)
    require_newest_revision(connection, read_revisions(config), "This role")
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
    connection.commit()


def inspect(config: Config) -> None:
    """Show what an upgrade would do, and change nothing; exit status 1 if the upgrade would fail."""
    hear_interrupts()
    revisions, database = read_revisions(config), find_database(config)
    with database.connect() as connection:
        name_it(config, database, connection)
        try:
            options = Options.from_config(config)
            found = run_inspection(connection, revisions, demo=options.demo, lock_timeout=options.lock_timeout)
        except DBAPIError as error:
            raise explain(error, connection.engine) from error
    if database.is_behind_transaction_pooler:
        found.warnings.append(Finding("port", "6543", TRANSACTION_POOLER))
    quiet = config.messaging_opts["quiet"]
    for line in map(str, found.obstacles) if quiet else found.report():
        _print(config, line, always=True)
    if found.obstacles:
        sys.exit(1)


def prepare(config: Config, *, sql: bool) -> None:
    """Prepare a big hand-made database for its upgrade: fill NULLs and build an index while clients keep working."""
    revisions = read_revisions(config)
    requests = requests_of(reversed(list(revisions.walk_revisions())))
    found = steps(requests, Options.from_config(config).lock_timeout)
    if sql:
        for statement in script_of(found):
            _print(config, statement, always=True)
        return
    hear_interrupts()
    database = find_database(config)
    with database.connect() as connection:
        name_it(config, database, connection)
        connection.execution_options(isolation_level="AUTOCOMMIT")
        require_own_session(connection, str(database))
        said = 0

        def do(*, queries: bool) -> None:
            nonlocal said
            for line in run_steps(connection, [step for step in found if step.is_query == queries]):
                said += 1
                _print(config, line)

        try:
            with progress.shown("prepare", connection):
                with alone(connection):
                    do(queries=False)
                # Outside the lock: building an index waits for every session with a snapshot, also for an upgrade that
                # waits for the lock.
                do(queries=True)
        except DBAPIError as error:
            failed = str(explain(error, connection.engine))
            raise UserError(failed.replace("Nothing was changed", "Earlier steps stay done")) from error
        config.print_stdout("Prepared: run upgrade head next." if said else "Nothing to prepare.")


def burn(config: Config, max_calls: str | None) -> None:
    """Bill the minutes of open calls of metered pages that have a heartbeat; run it from a scheduler."""
    most = at_most(max_calls, "--max")
    hear_interrupts()
    with connect(config, unnamed="running") as connection:
        with progress.shown("burn", connection):
            tally = run_burn(connection, most)
        _say(config, connection, "Burnt", tally)
        connection.rollback()  # a role that may not read the incidents has an aborted transaction
        if connection.scalar(text("SELECT page_billing()")) == "trusted":
            config.print_stdout("Pages are trusted, and bill by themselves: there is nothing to burn.")


def reap(config: Config, not_seen_for: str, pages_not_seen_for: str, max_calls: str | None) -> None:
    """End metered calls that were not seen for a while, and bill them until then; run it from a scheduler."""
    since, most = duration(not_seen_for, "--not-seen-for"), at_most(max_calls, "--max")
    pages_since = duration(pages_not_seen_for, "--pages-not-seen-for")
    hear_interrupts()
    with connect(config, unnamed="running") as connection:
        with progress.shown("reap", connection):
            tally = run_reap(connection, since, pages_since, most)
        _say(config, connection, "Reaped", tally)


def settle(config: Config, max_calls: str | None) -> None:
    """Bill ended metered calls whose billing failed; exit status 1 if it fails again for any of them."""
    most = at_most(max_calls, "--max")
    hear_interrupts()
    with connect(config, unnamed="running") as connection:
        with progress.shown("settle", connection):
            tally = run_settle(connection, most)
        _say(config, connection, "Settled", tally)
    if tally.unsettled:
        sys.exit(1)


def _say(config: Config, connection: Connection, done: str, tally: Tally) -> None:
    config.print_stdout("%s %s.", done, tally)
    for line in reasons(connection, tally):
        _print(config, line, always=True)


def _print(config: Config, line: str, *, always: bool = False) -> None:
    """Print a line of a command's result; -q leaves out all but failures, and scripts: what is printed `always`."""
    progress.clear()
    if always:
        config.stdout.write(f"{line}\n")
    else:
        config.print_stdout("%s", line)


def stop(config: Config) -> None:
    """Stop the embedded PostgreSQL; its data stays."""
    if not embedded.is_installed():
        raise UserError("The embedded PostgreSQL is not installed: install oblivion-schema[embedded].")
    if Options.from_config(config).url:
        raise UserError("stop is about the embedded PostgreSQL, which has no URL: leave out -x url.")
    directory = embedded.data_directory()
    stopped = embedded.stop(directory)
    config.print_stdout(f"{'Stopped' if stopped else 'Not running'}: embedded PostgreSQL in {directory}")


def export(config: Config, directory: str) -> None:
    """Write the revisions as SQL files for psql, the Supabase CLI or a dashboard; no database is needed."""
    files = export_revisions(read_revisions(config), Options.from_config(config))
    for path in write(files, Path(directory)):
        config.print_stdout("%s", path)


def fleet(config: Config, asked: fleets.Asked, site: Namespace | fleets.Moving | None) -> None:
    """Run a command on all sites of a file, add a site, or move one; exit status 1 if it fails on any of them."""
    if site is None:
        fleets.run(config, asked)
    elif isinstance(site, fleets.Moving):
        hear_interrupts()
        fleets.move(config, asked, site)
    else:
        fleets.add(config, asked, site.site, site.url)


def _fleet_options() -> ArgumentParser:
    """The options of `fleet`, which may stand before its command or after it."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--jobs", metavar="N", default="4", help="the most sites at a time; default: 4")
    parser.add_argument("--only", metavar="NAME", nargs="+", action="extend", help="these sites alone")
    parser.add_argument("--first", metavar="NAME", help="upgrade this site, verify it, and go on only if it is well")
    parser.add_argument("--json", action="store_true", help="print one JSON document at the end")
    return parser


def _take_over_fleet(line: CommandLine, options: Namespace) -> None:
    """Read the words behind the command: options of ours, and those of the command, which its own parser judges."""
    ours = _fleet_options()
    ours.prog = prog = f"oblivion-schema fleet {options.file} {options.command}"
    options, words = ours.parse_known_args(options.arguments, options)
    if not options.jobs.isdecimal() or not 1 <= int(options.jobs) <= _MOST_JOBS:
        raise UserError(f"--jobs {options.jobs}: give a number of sites from 1 to {_MOST_JOBS}, such as 4.")
    name: str = options.command
    site: Namespace | fleets.Moving | None = None
    match name:
        case "add":
            adds = ArgumentParser(prog=prog, description=_ADD)
            adds.add_argument("site", metavar="NAME", help="letters, digits, - and _")
            adds.add_argument("--url", required=True, help="its database, which is made if it is missing")
            site = adds.parse_args(words)
            if options.only or options.first:
                raise UserError("fleet add: --only and --first belong to commands on the sites that there are.")
        case "move":
            moves = ArgumentParser(prog=prog, description=_MOVE)
            moves.add_argument("name", metavar="NAME", help="the site")
            moves.add_argument("--to", metavar="URL", required=True, help="its new database, made if it is missing")
            moves.add_argument(
                "--source-url", metavar="URL", help="how the target's server reaches the site's database"
            )
            moves.add_argument("--leave-others", action="store_true", help="leave behind what is not ours")
            moves.add_argument("--dry-run", action="store_true", help="say what is in the way, and the steps")
            moves.add_argument("--cancel", action="store_true", help="take back a move that is not decided yet")
            site = fleets.Moving(**vars(moves.parse_args(words)))
            if options.only or options.first:
                raise UserError("fleet move: --only and --first belong to commands on several sites.")
        case "upgrade":
            upgrades = ArgumentParser(prog=prog, description="Upgrade the sites that are behind.", parents=[ours])
            upgrades.add_argument("revision", nargs="?", default="head", help="default: head, the newest")
            words = [upgrades.parse_args(words).revision]
        case _:
            its = line.parser.parse_args([name, *words])
            if getattr(its, "sql", False) and name in {"access", "pages"}:
                raise UserError(f"{name} --sql is the same for each site: run oblivion-schema {name} ... --sql.")
            if getattr(its, "against", None) is not None:
                raise UserError("check --against names a database: a fleet's databases are those of its file.")
            if options.json and getattr(its, "sql", False):
                raise UserError("check --sql --json: say one of them.")
    options.site = site
    options.asked = fleets.Asked(
        Path(options.file), name, words, int(options.jobs), options.only or (), options.first, options.json
    )


def _command_line() -> CommandLine:
    """The parser of Alembic's commands and ours."""
    line = CommandLine(prog="oblivion-schema")
    line.register_command(verify)
    line.register_command(inspect)
    line.register_command(stop)
    switch_access = line.subparsers.add_parser("access", help=access.__doc__)
    switch_access.add_argument("mode", nargs="?", help="open or authenticated")
    switch_access.add_argument("--sql", action="store_true", help="only print the statement")
    switch_access.set_defaults(cmd=(access, ["mode"], ["sql"]))
    switch_pages = line.subparsers.add_parser("pages", help=pages.__doc__, description=pages.__doc__)
    switch_pages.add_argument("mode", nargs="?", help="trusted or metered")
    switch_pages.add_argument("--days", metavar="N", help="the days that the report is about; default: 30")
    switch_pages.add_argument("--json", action="store_true", help="print the report as JSON")
    switch_pages.add_argument("--sql", action="store_true", help="only print the statement that switches")
    switch_pages.set_defaults(cmd=(pages, ["mode", "days"], ["sql", "json"]))
    write_report = line.subparsers.add_parser("report", help=report.__doc__, description=report.__doc__)
    write_report.add_argument("file", metavar="FILE", help="such as report.html; it is replaced")
    write_report.add_argument("--days", metavar="N", help="UTC days, today included; default: 30")
    write_report.add_argument("--without-pages", action="store_true", help="leave out what pages that bill lose")
    write_report.set_defaults(cmd=(report, ["file", "days"], ["without_pages"]))
    export_files = line.subparsers.add_parser(
        "export",
        help=export.__doc__,
        description=export.__doc__,
        epilog="Options -x before the command become part of the files: demo=no, access=authenticated,"
        " pages=metered, lock-timeout=30s, drop-data=yes."
        " For example: oblivion-schema -x demo=no export supabase/migrations",
    )
    export_files.add_argument("directory", metavar="DIR", help="a folder, such as supabase/migrations")
    export_files.set_defaults(cmd=(export, ["directory"], []))
    prepare_upgrade = line.subparsers.add_parser("prepare", help=prepare.__doc__)
    prepare_upgrade.add_argument("--sql", action="store_true", help="only print the statements, for psql")
    prepare_upgrade.set_defaults(cmd=(prepare, [], ["sql"]))
    burn_calls = line.subparsers.add_parser("burn", help=burn.__doc__, description=burn.__doc__)
    burn_calls.set_defaults(cmd=(burn, ["max_calls"], []))
    reap_calls = line.subparsers.add_parser("reap", help=reap.__doc__, description=reap.__doc__)
    reap_calls.add_argument("--not-seen-for", metavar="TIME", default="5m", help="such as 90s, 5m (the default) or 1h")
    reap_calls.add_argument(
        "--pages-not-seen-for", metavar="TIME", default="12h", help="for calls that a page inserted; default: 12h"
    )
    reap_calls.set_defaults(cmd=(reap, ["not_seen_for", "pages_not_seen_for", "max_calls"], []))
    settle_calls = line.subparsers.add_parser("settle", help=settle.__doc__, description=settle.__doc__)
    settle_calls.set_defaults(cmd=(settle, ["max_calls"], []))
    for command in (burn_calls, reap_calls, settle_calls):
        command.add_argument("--max", dest="max_calls", metavar="N", help="the most calls of this run; default: all")
    compare = line.subparsers.choices["check"]
    compare.add_argument("--sql", action="store_true", help="only print the SQL that mends the differences")
    compare.add_argument("--json", action="store_true", help="print the differences as JSON")
    compare.add_argument("--against", metavar="URL", help="only read that database, and build the schema elsewhere")
    compare.add_argument(
        "--scratch", metavar="URL", help="build it there, not on the embedded PostgreSQL; everything is rolled back"
    )
    sites = line.subparsers.add_parser(
        "fleet",
        help=fleet.__doc__,
        description=fleet.__doc__,
        parents=[_fleet_options()],
        allow_abbrev=False,
        epilog="For example: oblivion-schema fleet sites.toml upgrade --jobs 8 --first small-site",
    )
    sites.add_argument("file", metavar="SITES.toml", help="has [sites.NAME] and url = ... for each site")
    sites.add_argument(
        "command",
        metavar="COMMAND",
        choices=(*fleets.COMMANDS, "add", "move"),
        help=f"{', '.join(fleets.COMMANDS)}, add or move",
    )
    sites.add_argument("arguments", metavar="...", nargs=REMAINDER, help="what the command takes")
    sites.set_defaults(cmd=(fleet, ["asked", "site"], []))
    # The prefix makes argparse take no argument for an option of ours: all of them are psql's.
    open_psql = line.subparsers.add_parser("psql", help=psql.__doc__, add_help=False, prefix_chars="\0")
    open_psql.add_argument("arguments", nargs="*")
    open_psql.set_defaults(cmd=(psql, ["arguments"], []))
    return line


def _take_over_check(options: Namespace) -> None:
    """Let our own command do what Alembic's check cannot."""
    if options.sql and options.json:
        raise UserError("check --sql --json: say one of them.")
    if options.scratch is not None and options.against is None:
        raise UserError("--scratch belongs to check --against URL.")
    if options.against is not None or options.sql or options.json:
        options.cmd = (check, ["against", "scratch"], ["sql", "json"])


def _take_over(line: CommandLine, options: Namespace) -> None:
    if options.cmd[0] is fleet:
        _take_over_fleet(line, options)
    elif options.cmd[0].__name__ == "check":
        _take_over_check(options)


def _takes_modes(options: Namespace) -> bool:
    """Whether `-x access=` and `-x pages=` have a meaning for the command."""
    name = options.command if options.cmd[0] is fleet else options.cmd[0].__name__
    return name in {"add", "export", "upgrade"}


def _parsed(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    options, unknown = parser.parse_known_args(arguments)
    if early := [word for word in unknown if word[:2] in _BEFORE_THE_COMMAND]:
        sys.stderr.write(f"FAILED: {early[0]} stands before the command: oblivion-schema -x demo=no -q upgrade head.\n")
        sys.exit(2)
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if not hasattr(options, "cmd"):
        parser.error("too few arguments")
    return options


def main(argv: Sequence[str] | None = None, database: Database | None = None) -> None:
    """Run the command line. If a command fails, it exits with a nonzero status, and one line on stderr.

    `database` is the one that commands work on, before any URL that is configured.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["--version"]:  # Alembic's option would print only Alembic's version
        sys.stdout.write(f"oblivion-schema {__version__}, alembic {version('alembic')}\n")
        return
    line = _command_line()
    options = _parsed(line.parser, arguments)
    raises, options.raiseerr = options.raiseerr, True
    try:
        config = migrate.config(options)
        config.attributes["database"] = database
        _take_over(line, options)
        # Checked here, because for commands that only read files Alembic does not run env.py, which checks it too.
        if Options.from_config(config).sets_modes and not _takes_modes(options):
            raise UserError(MODES_ARE_FOR_UPGRADES)
        # These only read files, so Alembic does not run env.py, which looks whether they fit together.
        if options.cmd[0].__name__ in {"branches", "edit", "heads", "show"}:
            require_sound_files(ScriptDirectory.from_config(config).versions)
        if migrate.is_packaged() and options.cmd[0].__name__ in {"edit", "init", "merge", "revision"}:
            raise UserError("An installed package takes no new revisions: write them in a checkout.")
        with progress.while_read():
            line.run_cmd(config, options)
    except KeyboardInterrupt:
        sys.stderr.write(f"FAILED: {interrupted()}\n")
        sys.exit(130)
    except CommandError as error:  # Alembic would print it to stdout, into the script of --sql
        if raises:
            raise
        sys.stderr.write(f"FAILED: {error}\n")
        sys.exit(NOT_COMPARED if options.cmd[0].__name__ == "check" and options.json else 1)
