"""Real client programs against the relay: `make clients`, or `python -m clients [NAME ...]`.

It proves what no test of our own can: that agents which members use today, installed from their
registries and told what our documentation tells their users, work. A scripted model stands behind
the relay; everything between is real.
"""
