"""Real ACME servers for tests."""
