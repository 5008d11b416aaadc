"""`oblivion-schema fleet SITES.toml COMMAND`: a command on all sites of a file.

One process looks at all sites, through a connection to each. What is at the newest revision already is not upgraded,
and `current` needs no more than that look. All other work is done in processes, for a site at a time: `fleet/run.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oblivion_schema.deploy.options import Options
from oblivion_schema.deploy.revisions import read_revisions
from oblivion_schema.errors import UserError
from oblivion_schema.fleet import add as adding
from oblivion_schema.fleet import sites as files
from oblivion_schema.fleet.look import look_at, require_distinct
from oblivion_schema.fleet.report import Report
from oblivion_schema.fleet.run import Runner

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from oblivion_schema.fleet.look import Look
    from oblivion_schema.fleet.sites import Site

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
