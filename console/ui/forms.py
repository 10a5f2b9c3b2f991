"""The base of every form of the console: Flask-WTF with our languages.

WTForms' own sentences come from its own catalogues; ours win where both know a sentence. How a
number is typed on any page is here too; what it counts is for who asks.
"""

import re

from flask import request
from flask_wtf import FlaskForm
from wtforms import SelectChoice
from wtforms.i18n import get_translations as wtforms_sentences

from console.ui.i18n import gettext, language, ngettext

_thousands = re.compile(
    r"[+-]?[1-9]\d{0,2}(,\d{3}(,\d{3})*|[ \u00a0\u202f]\d{3}([ \u00a0\u202f]\d{3})*)(\.\d*)?",
    re.ASCII,
).fullmatch


def typed_number(text: str) -> str:
    """A number as it was typed on a page, without what stands between its thousands: 1,000.5 or
    1 000.5. Raises ValueError where a comma or a blank stands elsewhere: 1,5 is not 15."""
    text = text.strip()
    if not re.search(r"[,\s]", text):
        return text
    if not _thousands(text):
        raise ValueError(f"{text!r} is no number with groups of thousands")
    return re.sub(r"[,\s]", "", text)


class _Sentences:
    """What WTForms asks for its built-in messages, in the visitor's language."""

    def _theirs(self):
        return wtforms_sentences(["zh"] if language() == "zh" else ["en"])

    def gettext(self, message: str) -> str:
        ours = gettext(message)
        return ours if ours != message else self._theirs().gettext(message)

    def ngettext(self, one: str, many: str, n: int) -> str:
        ours = ngettext(one, many, n) if "%(num)" in one else (one if n == 1 else many)
        return ours if ours not in (one, many) else self._theirs().ngettext(one, many, n)


class Form(FlaskForm):
    """A form that shows its errors beside its fields.

    Only declared fields are read: no mass assignment.
    """

    class Meta(FlaskForm.Meta):
        def wrap_formdata(self, form, formdata):
            """What was typed.

            Files are not asked for anywhere, and one in place of a text is nothing.
            """
            return request.form if form.is_submitted() else None

        def get_translations(self, form):
            return _Sentences()

        def bind_field(self, form, unbound_field, options):
            """Typed text loses the blanks around it, passwords excepted."""
            filters = unbound_field.kwargs.get("filters", [])
            if unbound_field.field_class.__name__ in (
                "StringField",
                "TextAreaField",
                "SearchField",
            ):
                filters = [*filters, lambda text: text.strip() if isinstance(text, str) else text]
                return unbound_field.bind(form=form, filters=filters, **options)
            return unbound_field.bind(form=form, **options)


def options(pairs) -> list[SelectChoice]:
    """The choices of a select, radio or checkbox field, from (value, label) pairs or a dict."""
    return [
        SelectChoice(value, label)
        for value, label in (pairs.items() if isinstance(pairs, dict) else pairs)
    ]


def field_attributes(field, described: str, autofocus: bool) -> dict:
    """The HTML attributes that tie a field to its hint and its errors."""
    attributes = {}
    if described.strip():
        attributes["aria_describedby"] = described.strip()
    if field.errors:
        attributes["aria_invalid"] = "true"
    if autofocus:
        attributes["autofocus"] = True
    return attributes
