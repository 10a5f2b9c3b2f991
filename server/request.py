"""A request as it comes: the usual head is read in few steps.

waitress is ready for anything in each line. Here one pattern sees that a head holds nothing but what
every client sends; whatever else may come, and whatever is wrong, is read by waitress.
"""

import re

from waitress.buffers import OverflowableBuffer
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.receiver import FixedStreamReceiver

# Of RFC 9112 the plain part: a path without escapes, names of letters, digits and hyphens, a value in
# one line. What has matched is never given back: the text is foreign.
_usual = re.compile(
    rb"([A-Z]++) (/[A-Za-z0-9._~/-]*+)(?:\?([!\"$-~]++))? HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]++:[\t -~\x80-\xff]*+\r\n)++)\r\n"
).fullmatch
_length = re.compile(r"[0-9]{1,15}", re.ASCII).fullmatch
UNUSUAL = frozenset(("TRANSFER_ENCODING", "EXPECT"))


class Request(HTTPRequestParser):
    """What waitress makes of a request, made in the usual case with less ado."""

    def parse_header(self, header_plus: bytes) -> None:
        """Read a head. Raises waitress' ParsingError, TransferEncodingNotImplemented."""
        found = _usual(header_plus)
        if found is not None and self._taken(*found.groups(b"")):
            return
        try:
            super().parse_header(header_plus)
        except ValueError as err:  # of an address such as http://[
            raise ParsingError("Bad URI") from err

    def _taken(self, command: bytes, path: bytes, query: bytes, fields: bytes) -> bool:
        """Take over a usual head; False, and nothing done, if its fields are not usual."""
        lines = [line.partition(":") for line in fields.decode("latin-1").split("\r\n")[:-1]]
        headers = {name.upper().replace("-", "_"): value.strip(" \t") for name, _, value in lines}
        length = headers.get("CONTENT_LENGTH", "0")
        once = len(headers) == len(lines)
        if not (once and UNUSUAL.isdisjoint(headers) and _length(length)):
            return False
        self.headers, self.version, self.command = headers, "1.1", command.decode()
        self.path, self.query = path.decode(), query.decode()
        self.request_uri = f"{self.path}?{self.query}" if query else self.path
        self.fragment = self.proxy_scheme = self.proxy_netloc = ""
        self.url_scheme = self.adj.url_scheme
        self.connection_close = headers.get("CONNECTION", "").lower() == "close"
        self.content_length = int(length)
        if self.content_length:
            self.body_rcv = FixedStreamReceiver(
                self.content_length, OverflowableBuffer(self.adj.inbuf_overflow)
            )
        return True
