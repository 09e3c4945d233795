"""The outside world: the API, key files, state, sshd. These move bytes; the rules are in core."""
