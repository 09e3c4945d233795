"""The world: the console's API, key files, state and sshd. These move bytes; rules are in core."""
