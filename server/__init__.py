"""The one process: its listener, its background jobs, its logs and notices, and how it is doing."""
