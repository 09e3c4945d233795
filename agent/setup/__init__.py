"""Setting keysync up on a machine, and taking it away again."""
