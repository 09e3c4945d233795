"""Files on disk: opened safely, replaced atomically, with the right owner and mode."""
