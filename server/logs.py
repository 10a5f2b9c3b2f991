"""What the log looks like: plain lines for a person, or JSON lines for a machine.

Owns formats and redaction. Whatever is logged, nothing that looks like a token, a key or a password
leaves, and one record is one line.
"""

import json
import logging
import re
import sys
import time

_secret = re.compile(
    r"(sk-[A-Za-z0-9_-]{8,}|bce-v3/\S+|(?i:bearer\s+)\S+"
    r"|(?i:(?:api[_-]?key|password|authorization|cookie)[\"']?\s*[:=]\s*)[\"']?[^\s\"',}]+)"
)


def set_up(style: str, level: int = logging.INFO) -> None:
    """Log to standard error as `plain` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if style == "json" else PlainLines())
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    logging.getLogger("waitress").setLevel(logging.WARNING)


class PlainLines(logging.Formatter):
    """`2026-11-23 19:50:17 INFO relay: a sentence`; a traceback follows on lines of its own."""

    def __init__(self):
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = _one_line(record.message)
        return redacted(super().formatMessage(record))

    def formatException(self, exc_info) -> str:
        return redacted(super().formatException(exc_info))


class JsonLines(logging.Formatter):
    """One JSON object a line.

    Time (UTC), level, logger, message, and the traceback if there is one.
    """

    converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
        }
        if record.exc_info:
            fields["traceback"] = redacted(self.formatException(record.exc_info))
        return json.dumps(fields, ensure_ascii=False)


def redacted(text: str) -> str:
    """The text without secrets."""
    return _secret.sub("***", text)


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")
