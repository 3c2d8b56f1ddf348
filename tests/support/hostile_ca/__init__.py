"""A CA that misbehaves in every named way, and the scanner that renews at it."""
