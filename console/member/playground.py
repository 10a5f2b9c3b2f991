"""The model test: a conversation with a model in the browser, through the same spine as every call.

Owns the page and its one address for calls. The call is the chosen token's, with its limits and
models, and is charged; the raw token is not needed. Refuses to touch an answer: its script shows it
as text.
"""

from flask import Blueprint, Response, jsonify, render_template, request

import billing
from console import public
from console.context import member, state
from console.member import balances, tokens
from console.session import members_only
from console.ui import format
from console.ui.i18n import gettext as _
from console.ui.i18n import lazy_gettext as _l
from relay import errors, gate, refusals
from relay.spine import Incoming, place
from relay.upstream.reply import CallerLeft
from relay.wires import chat

pages = Blueprint("playground", __name__, url_prefix="/console/test")


STYLES = {
    "": _l("As the model likes"),
    "short": _l("Short"),
    "thorough": _l("Thorough"),
    "steps": _l("Step by step"),
    "plain": _l("In plain words"),
}
ORDERS = {
    "short": _l("Answer briefly, in a few sentences."),
    "thorough": _l("Answer thoroughly and in full, with reasons and examples."),
    "steps": _l("Answer step by step, as a numbered list."),
    "plain": _l("Answer in plain words that somebody without prior knowledge understands."),
}


@pages.get("")
@members_only
def page():
    """The page: pick a token and a model, talk, see the cost."""
    now = billing.now_ms()
    usable = [each for each in tokens.listed(member().id) if (each["expires_at"] or now + 1) > now]
    models = public.chat_models()
    wish = request.args.get("token", type=int)
    picked = next((each for each in usable if each["id"] == wish), usable[0] if usable else None)
    return render_template(
        "member/playground.html",
        tokens=usable,
        models=models,
        picked=picked,
        styles=STYLES,
        model=public.picked_model(),
        orders=ORDERS,
        has=balances.of(member().id),
    )


@pages.post("/<int:token_id>")
def ask(token_id: int):
    """One call in the name of a token of the member.

    The body is a chat request, and so is every answer's shape.
    """
    incoming = Incoming(request.environ)
    try:
        answer = place(state(), chat, _caller(token_id), incoming)
    except CallerLeft as err:
        response = Response(status=refusals.CALLER_LEFT)
        errors.let_go(err)
    except Exception as err:
        response = _refused(refusals.error_of(err, incoming.id), incoming.id)
        errors.let_go(err)
    else:
        response = Response(iter(answer), headers=answer.headers)
        response.call_on_close(answer.close)
    response.headers.update(incoming.headers | {"x-request-id": incoming.id})
    return response


def _caller(token_id: int) -> gate.Caller:
    """Who asks.

    Raises NotAuthenticated for nobody, NotFound for a token that is not the member's or not good.
    """
    if member() is None:
        raise errors.NotAuthenticated(_("You are signed out. Reload the page."))
    caller = state().gate.caller_of(token_id)
    if caller is None or caller.user_id != member().id:
        raise errors.NotFound(_("This API key cannot be used any more. Choose another."))
    return caller


def _refused(err: errors.RelayError, request_id: str) -> Response:
    """The error in the wire's shape, with its sentence in the visitor's language for the page."""
    shape = chat.error(err, request_id)
    response = jsonify(shape | {"sentence": _sentence(err, shape["error"]["message"])})
    response.status_code = err.status
    if err.retry_after is not None:
        response.headers["Retry-After"] = str(err.retry_after)
    return response


def _sentence(err: errors.RelayError, message: str) -> str:
    """What the page says of an error: its sentence, and what its message says besides."""
    if err.code == errors.InsufficientBalance.code:
        holdings = balances.of(member().id)
        has = holdings.available
        said = _(
            "Your balances do not cover this request. They hold %(grant)s tokens, %(quota)s of quota and"
            " %(wallet)s in the wallet.",
            grant=format.count(has.grant),
            quota=format.money_short(has.quota),
            wallet=format.money_short(has.wallet),
        )
        if holdings.team:
            left = format.money_short(has.team)
            said += " " + _("The team's wallet has %(amount)s free.", amount=left)
        return said
    said = _(err.sentence)
    if message.startswith(err.sentence.rstrip(".")) and said == err.sentence:
        return message  # it says the same in more words
    return said if message in (said, err.sentence) else f"{said} {message}"
