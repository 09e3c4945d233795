"""The Keys page: the console's own page for people, rendered on the server."""
