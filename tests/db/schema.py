"""The schema, as far as a file keeps it."""

import hashlib
import re

from db import SCHEMA


def digest() -> str:
    """Of the statements of models.sql, without comments and white space."""
    text = re.sub(r"--[^\n]*", "", SCHEMA.read_text(encoding="utf-8"))
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:16]
