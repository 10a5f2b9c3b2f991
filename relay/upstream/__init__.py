"""The line to the providers.

Whom to ask, how to say it, and what their answers and failures mean.
"""
