"""Models, prices and plans as they are configured, and the button that reads the file again.

Owns these pages. What the file says is `settings`' business: nothing is changed from here.
"""

from flask import flash, render_template, request

from console import public
from console.admin.guard import note, pages, recently_authenticated
from console.context import state
from console.session import back_to
from console.ui.i18n import gettext as _
from console.ui.i18n import ngettext
from relay import connect, pricelist
from server import jobs
from settings import changes


@pages.get("/models", endpoint="models")
def page():
    """Every configured model with its prices and routes, every plan."""
    if not request.args.get("preview"):
        return show()
    mistakes, found, terms = jobs.preview(state())
    return show(mistakes or None, None if mistakes else found, terms)


def show(
    mistakes: list[str] | None = None, found: dict | None = None, terms: list[str] | None = None
) -> str:
    settings, known = state().settings, state().catalog.models
    listed = [
        (each, known.get(each.id), public.offers(known[each.id]) if each.id in known else [])
        for each in settings.models
    ]
    return render_template(
        "admin/models.html",
        listed=listed,
        settings=settings,
        mistakes=mistakes,
        found=found,
        terms=terms or [],
        summary=changes.sentence(found) if found else "",
        origins=connect.origins(),
        upstreams=state().catalog.upstreams,
        peak_text=public.peak_text,
        stale=pricelist.stale,
    )


@pages.get("/models/prices", endpoint="prices")
def prices():
    """Where the catalogue that comes with the relay differs from the prices in force."""
    return render_template("admin/prices.html", found=pricelist.compare(state(), pricelist.read()))


@pages.post("/models/prices", endpoint="accept_prices")
@recently_authenticated
def accept_prices():
    """Put the ticked prices into force, for calls that begin from now on."""
    picked = set(request.form.getlist("pick"))
    found = pricelist.compare(state(), pricelist.read())
    chosen = [each for each in found.changes if each.id in picked and not each.obstacle]
    if not chosen:
        flash(_("Nothing was ticked."), "info")
        return back_to("admin.prices")
    try:
        pricelist.accept(state(), chosen)
    except connect.ConnectError as err:
        flash(str(err), "bad")
        return back_to("admin.prices")
    for each in chosen:
        note("models.price", **pricelist.audit_detail(each))
    for mistake in jobs.reload_now(state()):
        flash(mistake, "bad")
    flash(_("In force from now on: %(models)s.", models=", ".join(e.id for e in chosen)), "good")
    return back_to("admin.models")


@pages.post("/models/reload", endpoint="reload")
def reload_settings():
    """Read config.toml again; `check` only looks for mistakes.

    A bad file leaves the old settings in force.
    """
    if request.form.get("check"):
        mistakes, *_found = jobs.preview(state())
        said = _("The file has no mistakes. It is not in force before you reload it.")
        if not mistakes:
            flash(said, "good")
            return back_to("admin.models", preview=1)
    else:
        mistakes, said = jobs.reload_now(state()), _("The settings are in force from now on.")
        note("settings.reload", mistakes=len(mistakes))
    if mistakes:
        flash(
            ngettext(
                "The file has %(num)s mistake. The settings in force stay as they are.",
                "The file has %(num)s mistakes. The settings in force stay as they are.",
                len(mistakes),
            ),
            "bad",
        )
        return show(mistakes)
    flash(said, "good")
    return back_to("admin.models")
