"""A stand-in for the platform on loopback: its console's API, an instance's sshd, and the demo."""
