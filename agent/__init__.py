"""keysync: keeps authorized_keys in sync with the account's SSH keys."""

__version__ = "0.1.0"
