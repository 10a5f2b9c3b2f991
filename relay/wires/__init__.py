"""The APIs that clients speak, each in a module, and the chat wire in the middle of them."""
