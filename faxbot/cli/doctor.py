"""`faxbot doctor`: what is missing here, and what mends it."""

from __future__ import annotations

import json

import click

from faxbot import doctor as examiner
from faxbot.config import Config
from faxbot.production import Finding
from faxbot.supervisor import standin
from faxbot.supervisor.program import pasteable

_MARKS = {True: ("ok", "green"), None: ("?", "yellow")}


@click.command(short_help="Say what is missing here, and what mends it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> int:
    """Say what is missing here, and which setting mends it: what production mode asks for, and whether everything
    works. It asks the database, the broker and the carriers, as far as they are there, and changes nothing. Exit code 1
    when something that is needed is missing; in development what only production needs is a warning.

        faxbot doctor --json
    """
    config = standin.known(Config.load())
    found = examiner.of_installation(config)
    faults = [each for each in found if each.is_fault(production=config.production)]
    if as_json:
        findings = [each.described() for each in found]
        answer = {"ok": not faults, "production": config.production, "findings": findings}
        click.echo(json.dumps(answer))
    else:
        for each in found:
            _print(each, is_fault=each in faults)
        _sum_up(config, found, faults)
    return 1 if faults else 0


def _print(finding: Finding, *, is_fault: bool) -> None:
    mark, colour = _MARKS.get(finding.ok, ("FAIL", "red") if is_fault else ("warn", "yellow"))
    setting = f" ({finding.setting})" if finding.setting and not finding.ok else ""
    click.echo(
        f"{click.style(f'{mark:<5}', fg=colour)} {finding.name}{setting}: {finding.sentence}"
    )
    if finding.mend and not finding.ok:
        click.echo(f"      {pasteable(finding.mend)}")


def _sum_up(config: Config, found: list[Finding], faults: list[Finding]) -> None:
    warnings = sum(each.ok is False for each in found) - len(faults)
    words = f"{_counted(len(faults), 'fault')}, {_counted(warnings, 'warning')}"
    if not config.production:
        missing = sum(each.ok is False and each.needed_in_production for each in found)
        verb = "is" if missing == 1 else "are"
        words += f"; for FAXBOT_ENV=production {_counted(missing, 'thing')} {verb} missing"
    click.echo(words)


def _counted(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
