"""`flask models`: the catalogue's prices beside those in force."""

import click

from commands import given, shown
from commands.upstream import done
from relay import pricelist

models = given.Topic("models", help="Models and their prices.")


@models.command()
@click.option(
    "--from",
    "path",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="A catalogue: [[models]] as in config.example.toml; else the one that comes with the relay.",
)
@click.option("--yes", is_flag=True, help="Accept every change, without a question.")
@shown.json_option
def update(path: str | None, yes: bool, as_json: bool) -> None:
    """Show where the catalogue differs from the prices in force, and ask which to accept.

    What is accepted holds for calls that begin from now on. Exit status 1 if rows were refused.
    """
    relay = given.relay()
    found = pricelist.compare(relay, pricelist.read(path))
    accepted = []
    for change in found.changes:
        if not as_json:
            click.echo(_sentence(change))
        if not change.obstacle and (
            yes or not as_json and click.confirm("Accept it?", default=False)
        ):
            accepted.append(change)
    if accepted:
        pricelist.accept(relay, accepted)
        for change in accepted:
            done(
                relay, "models.price", wake=change is accepted[-1], **pricelist.audit_detail(change)
            )
    _said(as_json, found, {change.id for change in accepted})
    if found.refused:
        raise click.exceptions.Exit(1)


def _said(as_json: bool, found: pricelist.Comparison, accepted: set[str]) -> None:
    document = {
        "changes": [
            {
                "id": change.id,
                "new": change.new,
                "prices": {kind: list(pair) for kind, pair in change.kinds.items()},
                "source": change.source,
                "checked": change.checked and str(change.checked),
                "obstacle": change.obstacle or None,
                "accepted": change.id in accepted,
            }
            for change in found.changes
        ],
        "refused": found.refused,
    }
    lines = [
        f"refused: {name}: {reason}"
        for name, reasons in found.refused.items()
        for reason in reasons
    ]
    if not found.changes:
        lines.append("The prices in force are the catalogue's.")
    elif accepted:
        lines.append(f"In force from now on: {', '.join(sorted(accepted))}.")
    else:
        lines.append("Nothing was changed.")
    shown.one(as_json, document, "\n".join(lines))


def _sentence(change: pricelist.Change) -> str:
    kinds = ", ".join(
        f"{kind} {was or 'none'} -> {now or 'none'}" for kind, (was, now) in change.kinds.items()
    )
    where = f" ({change.source}, {change.checked})" if change.source else ""
    head = f"{change.id}{' (new)' if change.new else ''}: {kinds}{where}"
    return f"{head}\n  {change.obstacle}" if change.obstacle else head
