"""A scripted provider behind TLS, with a certificate for 127.0.0.1 that nobody has signed."""

import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.fake_upstream import FakeUpstream


class Secret(FakeUpstream):
    """An upstream behind TLS; `certificate` is the file of its certificate."""

    def __init__(self, folder: Path):
        super().__init__()
        self.certificate = folder / "cert.pem"
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.certificate, folder / "key.pem")

    def _serve(self, connection: socket.socket) -> None:
        try:
            super()._serve(self.context.wrap_socket(connection, server_side=True))
        except OSError:
            connection.close()  # who does not trust us leaves


def certify(folder: Path) -> Path:
    """Make key.pem and cert.pem in a folder; returns it."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    named = ["-subj", "/CN=here", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run([*new, *named, *files], check=True, capture_output=True)
    return folder
