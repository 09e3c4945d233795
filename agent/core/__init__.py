"""The rules: what may log in, and what a key file must say. Nothing here does IO."""
