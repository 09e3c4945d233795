"""keysync: keeps authorized_keys in step with the account's SSH keys."""

__version__ = "0.1.0"
