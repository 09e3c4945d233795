"""Installs keysync on a machine, and removes it again."""
