"""The commands: arguments, output for people, and errors as exit codes."""
