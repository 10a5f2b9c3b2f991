"""What each chat tool wants of a notice: the body of the POST, the signature, and what refusal is.

Owns the forms of Feishu and Lark, DingTalk, WeCom, Slack, and our own. It sends nothing and knows no
settings. Sources: the tools' documents of custom bots (open.feishu.cn "custom bot usage guide",
open.dingtalk.com "custom robot access", developer.work.weixin.qq.com "group robot",
api.slack.com/messaging/webhooks).
"""

import base64
import hashlib
import hmac
from urllib.parse import quote, urlsplit

import msgspec

FORMS = {  # by the host of the address
    "open.feishu.cn": "feishu",
    "open.larksuite.com": "feishu",
    "oapi.dingtalk.com": "dingtalk",
    "qyapi.weixin.qq.com": "wecom",
    "hooks.slack.com": "slack",
}
TEXT_MAX = 2000  # characters: WeCom takes 2,048 bytes of text at most, others more
LEVELS = ("info", "warning", "error")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def form_of(url: str, form: str = "auto") -> str:
    """Which tool an address belongs to: feishu, dingtalk, wecom, slack or json."""
    return FORMS.get(urlsplit(url).hostname or "", "json") if form == "auto" else form


def request(url: str, form: str, secret: str, notice: dict, now_ms: int) -> tuple[str, bytes]:
    """The address and the body for a notice, signed where there is a secret.

    `notice` has `site`, `kind`, `message` and `at` (ms). It is signed with the time at which it is
    sent: the tools refuse a signature that is an hour old, and a notice may have waited for longer.
    """
    text = f"{notice['site']} · {notice['kind']}\n{notice['message']}"[:TEXT_MAX]
    if form == "feishu":
        # A member's name or a provider's words might be a tag that calls everybody.
        body = {"msg_type": "text", "content": {"text": text.replace("<", "＜")}}
        if secret:
            stamp = str(now_ms // 1000)
            sign = _signature(f"{stamp}\n{secret}".encode(), b"")
            body = {"timestamp": stamp, "sign": sign} | body
    elif form == "dingtalk":
        body = {"msgtype": "text", "text": {"content": text}}
        if secret:
            stamp = str(now_ms)
            sign = _signature(secret.encode(), f"{stamp}\n{secret}".encode())
            url += f"{'&' if '?' in url else '?'}timestamp={stamp}&sign={quote(sign, safe='')}"
    elif form == "wecom":
        body = {"msgtype": "text", "text": {"content": _short(text, TEXT_MAX)}}
    elif form == "slack":
        body = {"text": _escaped(text)}
    else:
        body = notice
    return url, _encode(body)


def refusal(form: str, answer: bytes) -> str:
    """Why a tool did not take a notice although it said 200; empty if it took it."""
    name = {"feishu": "code", "dingtalk": "errcode", "wecom": "errcode"}.get(form)
    if name is None:
        return ""
    try:
        doc = _decode(answer)
    except msgspec.DecodeError:
        return "an answer that cannot be read"
    code = doc.get(name, doc.get("StatusCode", 0)) if isinstance(doc, dict) else "?"
    return "" if code == 0 else f"{name} {code}"


def _escaped(text: str) -> str:
    """The text without Slack's control sequences, such as <!channel>."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _signature(key: bytes, message: bytes) -> str:
    return base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode()


def _short(text: str, bytes_max: int) -> str:
    """The text, cut to so many bytes."""
    return text.encode()[:bytes_max].decode(errors="ignore")
