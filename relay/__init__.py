"""The API under /api/v1 and /v1."""
