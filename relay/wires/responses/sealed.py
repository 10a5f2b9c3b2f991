"""Reasoning that a caller carries for us, sealed.

The relay keeps no answers, yet providers want the reasoning of a turn back (DeepSeek and Kimi
refuse the next call without it). So the caller gets it as `encrypted_content` and sends it back:
base64 of a signature and the deflated text. It is signed, not secret: the caller has the text as a
summary anyway.
"""

import base64
import binascii
import hashlib
import hmac
import zlib

MARK = "rs1."
SIGNATURE_BYTES = 16


def seal(text: str, key: bytes | str) -> str:
    packed = zlib.compress(text.encode())
    return MARK + base64.urlsafe_b64encode(_signature(packed, key) + packed).decode()


def unseal(sealed: object, key: bytes | str) -> str | None:
    """The text, or None if it was not sealed with this key. Nothing unsigned is ever inflated."""
    if not key or not isinstance(sealed, str) or not sealed.startswith(MARK):
        return None
    try:
        data = base64.b64decode(sealed[len(MARK) :].encode(), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    signature, packed = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(packed, key)):
        return None
    return zlib.decompress(packed).decode()


def _signature(packed: bytes, key: bytes | str) -> bytes:
    key = key.encode() if isinstance(key, str) else key
    return hmac.new(key, b"reasoning:" + packed, hashlib.sha256).digest()[:SIGNATURE_BYTES]
