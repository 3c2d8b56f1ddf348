"""Proof of where a key lives, for those who were not there when it was made; see docs/attestation.md."""
