"""What runs: one cycle of reconciling, and the report of who can log in."""
