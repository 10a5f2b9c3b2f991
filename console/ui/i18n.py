"""Languages: which one a visitor reads, and the sentences in it.

English is what the code says; `translations/<language>/<area>.po` says the same in another
language, one file per area so that two people never edit the same one. Catalogues are compiled when
missing or stale, at the first use. Refuses to know pages. `python -m console.ui.i18n` compiles
everything and names what is untranslated.
"""

import gettext as stdlib_gettext
import io
import threading
from functools import cache
from pathlib import Path

from flask import g, has_request_context, request

from console.context import site

FOLDER = Path(__file__).resolve().parent.parent.parent / "translations"
LANGUAGES = {"zh": "中文", "en": "English"}
COOKIE = "lang"
_loading = threading.Lock()


def compiled(po: Path) -> bytes:
    """The .mo bytes of a .po file.

    From the file beside it if that is newer, else compiled and kept there.
    """
    mo = po.with_suffix(".mo")
    if mo.exists() and mo.stat().st_mtime >= po.stat().st_mtime:
        return mo.read_bytes()
    # Here and not above: it takes a tenth of a second that most starts need not spend.
    from babel.messages import mofile, pofile

    out = io.BytesIO()
    with po.open("rb") as lines:
        mofile.write_mo(out, pofile.read_po(lines, locale=po.parent.name))
    try:
        mo.write_bytes(out.getvalue())
    except OSError:
        pass  # a read-only installation compiles once per start instead
    return out.getvalue()


@cache
def _load(language: str) -> stdlib_gettext.NullTranslations:
    merged = stdlib_gettext.NullTranslations()
    for po in sorted((FOLDER / language).glob("*.po")):
        area = stdlib_gettext.GNUTranslations(io.BytesIO(compiled(po)))
        if isinstance(merged, stdlib_gettext.GNUTranslations):
            merged._catalog.update(
                area._catalog
            )  # one look-up for all areas; a chain would cost one per area
        else:
            merged = area
    return merged


def translations(language: str) -> stdlib_gettext.NullTranslations:
    """The sentences of one language; unknown sentences answer themselves."""
    with _loading:
        return _load(language)


def language() -> str:
    """The visitor's language: ?lang, the cookie, what the browser prefers, the site's setting."""
    if not has_request_context():
        return "en"
    if "language" not in g:
        g.language = _choose()
    return g.language


def _choose() -> str:
    for wish in (request.args.get("lang"), request.cookies.get(COOKIE)):
        if wish in LANGUAGES:
            return wish
    preferred = (
        request.accept_languages.best_match(["zh", "en"]) if request.accept_languages else None
    )
    return preferred or site().language


def gettext(message: str, **values) -> str:
    """The sentence in the visitor's language, `%(name)s` filled in from the values."""
    text = translations(language()).gettext(message)
    return text % values if values else text


def ngettext(one: str, many: str, n: int, **values) -> str:
    """The same for a sentence that counts; `%(num)s` is the count."""
    return translations(language()).ngettext(one, many, n) % {"num": n, **values}


class lazy_gettext:
    """A sentence written when a module is loaded (form labels, tables of names), translated when it
    is shown."""

    def __init__(self, message: str):
        self.message = message

    def __str__(self) -> str:
        return gettext(self.message)

    __html__ = __str__

    def __mod__(self, values) -> str:
        return str(self) % values  # WTForms fills in what its validators know

    def __repr__(self) -> str:
        return f"lazy_gettext({self.message!r})"


def install(app) -> None:
    """Gives the templates `_`, `{% trans %}` and `language`."""
    app.jinja_env.add_extension("jinja2.ext.i18n")
    app.jinja_env.policies["ext.i18n.trimmed"] = True
    app.jinja_env.install_gettext_callables(
        lambda message: translations(language()).gettext(message),
        lambda one, many, n: translations(language()).ngettext(one, many, n),
        newstyle=True,
    )


def sentences() -> dict[str, str]:
    """Every sentence that the templates and the code say, with the place where it is first said."""
    from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_file

    keywords = {**DEFAULT_KEYWORDS, "lazy_gettext": None, "_l": None}
    options = {"trimmed": "true", "silent": "false"}
    root, found = FOLDER.parent, {}
    sources = [
        (path, "jinja2.ext:babel_extract") for path in sorted((root / "templates").rglob("*.html"))
    ]
    sources += [(path, "python") for path in sorted((root / "console").rglob("*.py"))]
    for path, method in sources:
        for line, message, _comments, _context in extract_from_file(
            method, path, keywords=keywords, options=options
        ):
            one = message if isinstance(message, str) else message[0]
            found.setdefault(one, f"{path.relative_to(root)}:{line}")
    return found


def missing(language: str) -> dict[str, str]:
    """The sentences that have no translation in a language, with their places."""
    known = getattr(translations(language), "_catalog", {})
    return {
        one: place
        for one, place in sentences().items()
        if one not in known and (one, 0) not in known
    }


def main() -> int:
    """Compiles every catalogue and names what is untranslated; exit status 1 if anything is."""
    lacking = [
        (language, one, place)
        for language in LANGUAGES
        if language != "en"
        for one, place in missing(language).items()
    ]
    for language, one, place in lacking:
        print(f"{language}: {place}: {one!r}")
    return 1 if lacking else 0
