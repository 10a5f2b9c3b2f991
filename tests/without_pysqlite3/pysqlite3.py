"""Stands before the real pysqlite3 where the suite is run with the system's SQLite."""

raise ImportError("hidden, to run with the SQLite of the system")
