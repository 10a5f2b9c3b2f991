"""Single facts of the installation, by name: what one process wants another to know.

Owns the table `meta`'s free part: JSON values under names that begin with "fact:". Nothing secret
belongs here.
"""

import json
from typing import Any

from db import Database

PUT = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"


def put(db: Database, name: str, value: Any) -> None:
    """Keep a value (anything JSON) under a name, in place of what was there."""
    text = json.dumps(value)
    db.write(lambda conn: conn.execute(PUT, (f"fact:{name}", text)) and None)


def get(db: Database, name: str, otherwise: Any = None) -> Any:
    """The value of that name, or `otherwise`."""
    row = db.read().execute("SELECT value FROM meta WHERE key = ?", (f"fact:{name}",)).fetchone()
    return json.loads(row[0]) if row else otherwise
