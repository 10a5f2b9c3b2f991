"""The documentation pages, their snippets, and the description of the API."""
