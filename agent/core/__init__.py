"""The rules: which keys may log in, and what a key file must contain. Nothing here does IO."""
