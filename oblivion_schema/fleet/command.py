"""`oblivion-schema fleet SITES.toml COMMAND`: a command on all sites of a file.

One process looks at all sites, through a connection to each. What is at the newest revision already is not upgraded,
and `current` needs no more than that look. All other work is done in processes, for a site at a time: `fleet/run.py`.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import URL

from oblivion_schema.deploy.options import Options
from oblivion_schema.deploy.revisions import read_revisions
from oblivion_schema.errors import UserError
from oblivion_schema.fleet import add as adding
from oblivion_schema.fleet import sites as files
from oblivion_schema.fleet.look import look_at, require_distinct
from oblivion_schema.fleet.move import Move, Step, Wanted
from oblivion_schema.fleet.report import Report
from oblivion_schema.fleet.run import Runner
from oblivion_schema.fleet.sites import Site
from oblivion_schema.replacing import require_writable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from oblivion_schema.fleet.look import Look

COMMANDS: Final = ("upgrade", "current", "verify", "check", "inspect", "reap", "settle", "burn", "access", "pages")
"""The commands that a fleet runs on its sites."""
_HAVE_JSON: Final = frozenset({"check", "pages"})
_WRITE_JSON_ALONE: Final = frozenset({"trusted", "metered"})


@dataclass(frozen=True)
class Asked:
    """What was asked of a fleet: the file, a command with its arguments, and how to go about it."""

    file: Path
    command: str
    arguments: Sequence[str] = ()
    jobs: int = 4
    only: Sequence[str] = ()
    first: str | None = None
    json: bool = False


def run(config: Config, asked: Asked) -> None:
    """Run the command on the sites. Raises UserError if a site failed, or for what is wrong before anything is done."""
    options = _options(config)
    revisions = read_revisions(config)
    sites = files.read(asked.file)
    wanted = files.chosen(sites, asked.only, "--only", asked.file) if asked.only else list(sites.values())
    if asked.first is not None:
        _require_first(asked, sites, wanted)
    looks = look_at(wanted, revisions.get_heads())
    require_distinct(looks, asked.file)
    unknown = {look.site.name: _unknown(look, revisions) for look in looks}
    if asked.command == "upgrade" and (newer := [name for name in unknown if unknown[name]]):
        raise UserError(f"Site {newer[0]} {unknown[newer[0]]} Nothing was changed.")

    report = Report(asked.command, [site.name for site in wanted], as_json=asked.json, quiet=_is_quiet(config))
    runner = Runner(asked.jobs, report)
    reached = [look for look in looks if look.error is None]
    for look in looks:
        report.outcomes[look.site.name].revision = ", ".join(look.revisions or ()) or None
        if look.error is not None:
            report.fail(look.site.name, look.error, look.seconds)
    with runner:
        if asked.command == "upgrade":
            _upgrade(config, asked, runner, reached, head=_head_of(asked, options, revisions))
        elif asked.command == "current" and not asked.arguments:
            _current(report, reached, unknown, revisions)
        else:
            runner.run([look.site for look in reached], _arguments(config, asked))
    if asked.command == "upgrade" and asked.json:
        _tell_revisions(report, wanted, revisions.get_heads())
    report.finish(runner.stopped, parse=asked.json and asked.command in _HAVE_JSON and not _switches(asked))


def _upgrade(config: Config, asked: Asked, runner: Runner, reached: Sequence[Look], *, head: str | None) -> None:
    """Upgrade those that are behind: `first` alone, and verified, before the others.

    At `head` there is nothing to do; if that is None, the upgrade does something there, too.
    """
    report = runner.report
    arguments = _arguments(config, asked)
    behind = []
    for look in reached:
        if head is not None and look.is_whole:
            report.note(look.site.name, f"At {head}, the newest revision.")
            if look.site.name != asked.first:
                report.end(look.site.name, "at head", look.seconds)
        else:
            behind.append(look.site)
    if asked.first is not None:
        first = [look for look in reached if look.site.name == asked.first]
        its = [look.site for look in first]
        behind_first = [site for site in behind if site.name == asked.first]
        is_well = bool(first) and runner.run(behind_first, arguments, is_last=False)
        if not (is_well and runner.run(its, _verify(config))):
            return
        if not behind_first:
            report.outcomes[asked.first].status = "at head"
        behind = [site for site in behind if site.name != asked.first]
    runner.run(behind, arguments)


def _tell_revisions(report: Report, sites: Sequence[Site], heads: Collection[str]) -> None:
    """Tell at which revision the sites are that an upgrade was done on."""
    changed = [site for site in sites if report.outcomes[site.name].status == "done"]
    for look in look_at(changed, heads):
        report.outcomes[look.site.name].revision = ", ".join(look.revisions or ()) or None


def _current(report: Report, reached: Sequence[Look], unknown: Mapping[str, str], revisions: ScriptDirectory) -> None:
    heads = set(revisions.get_heads())
    for look in reached:
        name = look.site.name
        if look.revisions is None:
            report.fail(name, "This role may not read oblivion.alembic_version: connect as its owner.", look.seconds)
        elif unknown[name]:
            report.fail(name, f"The database {unknown[name]}", look.seconds)
        else:
            said = [f"{revision} (head)" if revision in heads else revision for revision in look.revisions]
            report.line(name, ", ".join(said) or "no revision")
            report.end(name, "done", look.seconds)


def add(config: Config, asked: Asked, name: str, url: str) -> None:
    """Make a new site. Raises UserError as `run()`, and if the database holds what is not ours."""
    options, file = _options(config), asked.file
    revisions = read_revisions(config)
    sites = files.read_or_none(file)
    site = files.new(name, url, "--url", file)
    if name in sites and sites[name].database.url != site.database.url:
        raise UserError(f"{file} has a site {name} with another url already: choose another name.")
    files.require_other_database(site, sites, file)
    if not file.exists() and not file.absolute().parent.is_dir():
        raise UserError(f"{file} cannot be written: its folder is not there. Make the folder, or name another file.")

    report = Report("add", [name], as_json=asked.json, quiet=_is_quiet(config))
    try:
        made = adding.make_database(site.database)
        if not made:
            others = [other for other in sites.values() if other.name != name]
            require_distinct(look_at([*others, site], revisions.get_heads()), file)
        adding.require_new_or_ours(site.database, revisions, options)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    if made:
        report.note(name, f"Made the database {site.database}.")
    runner = Runner(1, report)
    with runner:
        is_well = runner.run([site], [*_globals(config), "upgrade", "head"], is_last=False)
        is_well = is_well and runner.run([site], _verify(config))
    if is_well:
        report.outcomes[name].revision = revisions.get_current_head()
        if name not in sites:
            files.add(file, name, url)
        report.line(name, f"Is in {file}.")
    report.finish(runner.stopped, parse=False)


@dataclass(frozen=True)
class Moving:
    """What was asked of a move: the site, its new URL, and how to go about it, as `fleet/move.py` has it."""

    name: str
    to: str
    source_url: str | None = None
    leave_others: bool = False
    dry_run: bool = False
    cancel: bool = False


def move(config: Config, asked: Asked, moving: Moving) -> None:
    """Move a site to another database. Raises UserError as `run()`, and if anything is in the way of the move."""
    options, file, name = _options(config), asked.file, moving.name
    revisions = read_revisions(config)
    sites = files.read(file)
    [site] = files.chosen(sites, [name], "move", file)
    target = files.new(name, moving.to, "--to", file)
    through = files.new(name, moving.source_url, "--source-url", file).database if moving.source_url else None
    report = Report("move", [name], as_json=asked.json, quiet=_is_quiet(config))
    wanted = Wanted(site, target, through, leave_others=moving.leave_others, dry_run=moving.dry_run)
    it = Move(wanted, revisions, options, report)
    try:
        if files.is_one_database(site, target):
            is_moved = it.is_left() and not (moving.cancel or moving.dry_run)
            if not is_moved:
                report.note(name, f"The site is at {target.database} already.")
        else:
            files.require_other_database(target, sites, file)
            _require_distinct_target(it.wanted, sites, revisions, file)
            with it.alone():
                is_moved = _move(config, it, moving, file)
        if is_moved:
            _tell_clients(report, it.wanted)
            it.say(Step.VERIFY)
            is_well = _on(report, target, _verify(config))
            if is_well and not it.wanted.leave_others:  # what differs was known, and may be a row that was copied
                _on(report, target, _check(config))
            report.outcomes[name].revision = revisions.get_current_head()
        if report.outcomes[name].status == "not done":
            report.end(name, "done")
    except UserError as error:
        report.fail(name, error)
    except KeyboardInterrupt:
        report.fail(name, f"Interrupted. {it.who} Run the command again: it goes on from there.")
        report.finish(signal.SIGINT, parse=False)
    report.finish(None, parse=False)


def _move(config: Config, it: Move, moving: Moving, file: Path) -> bool:
    """Do what was asked of a move; whether the site has moved."""
    report, name, wanted = it.report, moving.name, it.wanted
    if moving.cancel and moving.dry_run:
        raise UserError("--cancel and --dry-run: say one of them.")
    require_writable(file)
    if moving.cancel:
        it.take_back()
        return False
    is_decided = it.is_decided()
    if not is_decided and not _may_move(config, it):
        return False
    if moving.dry_run:
        steps = list(Step)
        for number, step in enumerate(steps[steps.index(Step.CLEAN) if is_decided else 0 :], 1):
            report.line(name, f"{number}. {step.value}")
        return False
    if not is_decided:
        if not it.is_begun:
            it.say(Step.DATABASE)
            if adding.make_database(wanted.target.database):
                report.note(name, f"Made the database {wanted.target.database}.")
            words = [*_globals(config, for_upgrade=False), *_lock_timeout(config), "-x", "demo=no", *it.modes()]
            if not _on(report, wanted.target, [*words, "upgrade", "head"]):
                return False
        it.copy_and_decide()
        report.note(name, f"Writes were held for {it.held:.2f} s.")
    it.finish(lambda: files.replace_url(file, name, moving.to))
    return True


def _may_move(config: Config, it: Move) -> bool:
    """Whether nothing is in the way; if something is, it is told."""
    name = it.name
    if found := list(it.obstacles()):
        for line in found:
            it.report.fail(name, line)
        it.report.note(name, f"Nothing was changed. {it.who}")
        return False
    if it.wanted.leave_others or it.is_begun or _on(it.report, it.wanted.site, _check(config)):
        return True
    it.report.note(
        name, "What differs from the code would be lost: mend it, or say --leave-others. Nothing was changed."
    )
    return False


def _on(report: Report, site: Site, arguments: Sequence[str]) -> bool:
    """Run a command on one site; whether it went well. A signal ends it all."""
    with Runner(1, report) as runner:
        is_well = runner.run([site], arguments, is_last=False)
    if runner.stopped is not None:
        report.finish(runner.stopped, parse=False)
    return is_well


def _require_distinct_target(wanted: Wanted, sites: Mapping[str, Site], revisions: ScriptDirectory, file: Path) -> None:
    """Raise UserError if the target is a database of the file by another address."""
    target = Site(f"{wanted.target.name} (--to)", wanted.target.database)
    looks = look_at([*sites.values(), target], revisions.get_heads())
    its = next(look.identity for look in looks if look.site is target)
    for look in looks:
        if its is not None and look.identity == its and look.site is not target:
            raise files.same_database(look.site.name, target.name, file)


def _tell_clients(report: Report, wanted: Wanted) -> None:
    """Say what the poolers and PostgREST have to know."""
    name, target = wanted.site.name, files.place(wanted.target)
    server, _, database = target.rpartition("/")
    host, _, port = server.rpartition(":")
    before = files.place(wanted.site).rpartition("/")[2]
    report.line(
        name,
        f"The file has its new URL. In PgBouncer's [databases]: {before} = host={host} port={port} dbname={database}",
    )
    query = {"host": host} if host.startswith("/") else {}
    uri = URL.create("postgresql", "authenticator", None, None if query else host, int(port), database, query)
    report.line(name, f'In PostgREST\'s configuration: db-uri = "{uri.render_as_string()}"')


def _options(config: Config) -> Options:
    options = Options.from_config(config)
    if options.url is not None:
        raise UserError("-x url: a fleet's databases are those of its file. Choose among them with --only NAME.")
    return options


def _require_first(asked: Asked, sites: Mapping[str, Site], wanted: Sequence[Site]) -> None:
    first = asked.first or ""
    if asked.command != "upgrade":
        raise UserError("--first belongs to upgrade: it upgrades that site, verifies it, and goes on if that is well.")
    files.chosen(sites, [first], "--first", asked.file)
    if first not in {site.name for site in wanted}:
        raise UserError(f"--first {first}: --only leaves this site out. Name it there, too.")


def _unknown(look: Look, revisions: ScriptDirectory) -> str:
    """Half a sentence on a site at a revision that the code lacks; empty for others."""
    newer = set(look.revisions or ()) - {script.revision for script in revisions.walk_revisions()}
    if not newer:
        return ""
    return (
        f"is at {', '.join(sorted(newer))}, which this version of oblivion_schema does not have. Install the version"
        " that upgraded the database, or a newer one."
    )


def _head_of(asked: Asked, options: Options, revisions: ScriptDirectory) -> str | None:
    """The newest revision, if the upgrade goes there and does nothing on a site that is there.

    Switching a mode does something: it renews the grants.
    """
    [head] = revisions.get_heads()
    return head if not options.sets_modes and [*asked.arguments] in (["head"], ["heads"], [head]) else None


def _arguments(config: Config, asked: Asked) -> list[str]:
    json = ["--json"] if asked.json and asked.command in _HAVE_JSON and not _switches(asked) else []
    return [*_globals(config), asked.command, *asked.arguments, *json]


def _verify(config: Config) -> list[str]:
    """The verify that follows an upgrade: it says what fails, or was not tried."""
    return [*_globals(config, for_upgrade=False, quiet=True), "verify"]


def _check(config: Config) -> list[str]:
    return [*_globals(config, for_upgrade=False, quiet=True), "check"]


def _lock_timeout(config: Config) -> list[str]:
    given = [option for option in getattr(config.cmd_opts, "x", None) or () if option.startswith("lock-timeout=")]
    return [word for option in given for word in ("-x", option)]


def _switches(asked: Asked) -> bool:
    return bool(_WRITE_JSON_ALONE & {*asked.arguments})


def _is_quiet(config: Config) -> bool:
    return bool(getattr(config.cmd_opts, "quiet", False))


def _globals(config: Config, *, for_upgrade: bool = True, quiet: bool = False) -> list[str]:
    """The options before the command, for the processes of sites; `verify` takes no mode."""
    given = config.cmd_opts
    words = [word for path in getattr(given, "config", None) or () for word in ("-c", path)]
    if name := getattr(given, "name", None):
        words += ["-n", name]
    if for_upgrade:
        words += [word for option in getattr(given, "x", None) or () for word in ("-x", option)]
    return words + (["-q"] if quiet or _is_quiet(config) else [])
