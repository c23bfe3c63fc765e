"""`rapidctl budget get|set|schedule`: the power budget of a domain."""

import click

from rapid.core.errors import NotFound, watts
from rapid.core.status import DomainStatus, Status
from rapidctl import output
from rapidctl.commands._documents import domain_document
from rapidctl.commands._names import completer, domains
from rapidctl.commands._page import domain_table
from rapidctl.commands._units import Watts
from rapidctl.commands._verb import Options, Verb, call, confirm, operator
from rapidctl.commands.budget_schedule import schedule

GET_EXAMPLES = """\
rapidctl budget get
rapidctl budget get rack1
rapidctl budget get rack1 --json | jq '.domains[0].budget_w'"""
GET_SHAPE = """\
one object: domains, a list of:
  domain parent budget_w reserved_w held_w free_w draw_w over_budget advice
  standing_w held_by
    held_by  the order that makes the budget what it is; standing_w without it"""
SET_EXAMPLES = """\
rapidctl budget set rack1 4800W
rapidctl budget set rack1 4.8kW --yes   # for scripts: raise without asking
rapidctl budget set rack1 3kW --force   # even if its floors do not fit"""
SET_SHAPE = "one object: domain budget_w before_w forced text"


@click.group()
def command() -> None:
    """Show or set the power budget of a domain, or schedule another."""


command.add_command(schedule)


@command.command(
    "get", cls=Verb, short_help="Show the budget of a domain, or of all.", examples=GET_EXAMPLES, shape=GET_SHAPE
)
@click.argument("domain", required=False, help="All domains if left out.", shell_complete=completer(domains))
@click.pass_obj
def get(options: Options, domain: str | None) -> None:
    """Show the budget of DOMAIN, or of all, and what is booked and drawn of it.

    'held' is the most that GPUs may be drawing by any limit that may be in force; 'free' is what is left to grant.
    """
    status = call(options, lambda client: client.status())
    domains = status.domains if domain is None else (_find(status, domain),)
    document = {"domains": [domain_document(found) for found in domains]}
    output.show(output.Page(document, (domain_table(domains),)), as_json=options.as_json)


@command.command("set", cls=Verb, short_help="Set the budget of a domain.", examples=SET_EXAMPLES, shape=SET_SHAPE)
@click.argument("domain", help="Whose budget.", shell_complete=completer(domains))
@click.argument("budget", type=Watts(), help="With its unit: 4800W, 4.8kW.")
@click.option("--force", is_flag=True, help="Accept a budget that the floors do not fit: all go to their floors.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def set_budget(options: Options, domain: str, budget: int, force: bool, yes: bool) -> None:
    """Set the budget of DOMAIN to BUDGET. It holds from the next tick on.

    Asks before a raise, and before --force. A budget below what floors and reserved power need is refused, with the
    smallest that would do; --force takes it all the same, and the domain stays over budget until something is off.
    """
    before_mw = _find(call(options, lambda client: client.status()), domain).budget_mw
    change = f"from {watts(before_mw)} to {watts(budget)}"
    if budget > before_mw:
        confirm(f"raise the budget of {domain} {change}", yes=yes)
    elif force:
        confirm(f"force the budget of {domain} {change}, even if its floors do not fit", yes=yes)
    text = call(options, lambda client: client.set_budget(domain, budget, force=force, by=operator()))
    document = {
        "domain": domain,
        "budget_w": budget / 1000,
        "before_w": before_mw / 1000,
        "forced": force,
        "text": text,
    }
    output.show(output.Page(document, (output.line(text),)), as_json=options.as_json)


def _find(status: Status, name: str) -> DomainStatus:
    for domain in status.domains:
        if domain.domain == name:
            return domain
    raise NotFound("domain", name, tuple(domain.domain for domain in status.domains))
