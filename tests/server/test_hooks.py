"""Notices as the chat tools want them, and what they say when they do not take one."""

import base64
import hashlib
import hmac
import json
from urllib.parse import parse_qs, urlsplit

import pytest

from server import hooks, outbox
from server.notices import Notices
from settings import Hook, NoticeSettings, Settings, Site
from tests.fake_upstream import FakeUpstream, Gate, answer
from tests.settings.test_settings import check, mistakes
from tests.stage import wait_until

NOW_MS = 1_795_009_000_123  # two and a half hours later: a signature of then is refused by now
NOTICE = {"site": "Team", "kind": "disk", "message": "The disk is full.", "at": 1_795_000_000_123}
TEXT = "Team · disk\nThe disk is full."


def signed(key: str, message: str) -> str:
    return base64.b64encode(
        hmac.new(key.encode(), message.encode(), hashlib.sha256).digest()
    ).decode()


@pytest.mark.parametrize(
    ("url", "form", "body"),
    [
        (
            "https://open.feishu.cn/open-apis/bot/v2/hook/x",
            "feishu",
            {"msg_type": "text", "content": {"text": TEXT}},
        ),
        (
            "https://open.larksuite.com/open-apis/bot/v2/hook/x",
            "feishu",
            {"msg_type": "text", "content": {"text": TEXT}},
        ),
        (
            "https://oapi.dingtalk.com/robot/send?access_token=x",
            "dingtalk",
            {"msgtype": "text", "text": {"content": TEXT}},
        ),
        (
            "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=x",
            "wecom",
            {"msgtype": "text", "text": {"content": TEXT}},
        ),
        ("https://hooks.slack.com/services/T/B/x", "slack", {"text": TEXT}),
        ("https://house.example/notices", "json", NOTICE),
    ],
)
def test_each_tool_is_known_by_its_address_and_gets_its_form(url, form, body):
    assert hooks.form_of(url) == form and hooks.form_of(url, "json") == "json"
    sent_to, sent = hooks.request(url, form, "", NOTICE, NOW_MS)
    assert sent_to == url and json.loads(sent) == body


def test_feishu_is_signed_over_nothing_with_seconds():
    _, sent = hooks.request("https://open.feishu.cn/x", "feishu", "key", NOTICE, NOW_MS)
    body = json.loads(sent)
    assert body["timestamp"] == "1795009000"
    assert body["sign"] == signed("1795009000\nkey", "")


def test_dingtalk_is_signed_in_the_address_with_milliseconds():
    url, _ = hooks.request(
        "https://oapi.dingtalk.com/x?access_token=t", "dingtalk", "key", NOTICE, NOW_MS
    )
    query = parse_qs(urlsplit(url).query)
    assert query["timestamp"] == ["1795009000123"] and query["access_token"] == ["t"]
    assert query["sign"] == [signed("key", "1795009000123\nkey")]


@pytest.mark.parametrize("form", ["feishu", "slack"])
def test_nobodys_name_calls_everybody(form):
    message = 'The wallet of <at user_id="all"></at> <!channel> is empty.'
    _, sent = hooks.request("https://x", form, "", NOTICE | {"message": message}, NOW_MS)
    assert "<" not in sent.decode() and "wallet of" in sent.decode()


def test_wecom_never_gets_more_than_its_bytes():
    _, sent = hooks.request("https://x", "wecom", "", NOTICE | {"message": "满" * 5000}, NOW_MS)
    assert len(json.loads(sent)["text"]["content"].encode()) <= 2048


@pytest.mark.parametrize(
    ("form", "said", "refusal"),
    [
        ("feishu", b'{"code": 0, "msg": "success"}', ""),
        ("feishu", b'{"StatusCode": 0}', ""),
        ("feishu", b'{"code": 19021, "msg": "sign match fail"}', "code 19021"),
        ("dingtalk", b'{"errcode": 0}', ""),
        ("dingtalk", b'{"errcode": 310000, "errmsg": "keywords not in content"}', "errcode 310000"),
        ("wecom", b'{"errcode": 45009}', "errcode 45009"),
        ("wecom", b"<html>", "an answer that cannot be read"),
        ("slack", b"ok", ""),
        ("json", b"", ""),
    ],
)
def test_a_refusal_in_a_200_is_a_refusal(form, said, refusal):
    assert hooks.refusal(form, said) == refusal


@pytest.fixture
def tool():
    """A chat tool, listening."""
    with FakeUpstream() as upstream:
        yield upstream


def notices_to(*given) -> Notices:
    from relay.upstream.sender import Dispatcher

    rules = Settings(
        site=Site(name="Team"), notices=NoticeSettings(hooks=given), plans={}, upstreams=()
    )
    return Notices(rules, Dispatcher(1).notify)


def test_each_hook_hears_what_its_level_says(tool):
    tool.always(answer({"errcode": 0}))
    made = notices_to(
        Hook(url=f"{tool.url}/all", form="json", authorization="Bearer x"),
        Hook(url=f"{tool.url}/worst", form="wecom", level="error"),
    )
    made.tell("test", "One.", "info")
    made.tell("disk", "Two.", "error")
    tool.wait_for(3)
    assert [each.path for each in tool.requests] == ["/v1/all", "/v1/all", "/v1/worst"]
    assert tool.requests[0].headers["authorization"] == "Bearer x"


def test_a_hook_that_refuses_is_asked_again(tool, monkeypatch):
    monkeypatch.setattr(outbox, "PAUSE_S", 0.01)
    tool.next(answer({"errcode": 45009})).always(answer({"errcode": 0}))
    notices_to(Hook(url=tool.url, form="dingtalk")).tell("disk", "Full.")
    tool.wait_for(2)


def test_a_hook_that_answers_without_end_holds_up_no_other(tool, monkeypatch):
    """A byte now and then keeps every timeout of a socket away."""
    monkeypatch.setattr(outbox, "ATTEMPT_S", 0.1)
    monkeypatch.setattr(outbox, "PAUSE_S", 0.01)
    gate = Gate()
    with FakeUpstream() as endless:
        endless.always([gate, *answer({})])
        made = notices_to(Hook(url=endless.url, form="json"), Hook(url=tool.url, form="json"))
        tool.always(answer({}))
        for number in (1, 2, 3):
            made.tell("test", str(number))
            tool.wait_for(number)
        assert len(endless.requests) == 1, "it is asked again when it has let go"
        gate.open()
        endless.wait_for(2)


def test_a_trouble_is_told_once_and_when_it_is_over(tool):
    tool.always(answer({}))
    made = notices_to(Hook(url=tool.url, form="json"))
    for message in (None, "Full.", "Full.", "Still full.", None, None, "Full."):
        made.trouble("disk", message)
    tool.wait_for(3)
    wait_until(lambda: len(tool.requests) == 3)
    assert [each.json["message"] for each in tool.requests] == [
        "Full.",
        "Over: Still full.",
        "Full.",
    ]


@pytest.mark.parametrize(("header", "wrong"), [("Bearer x", False), ("", False), ("满", True)])
def test_the_header_of_a_hook_is_what_a_header_can_carry(header, wrong):
    hook = {"url": "https://house.example/n?key=1", "authorization": header}
    given = {"notices": {"hooks": [hook]}}
    if wrong:
        assert "notices.hooks[0].authorization" in mistakes(**given)[0]
    else:
        assert check(**given).notices.hooks[0].authorization == header
