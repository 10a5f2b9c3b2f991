"""What people come for, from the first click to the last, in real Chromium on the real server."""

import re

import pytest

import billing
from members import accounts, tokens
from relay.limits import Memory
from tests.browser_stage import Visitors, fits, sign_in
from tests.fake_upstream import FakeUpstream, Gate, answer, stream
from tests.providers import chunk, usage, usage_chunk
from tests.stage import (
    configuration,
    free_port,
    in_process,
    in_thread,
    model_config,
    shown_config,
    write_config,
)
from tests.wires.scripted_model import Says

PASSWORD = "some words in a row"
PLANS = {
    "free": {"requests_per_minute": 60, "input_tokens_max": 5000},
    "pro": {
        "title": "Pro",
        "price": "29.90",
        "quota": "40.00",
        "requests_per_minute": 600,
        "discount": "0.80",
    },
}
ANSWER = ".turn.theirs:last-child"
HOSTILE = """<img src=x onerror="document.title='taken'"><script>document.title='taken'</script>
</textarea></div>**bold** &lt;b&gt; \u202egnirts \u2066 [click](javascript:alert(1)) {{ 7 * 7 }}"""


@pytest.fixture(scope="module")
def model():
    """The provider behind the relay of this file."""
    with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def relay(model, tmp_path_factory):
    """A relay with a fake provider, the usual plans, and carol as its administrator."""
    folder = tmp_path_factory.mktemp("journeys")
    config = configuration(
        folder,
        model.url,
        {
            "models": [
                model_config(title="Test Model"),
                model_config("other-model", title="Other Model"),
                model_config("seeing-model", title="Seeing Model", images=True),
            ]
        },
    )
    started = in_thread(
        write_config(folder, config | {"plans": PLANS, "site": {"language": "en"}}),
        folder / "relay.db",
    )
    accounts.add(started.db, "carol", PASSWORD, role="admin")
    yield started
    started.stop()


@pytest.fixture
def visit(chromium, relay, model):
    """Opens pages of the relay; whatever a console complains of fails the test."""
    model.always(Says("Hello, world!"))
    limiter = relay.app.extensions["relay"].limiter
    limiter.storage = Memory()  # tests come faster than people sign in
    with Visitors(chromium, relay.url) as visitors:
        yield visitors


@pytest.fixture
def carol(visit):
    """The administrator's browser."""
    page = visit("/login")
    sign_in(page, "carol", PASSWORD)
    return page


@pytest.fixture
def member(relay):
    """Makes a member: `member("dora", wallet="10")`; the account."""

    def make(name: str, wallet: str = "0", grant: int = 0):
        who = accounts.add(relay.db, name, PASSWORD)
        if billing.nano(wallet):
            billing.credit(relay.db, who.id, "wallet", billing.nano(wallet))
        if grant:
            billing.credit(relay.db, who.id, "grant", grant, "reward")
        return who

    return make


@pytest.fixture
def signed_in(visit, member):
    """Opens a browser in which a new member is signed in.

    `signed_in("dora", wallet="10", width=360)`.
    """

    def open_(name: str, wallet: str = "0", grant: int = 0, **options):
        member(name, wallet, grant)
        page = visit("/login", **options)
        sign_in(page, name, PASSWORD)
        return page

    return open_


def make_token(page, name: str = "laptop") -> str:
    """Make a token on its page; the token, as it is shown this once."""
    page.goto("/console/tokens/new")
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Create the API key").click()
    return page.locator("#fresh-token").inner_text()


def say(page, text: str = "Say hello.") -> None:
    page.get_by_label("Your message").fill(text)
    page.get_by_role("button", name="Send").click()


def see(page, text: str) -> None:
    """Wait until the page says so."""
    page.get_by_text(text).wait_for()


def told(page, words: str) -> str:
    """What stands below the newest answer, once it holds these words."""
    page.locator(f"{ANSWER} .state", has_text=re.compile(words)).wait_for()
    return page.locator(f"{ANSWER} .state").inner_text()


def test_from_the_first_start_to_the_first_paid_answer(chromium, tmp_path):
    port = free_port()
    relay = in_process(
        shown_config(tmp_path, port),
        {"database": {"path": tmp_path / "relay.db"}, "server": {"port": port}},
    )
    try:
        with Visitors(chromium, relay.url) as visit:
            address = re.search(r"http://\S+/setup\?key=\S+", relay.log.read_text())[0]
            page = visit(address)
            page.get_by_label("Name").fill("ada")
            page.get_by_label("Password", exact=True).fill(PASSWORD)
            page.get_by_label("Once more").fill(PASSWORD)
            page.get_by_role("button", name="Make me the administrator").click()
            page.get_by_role("link", name="Create an API key").click()
            page.get_by_label("Name").fill("first")
            page.get_by_role("button", name="Create the API key").click()
            page.get_by_role("link", name="Try it in the model test").click()
            say(page)
            cost = told(page, "Token balance: ")
            assert "built-in demo" in page.locator(f"{ANSWER} .answer").inner_text()
            paid = int(re.search(r"Token balance: (\d+) tokens", cost)[1])
            page.locator(f"{ANSWER} .tail a").click()
            assert page.locator("tr.sum td").nth(1).inner_text() == str(paid)
            page.get_by_role("link", name="Overview").locator("visible=true").click()
            assert page.locator(".trio .value").first.inner_text() == f"{100_000 - paid:,}"
            page.goto(address)
            assert "not valid" in page.locator("h1").inner_text()
            page.expected = ["404"]
    finally:
        relay.stop()


def test_an_invited_person_comes_makes_a_token_and_talks_to_a_model(visit, carol, model, relay):
    carol.get_by_role("link", name="Invites").locator("visible=true").click()
    link = carol.locator("#invite-link").inner_text()
    page = visit(link.replace("http://127.0.0.1:8000", relay.url))
    see(page, "carol invites you.")
    page.get_by_label("Name").fill("dora")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Once more").fill("other words in a row")
    page.get_by_role("button", name="Create account").click()
    see(page, "The two passwords differ.")
    assert page.get_by_label("Name").input_value() == "dora"  # what was typed is kept
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Once more").fill(PASSWORD)
    page.get_by_role("button", name="Create account").click()
    see(page, "Welcome, dora.")
    dora = accounts.named(relay.db, "dora")
    billing.credit(relay.db, dora.id, "grant", -100_000, "adjust")
    billing.credit(relay.db, dora.id, "wallet", billing.nano("5"))  # a reward is for money only

    raw = make_token(page, "Dora's laptop")
    page.locator("[data-copy=fresh-token]").click()
    page.wait_for_function(
        "raw => navigator.clipboard.readText().then((text) => text === raw)", arg=raw
    )
    page.get_by_role("tab", name="Codex CLI").click()
    assert raw in page.locator("#codex-snippet-codex-sh").inner_text()
    page.get_by_label("Model in the examples").select_option("other-model")
    page.locator("#codex-snippet-codex-toml", has_text='model = "other-model"').wait_for(
        state="attached"
    )
    assert page.locator("#fresh-token").inner_text() == raw

    page.get_by_role("link", name="Try it in the model test").click()
    pause = Gate()
    model.next(
        stream(
            chunk() | {"choices": [{"index": 0, "delta": {"reasoning_content": "Let me think."}}]},
            chunk("First words"),
            pause,
            chunk(", last words.", finish="stop"),
            usage_chunk(usage()),
        )
    )
    page.get_by_label("Model", exact=True).select_option("test-model")
    say(page)
    page.locator(
        f"{ANSWER} .answer", has_text="First words"
    ).wait_for()  # while the model still speaks
    assert page.get_by_role("button", name="Stop").is_visible()
    assert page.locator(f"{ANSWER} .thought .said").text_content() == "Let me think."
    pause.open()
    assert told(page, "Price") == "Price ¥0.00012 · Wallet: ¥0.00012 · 20 in, 10 out"
    assert page.locator(f"{ANSWER} .answer").inner_text() == "First words, last words."

    carol.reload()
    assert "dora" in carol.locator("tbody tr").first.inner_text()
    assert "50,000 tokens" in carol.locator("tbody tr").first.inner_text()


def test_an_answer_is_stopped_and_its_beginning_is_charged(signed_in, model, relay):
    page = signed_in("stopper", wallet="1")
    make_token(page)
    page.get_by_role("link", name="Try it in the model test").click()
    pause = Gate()
    model.next(stream(chunk("A beginning of some words"), pause, chunk(" and no end")))
    say(page)
    page.locator(f"{ANSWER} .answer", has_text="A beginning").wait_for()
    page.get_by_role("button", name="Stop").click()
    assert re.match(
        r"Stopped by you\. · Price ¥\S+ · Wallet: ¥\S+ · \d+ in, \d+ out · estimated$",
        told(page, "Price"),
    )
    assert model.requests[-1].gone.wait(60)  # the provider was left, too
    say(page, "Go on.")
    assert "20 in, 10 out" in told(page, "Price")
    spoken = [(each["role"], each["content"]) for each in model.requests[-1].json["messages"]]
    assert spoken == [
        ("user", "Say hello."),
        ("assistant", "A beginning of some words"),
        ("user", "Go on."),
    ]
    assert relay.ledger_is_right()


def test_what_is_set_for_an_answer_is_asked_of_the_model(signed_in, model):
    page = signed_in("setter", wallet="1")
    make_token(page)
    page.get_by_role("link", name="Try it in the model test").click()
    page.locator("summary", has_text="Settings").click()
    page.get_by_label("Temperature").fill("0.3")
    page.get_by_label("Longest answer").fill("200")
    page.get_by_label("Style of the answer").select_option("short")
    page.get_by_label("System prompt").fill("You are a pirate.")
    page.get_by_label("Your message").fill("Hello?")
    page.get_by_label("Your message").press("Enter")
    told(page, "Price")
    body = model.requests[-1].json
    assert (body["temperature"], body["max_tokens"]) == (0.3, 200)
    system, question = body["messages"]
    assert system["content"].startswith("You are a pirate.") and "briefly" in system["content"]
    assert question == {"role": "user", "content": "Hello?"}
    page.get_by_role("button", name="New conversation").click()
    assert page.locator(".turn").count() == 0


def test_whatever_a_model_says_stays_text(signed_in, model):
    page = signed_in("target", wallet="1")
    make_token(page, "<b>bold</b>")
    page.get_by_role("link", name="Try it in the model test").click()
    model.next(Says(HOSTILE, reasoning=HOSTILE))
    say(page, HOSTILE)
    told(page, "Price")
    for part in (".turn.mine .said", f"{ANSWER} .thought .said"):
        assert page.locator(part).text_content() == HOSTILE
    assert page.locator(f"{ANSWER} .answer").text_content() == HOSTILE.replace("**", "")
    model.next(answer({"error": {"message": HOSTILE, "type": "x", "code": None}}, status=400))
    say(page)
    page.locator(f"{ANSWER} .alert", has_text="onerror").wait_for()
    page.expected = ["400"]
    assert page.locator("#talk :is(img, script, a[href^=javascript])").count() == 0
    assert page.title().startswith("Model test")


def test_a_code_becomes_a_plan_and_the_plans_price_is_charged(signed_in, carol, relay):
    carol.goto("/admin/codes/new")
    carol.get_by_label("Amount").fill("30")
    carol.get_by_label("How many").fill("1")
    carol.get_by_role("button", name="Make the codes").click()
    code = carol.locator("#fresh-codes").inner_text().strip()

    page = signed_in("buyer")
    page.get_by_role("link", name="Redeem a code").click()
    page.get_by_label("Code").fill("no-such-code")
    page.get_by_role("button", name="Redeem").click()
    see(page, "This code is not valid, or has been used.")
    page.get_by_label("Code").fill(code.lower())
    page.get_by_role("button", name="Redeem").click()
    see(page, "¥30.00 were added to your wallet.")
    page.get_by_role("link", name="Buy Pro").click()
    page.get_by_role("button", name="Buy for ¥29.90").click()
    see(page, "You have the plan Pro until")
    values = page.locator(".trio .value")
    assert (values.nth(1).inner_text(), values.nth(2).inner_text()) == ("¥40.00", "¥0.10")

    make_token(page)
    page.get_by_role("link", name="Try it in the model test").click()
    say(page)
    assert told(page, "Price") == "Price ¥0.000096 · Plan quota: ¥0.000096 · 20 in, 10 out"
    page.locator(f"{ANSWER} .tail a").click()
    lines = page.locator("tbody tr").all_inner_texts()
    assert "¥1.6" in lines[0] and "¥6.4" in lines[2]  # four fifths of 2 and 8 per million
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Models").click()
    assert "¥1.6" in page.locator("table.models tr", has_text="Test Model").inner_text()
    assert relay.ledger_is_right()


def test_an_administrator_credits_shuts_out_and_lets_in_again(visit, carol, member, relay):
    who = member("eve")
    token = tokens.mint(relay.db, who.id, "laptop")[1]
    page = visit("/login")
    sign_in(page, "eve", PASSWORD)
    assert relay.client(token).chat().status == 402

    carol.goto("/admin/members")
    carol.get_by_label("Name").fill("eve")
    carol.get_by_role("button", name="Show").click()
    carol.get_by_role("link", name="eve").click()
    carol.get_by_label("Amount").fill("5")
    carol.get_by_label("Note").fill("for trying things out")
    carol.get_by_role("button", name="Credit").click()
    see(carol, "Done: ¥5.00 for eve.")
    assert relay.client(token).chat().status == 200
    page.goto("/console/wallet")
    assert "for trying things out" in page.locator("main").inner_text()

    carol.get_by_role("link", name="Disable").click()
    carol.get_by_role("button", name="Disable").click()
    see(carol, "eve is disabled.")
    assert relay.client(token).chat().status == 401
    page.reload()
    page.wait_for_url("**/login?*")
    page.get_by_label("Name").fill("eve")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    see(page, "The name or the password is wrong.")

    carol.get_by_role("button", name="Re-enable").click()
    assert relay.client(token).chat().status == 200
    sign_in(page, "eve", PASSWORD)
    assert page.locator(".trio .value").last.inner_text().startswith("¥4.99")
    carol.goto("/admin/audit")
    trail = carol.locator("tbody").inner_text()
    assert trail.count("eve") >= 3


def test_keys_are_enough_to_sign_in_and_to_make_a_token(visit, member):
    member("frida", wallet="1")
    page = visit("/")
    _walk_to(page, "Sign in")
    page.keyboard.press("Enter")
    page.wait_for_url("**/login")
    page.locator("input:focus").wait_for()  # the browser gives it after the page was loaded
    page.keyboard.type("frida")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/console")
    _walk_to(page, "New API key")
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/tokens/new")
    page.locator("input:focus").wait_for()
    page.keyboard.type("keyboard")
    _walk_to(page, "Create the API key")
    page.keyboard.press("Space")
    page.locator("#fresh-token").wait_for()
    _walk_to(page, "Copy")
    page.keyboard.press("Enter")
    raw = page.locator("#fresh-token").inner_text()
    page.wait_for_function(
        "raw => navigator.clipboard.readText().then((text) => text === raw)", arg=raw
    )
    _walk_to(page, "Try it in the model test")
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/test?token=*")
    _walk_to(page, "", "text")
    page.keyboard.type("Say hello.")
    page.keyboard.press("Enter")
    assert "20 in, 10 out" in told(page, "Price")


MARKDOWN = """# Plan
A **bold** word, *one* more and `code < 5`.

1. first
2. second
   - inner

| a | b |
|---|---|
| 1 | <b>2</b> |

```js
alert("<script>")
```
> quoted
[safe](https://example.com/x) [bad](javascript:alert(1)) ![pic](https://example.com/p.png)
<img src=x onerror=alert(1)>"""


def test_an_answer_is_shown_as_markdown_and_nothing_of_it_runs(signed_in, model):
    page = signed_in("ivan", wallet="1")
    make_token(page)
    page.goto("/console/test")
    model.next(Says(MARKDOWN))
    page.locator("#text").fill("Show me.")
    page.locator("#send").click()
    told(page, "Price")
    answer = page.locator(f"{ANSWER} .answer")
    assert answer.locator("h4").inner_text() == "Plan"
    assert answer.locator("strong").inner_text() == "bold"
    assert answer.locator("ol > li").count() == 2 and answer.locator("ol ul > li").count() == 1
    assert answer.locator("td").all_inner_texts() == ["1", "<b>2</b>"]
    assert answer.locator("pre code").inner_text() == 'alert("<script>")'
    assert answer.locator("blockquote").inner_text() == "quoted"
    links = answer.locator("a")
    assert [links.nth(n).get_attribute("href") for n in range(links.count())] == [
        "https://example.com/x",
        "https://example.com/p.png",
    ]
    assert links.first.get_attribute("rel") == "noopener noreferrer nofollow"
    assert answer.locator("img, script, b").count() == 0
    assert "<img src=x" in answer.inner_text()
    assert "first word after" in page.locator(f"{ANSWER} .speed").inner_text()


@pytest.mark.parametrize(
    "text",
    ["*" * 20_000, "[" * 20_000, "`" * 20_001, "> " * 5_000 + "x", "- \n" * 5_000, "|" * 20_000],
    ids=["stars", "brackets", "ticks", "quotes", "items", "bars"],
)
def test_no_answer_makes_the_page_slow(signed_in, model, text, request):
    page = signed_in(f"judy-{request.node.callspec.id}", wallet="1")
    make_token(page)
    page.goto("/console/test")
    took = page.evaluate(
        "text => { const began = performance.now(); markdown(text); return performance.now() - began }",
        text,
    )
    assert took < 2_000


def _walk_to(page, text: str, id_: str | None = None) -> None:
    """Press Tab until the focus is on what has this text (or id), and can be seen to be there."""
    for _ in range(60):
        page.keyboard.press("Tab")
        here = page.evaluate("""() => { const e = document.activeElement; const s = getComputedStyle(e);
          return [e.textContent.trim(), e.id, s.outlineStyle] }""")
        if here[1] == id_ if id_ else here[0] == text:
            assert here[2] == "solid"
            return
    raise AssertionError(f"the focus never came to {id_ or text}")


def test_everything_but_streams_works_without_scripts(signed_in, relay):
    page = signed_in("grace", wallet="30", scripts=False)
    raw = make_token(page)
    assert relay.client(raw).chat().status == 200
    assert page.get_by_role(
        "heading", name="Codex CLI"
    ).is_visible()  # tabs are sections one below the other
    page.get_by_label("Model in the examples").select_option("other-model")
    page.get_by_role("button", name="Fill in").click()
    page.locator("#codex-snippet-codex-toml", has_text='model = "other-model"').wait_for()
    page.goto("/console/test")
    assert "This page needs JavaScript" in page.locator("noscript .alert").inner_text()
    page.goto("/console/usage")
    page.get_by_label("Status").select_option("complete")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**outcome=complete*")
    assert page.locator("table.calls tbody tr").count() == 1
    page.goto("/console/wallet/plans/pro")
    page.get_by_role("button", name="Buy for ¥29.90").click()
    see(page, "You have the plan Pro until")
    page.goto("/console/tokens")
    page.get_by_role("link", name="Revoke laptop").click()
    page.get_by_role("button", name="Revoke").click()
    see(page, "The API key laptop is revoked.")
    assert relay.client(raw).chat().status == 401
    page.goto("/console/account")
    page.locator("select[name=language]").select_option("zh")
    page.locator("main form", has=page.locator("select[name=language]")).get_by_role(
        "button"
    ).click()
    page.locator("h1", has_text="账户").wait_for()
    page.get_by_role("button", name="退出登录").click()
    page.wait_for_url("**/login")


def test_a_conversation_fits_a_phone(signed_in, model):
    page = signed_in("heidi", wallet="1", width=360, theme="dark", language="zh-CN")
    page.goto("/console/tokens/new")
    page.locator("#name").fill("手机")
    page.locator("main form button.primary").click()
    assert fits(page)
    page.goto("/console/test")
    model.next(Says("A word as long as a line: " + "x" * 400))
    page.locator("#text").fill("y" * 400)
    page.locator("#send").click()
    told(page, "¥")
    assert fits(page)


def test_two_models_answer_side_by_side_each_in_its_own_conversation(signed_in, relay):
    page = signed_in("karl", wallet="1")
    make_token(page)
    page.goto("/console/test")
    page.locator("#other").select_option("other-model")
    for number, text in enumerate(("Say hello.", "And again."), 1):
        page.locator("#text").fill(text)
        page.locator("#send").click()
        page.wait_for_function(
            "n => [...document.querySelectorAll('.versus')].length === n"
            " && [...document.querySelectorAll('.versus:last-child .tail a')].every(a => a.href)",
            arg=number,
        )
    columns = page.locator(".versus").last.locator(".turn")
    assert columns.count() == 2
    left, right = (columns.nth(n).bounding_box() for n in range(2))
    assert left["y"] == right["y"] and left["x"] < right["x"]
    mine = "SELECT model FROM requests JOIN users ON users.id = user_id WHERE users.name = 'karl'"
    with relay.db.read() as conn:
        asked = [row["model"] for row in conn.execute(mine)]
    assert sorted(asked) == ["other-model", "other-model", "test-model", "test-model"]


def test_pictures_go_to_a_model_that_sees_them(signed_in, model):
    page = signed_in("lena", wallet="1")
    make_token(page)
    page.goto("/console/test?model=seeing-model")
    page.locator("#pictures").set_input_files(
        {"name": "dot.png", "mimeType": "image/png", "buffer": b"\x89PNG dot"}
    )
    model.next(Says("A dot."))
    page.locator("#text").fill("What is it?")
    page.locator("#send").click()
    told(page, "Price")
    assert page.locator(".turn.mine img").count() == 1
    sent = model.requests[-1].json["messages"][-1]["content"]
    assert [part["type"] for part in sent] == ["text", "image_url"]
    assert sent[1]["image_url"]["url"] == "data:image/png;base64,iVBORyBkb3Q="
    page.locator("#model").select_option("test-model")
    assert not page.locator("#pictures-field").is_visible()
