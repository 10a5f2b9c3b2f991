"""The relay.

This file stays empty, so that a leaf such as `relay.wires.sse` can be imported by itself.
"""
