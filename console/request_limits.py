"""How requests are read: what an address, a form and a host may be, before any page sees them.

Owns the limits of what is not the API's, and that nonsense is read as something harmless. Refuses
to know pages.
"""

from urllib.parse import urlsplit, urlunsplit

from flask import Request, redirect, request
from werkzeug.routing import IntegerConverter, RequestRedirect

from console.context import is_api

FORM_BYTES_MAX = (
    262_144  # a thousand codes are 25,000; a form is held whole, and many times its size
)
DIGITS_MAX = 18  # of a row's number in an address: more is no number that SQLite has


class PageRequest(Request):
    """A request whose query can be read.

    Bytes that are no text are marked as such, instead of breaking every page.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.query_string = self.query_string.decode("utf-8", "replace").encode()


class RowNumber(IntegerConverter):
    """`<int:...>` of an address. What cannot be the number of a row is no address."""

    regex = rf"\d{{1,{DIGITS_MAX}}}"


def install(app) -> None:
    """Reads requests like that from now on.

    Comes before all blueprints and before the protection of forms.
    """
    app.request_class = PageRequest
    app.url_map.converters["int"] = RowNumber
    app.before_request(bound_forms)
    app.before_request(stay_here)


def bound_forms() -> None:
    """A form is far smaller than a call may be.

    JSON is read by the relay, with the relay's own limit.
    """
    if request.mimetype != "application/json" and not is_api(request.path):
        request.max_content_length = FORM_BYTES_MAX


def stay_here():
    """Werkzeug leads to the right spelling of an address on whatever host was named.

    Lead there on this one.
    """
    wrong = request.routing_exception
    if isinstance(wrong, RequestRedirect):
        return redirect(urlunsplit(("", "", *urlsplit(wrong.new_url)[2:])), wrong.code)
    return None
