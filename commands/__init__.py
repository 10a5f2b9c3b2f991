"""The command line: `flask user add alice`, from the project's folder.

One module a topic; `given` reads what is typed, `shown` prints. Commands open the database beside a
server that may run, and hand the work to the modules that own it: they hold no rules of their own.

Exit status: 0 done, 1 refused with the reason in a line on standard error, 2 typed wrongly.
"""

from commands.given import DatabaseWhenAsked, start_said

__all__ = ["DatabaseWhenAsked", "register", "start_said"]


def register(app) -> None:
    """Add the commands to the app's `flask`."""
    # Here, for a relay that serves needs none of them: a megabyte, and a moment of each start.
    from commands import (
        bill,
        calls,
        codes,
        configuration,
        file,
        ledger,
        models,
        money,
        serving,
        sign_on,
        teams,
        tokens,
        upstream,
    )

    topics = (
        sign_on.user,  # the members, and how they come in
        teams.team,
        tokens.token,
        money.credit,
        money.balance,
        codes.code,
        calls.requests,
        bill.bill,
        ledger.ledger,
        file.backup,
        file.restore,
        configuration.config,
        serving.upstreams,
        upstream.upstream,
        models.models,
        serving.reload,
    )
    for topic in topics:
        app.cli.add_command(topic)
