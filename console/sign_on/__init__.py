"""Single sign-on: members come by an identity provider, or named by a trusted proxy."""
