"""The commands: the only place where objects are built and errors become exit codes."""
