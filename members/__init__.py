"""Who may call: the accounts of members, and the keys they make."""
