"""What an address in the settings must look like, and how a mistake says so.

Owns their forms alone: where an address leads, nobody looks here.
"""

from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

NETWORKS = "IP addresses or networks, with commas between them"
URL = "an http or https address without user, query or fragment"
QUERIED_URL = "an http or https address without user or fragment"
ISSUER = "https, but for a host of the local network"
LOCAL = (".local", ".lan", ".internal", ".home.arpa", ".localhost")
EMAIL_MAX = 255  # letters
WIDEST = {4: 8, 6: 16}  # bits of the prefix, by the version of IP
PROXY = "an address like http://host:port or socks5://host:port"


def is_url(url: str) -> bool:
    """An http or https address with nothing but a host, a port and a path."""
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and not any(sign in url for sign in "@?#")
            and url.isprintable()
            and " " not in url
        )
    except ValueError:
        return False


def is_queried_url(url: str) -> bool:
    """The same; a version of the API, or a robot's key, may stand behind a question mark."""
    return is_url(url.partition("?")[0]) and not any(sign in url for sign in "@# ")


def is_proxy(url: str) -> bool:
    """A proxy's address, or nothing. `@` stands before the host of one that wants a password."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "socks5", "socks5h") and bool(parts.hostname)
        return not url or (known and parts.port != 0 and parts.path in ("", "/") and " " not in url)
    except ValueError:
        return False


def is_network(text: str) -> bool:
    """An IP address, or a network of them."""
    try:
        return bool(ip_network(text.strip(), strict=False))
    except ValueError:
        return False


def is_wide(networks: str) -> bool:
    """Whether one of these networks is so wide that strangers are in it."""
    known = [
        ip_network(each.strip(), strict=False) for each in networks.split(",") if is_network(each)
    ]
    return any(each.prefixlen < WIDEST[each.version] for each in known)


def is_email(text: str) -> bool:
    """An e-mail address: one @ with something on both sides, and no letter that hides."""
    name, at, domain = text.partition("@")
    whole = bool(name and at and domain) and "@" not in domain and len(text) <= EMAIL_MAX
    return whole and text.isprintable() and " " not in text


def in_small_letters(text: str) -> str:
    """The text with A to Z made small, and no other letter: some that look foreign become Latin
    ones elsewhere (the Kelvin sign a k), and an address another's."""
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def is_local_name(name: str) -> bool:
    """Whether a host's name is one that the internet cannot have: without a dot, or under the
    endings of local networks."""
    return "." not in name or name.endswith(LOCAL)


def is_issuer(url: str) -> bool:
    """The address of an identity provider: https, or within the local network."""
    parts = urlsplit(url)
    name = (parts.hostname or "").rstrip(".")
    try:
        return parts.scheme == "https" or ip_address(name).is_private
    except ValueError:
        return ":" not in name and is_local_name(name)
