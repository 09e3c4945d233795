"""The console's API below /api/v0: what the provider's published descriptions say, and its quirks.

Source: the provider's OpenAPI descriptions of the endpoints, and for what they leave out (which
error a bad key gets, the plain-text 429, the double-encoded list) what its open clients expect.
"""

from sandbox.api.mount import add_api

__all__ = ["add_api"]
