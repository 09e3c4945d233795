"""Files on disk: found safely, replaced whole, owned by whom they should be."""
