"""The demo provider.

It stands in the process, and answers so that every tool can be tried without a key.
"""
