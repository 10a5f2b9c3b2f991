"""Every way in which the relay says no.

Owns the error tree: each class knows its HTTP status, its `type` and `code` in OpenAI's shape, its
`type` in Anthropic's, and the sentence a person reads. It does not know which wire the caller
speaks: `relay.wires.chat` and `relay.wires.messages` turn an error into their own shape.

RelayError                       500  ours; no details leave the house
├── BadRequest                   400  the request itself is wrong; `param` names the place
│   ├── ContextTooLong           400  more input than the model takes
│   │   └── OverPlan             400  more input than the plan takes
│   └── NotInChat                400  what only an upstream of the caller's own wire can do
├── NotAuthenticated             401  no, unknown, expired or revoked token; disabled member
├── InsufficientBalance          402  the pockets do not cover the call
│   └── CapReached               402  the token has spent what it may in this day or month
├── ModelNotAllowed              403  this token may not use this model
│   └── AddressNotAllowed        403  this token may not be used from this address
├── NotFound                     404  unknown address
│   └── ModelNotFound            404  unknown model
├── MethodNotAllowed             405
├── BodyTooLarge                 413
├── UnsupportedEncoding          415  a Content-Encoding or charset that we do not read
├── UpgradeRequired              426  websockets are not spoken here
├── RateLimited                  429  with retry-after
├── Unavailable                  503  we cannot take the call now: draining, full, no upstream
│   ├── Restarting               503  going down; the next process takes the call
│   ├── OutOfTime                504  an answer takes longer than one may
│   └── StorageFull              503  a call that cannot be recorded is not relayed
└── UpstreamError                502  no target answered properly
    ├── UpstreamAccount          502  the provider refuses our key or our account
    ├── UpstreamOverloaded       503  all targets are busy
    ├── UpstreamBusy             429  all have said for how long they are busy: none was tried
    ├── UpstreamUnavailable      503  all have failed again and again and rest: none was tried
    ├── UpstreamTimeout          504  no target answered in time
    └── UpstreamRefused           *   the provider says that the request is wrong, and how
"""


class RelayError(Exception):
    """Something went wrong on our side.

    Callers see a sentence without details; the log has them.
    """

    status = 500
    type = "api_error"
    code: str | None = "internal_error"
    anthropic_type = "api_error"
    sentence = "Something went wrong inside the relay. The request was not charged."

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        headers: dict[str, str] | None = None,
    ):
        """`retry_after` in seconds; `headers` are added to the answer as they are."""
        super().__init__(message or self.sentence)
        self.param = param
        self.retry_after = retry_after
        self.headers = headers or {}
        if code is not None:
            self.code = code

    @property
    def message(self) -> str:
        return str(self.args[0])

    def mention(self, contact: str, site_url: str = "") -> None:
        """Say whom to ask, where somebody can help: with money, caps, plans and models, with a
        token that has ended (a missing or unknown one is nobody's), and a provider's account; and
        where to ask for credit, if the site's address is known."""
        ended = isinstance(self, NotAuthenticated) and self.message != self.sentence
        said = [self.message]
        if self.status == 402 and site_url:
            said.append(f"Ask for credit: {site_url.rstrip('/')}/console/credit")
        if contact and (
            self.status in (402, 403) or ended or isinstance(self, OverPlan | UpstreamAccount)
        ):
            said.append(f"Ask for help: {contact}")
        self.args = (" ".join(said),)

    @property
    def retry_helps(self) -> bool:
        """False where the same request can only fail again.

        Clients are then told not to repeat it.
        """
        return self.status not in (400, 401, 402, 403, 404, 405, 413, 415, 422, 426)


class BadRequest(RelayError):
    """The request is malformed or has a missing or wrong field. `param` names it."""

    status = 400
    type = anthropic_type = "invalid_request_error"
    code: str | None = None
    sentence = "The request is not valid."


class ContextTooLong(BadRequest):
    """More input than the model takes."""

    code = "context_length_exceeded"
    sentence = "The input is longer than the context limit."


class OverPlan(ContextTooLong):
    """More input than the plan takes.

    A shorter conversation may not help: agents begin with more.
    """


class NotInChat(BadRequest):
    """Chat has no word for it. An upstream that speaks the caller's own wire may understand it."""


class NotAuthenticated(RelayError):
    """There is no token, or it is unknown, expired or revoked, or its member is disabled."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"
    anthropic_type = "authentication_error"
    sentence = (
        # the first words are known
        "Incorrect API key provided: it is missing or not valid. "
        "Send it as 'Authorization: Bearer sk-...'; API keys are created in the console."
    )


class InsufficientBalance(RelayError):
    """The member's pockets do not cover the call. The message says what each of them holds."""

    status = 402
    type = "insufficient_quota"
    code = "insufficient_balance"
    anthropic_type = "billing_error"
    sentence = "The balances do not cover this request."


class CapReached(InsufficientBalance):
    """The token has spent what it may in this day or month.

    The message says when it is free again.
    """

    code = "spending_cap_reached"
    sentence = "This API key has spent what it may."


class ModelNotAllowed(RelayError):
    """The token is bound to other models."""

    status = 403
    type = anthropic_type = "permission_error"
    code = "model_not_allowed"
    sentence = "This API key may not use this model."


class AddressNotAllowed(ModelNotAllowed):
    """The token is bound to other addresses than the caller's."""

    code = "address_not_allowed"
    sentence = "This API key may not be used from this address."


class NotFound(RelayError):
    """No such address."""

    status = 404
    type = "invalid_request_error"
    code = "unknown_url"
    anthropic_type = "not_found_error"
    sentence = "There is nothing at this address."


class ModelNotFound(NotFound):
    """No such model."""

    code = "model_not_found"
    sentence = "There is no such model."

    def __init__(self, model: str, near: str = ""):
        meant = f"Did you mean '{near}'? " if near else ""
        super().__init__(
            f"The model '{model[:100]}' does not exist here. {meant}"
            "GET /api/v1/models lists those that do.",
            param="model",
        )


class MethodNotAllowed(RelayError):
    """The address exists but not for this method."""

    status = 405
    type = anthropic_type = "invalid_request_error"
    code = "method_not_allowed"
    sentence = "This address does not answer to that method."


class BodyTooLarge(RelayError):
    """The body, or what it inflates to, is over the limit."""

    status = 413
    type = "invalid_request_error"
    code = "body_too_large"
    anthropic_type = "request_too_large"
    sentence = "The request body is too large."


class UnsupportedEncoding(RelayError):
    """A Content-Encoding that we do not read."""

    status = 415
    type = anthropic_type = "invalid_request_error"
    code = "unsupported_encoding"
    sentence = "Send the body as it is, or with Content-Encoding gzip or deflate."


class UpgradeRequired(RelayError):
    """A websocket was asked for; a client that gets this posts instead."""

    status = 426
    type = anthropic_type = "invalid_request_error"
    code = "websocket_not_supported"
    sentence = "Websockets are not spoken here. Send the request with POST."


class RateLimited(RelayError):
    """Too many requests in the window. `retry_after` says when it frees."""

    status = 429
    type = anthropic_type = "rate_limit_error"
    code = "rate_limit_exceeded"
    sentence = "Too many requests."


class Unavailable(RelayError):
    """The relay cannot take the call now.

    It is going down, full, or the model has no usable upstream.
    """

    status = 503
    type = "api_error"
    code = "unavailable"
    anthropic_type = "overloaded_error"
    sentence = "The relay cannot take this request now."


class Restarting(Unavailable):
    """The relay goes down; another process takes over in a moment."""

    code = "restarting"
    sentence = "The relay is restarting. Try again soon."


class OutOfTime(Unavailable):
    """An answer has taken as long as one may: nobody's stream lives for ever."""

    status = 504
    code = "answer_time_limit"
    anthropic_type = "timeout_error"
    sentence = "The answer took longer than this relay lets one take, and was ended."


class StorageFull(Unavailable):
    """The database cannot be written. A call that cannot be recorded is not relayed."""

    code = "storage_unavailable"
    sentence = "The relay cannot record requests now, so it relays none. Try again soon."


class UpstreamError(RelayError):
    """No target answered properly. The provider's own words stay in our log.

    `of_model`: this model is not to be had there; another target may have it, and the upstream is
    none the worse.
    """

    status = 502
    seen: int | None = None  # the status that the provider gave
    code: str | None = "upstream_error"
    of_model = False
    words = ""  # the provider's own, redacted: for whoever runs the relay
    sentence = "The model's provider failed to answer."


class UpstreamAccount(UpstreamError):
    """The provider refuses our key or our account.

    The operator's trouble, never shown as the member's own. `named`: it says that it is the key or
    the account. A bare 403 may as well be a firewall's that minds one request.
    """

    named = True
    code = "upstream_account"
    sentence = "The model's provider does not accept this relay's account at the moment. Tell its administrator."


class UpstreamOverloaded(UpstreamError):
    """All targets are busy."""

    status = 503
    code = "upstream_overloaded"
    anthropic_type = "overloaded_error"
    sentence = "The model's provider is overloaded. Try again soon."


class UpstreamBusy(UpstreamError):
    """All targets have said for how long they are busy, so none was tried.

    `retry_after` says when one is free.
    """

    status = 429
    type = "rate_limit_error"
    code = "upstream_busy"
    anthropic_type = "rate_limit_error"
    sentence = "The model's provider is busy. Try again soon."


class UpstreamUnavailable(UpstreamError):
    """All targets have failed again and again, so none was tried.

    `retry_after` says when one is tried again.
    """

    status = 503
    code = "upstream_unavailable"
    anthropic_type = "overloaded_error"
    sentence = "The model's providers are failing; they are tried again soon."


class UpstreamTimeout(UpstreamError):
    """No target answered in time."""

    status = 504
    code = "upstream_timeout"
    anthropic_type = "timeout_error"
    sentence = "The model's provider did not answer in time."


class UpstreamRefused(UpstreamError):
    """The provider says that the request itself is wrong.

    Its status, message, param and code are kept.
    """

    type = "invalid_request_error"

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None
    ):
        super().__init__(message, param=param)
        self.status = status
        self.code = code
        self.anthropic_type = {404: "not_found_error", 413: "request_too_large"}.get(
            status, "invalid_request_error"
        )


def let_go(err: BaseException) -> None:
    """Forget through what an error came, and those that led to it, once it has been told.

    Their frames know all that the call was made of, the request's megabytes too, and are known there:
    such circles would stay until the collector of cycles looks for them.
    """
    seen, waiting = set[int](), [err]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            waiting += [led for led in (each.__context__, each.__cause__) if led is not None]
