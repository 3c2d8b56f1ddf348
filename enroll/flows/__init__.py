"""The ways to get a certificate. Each is one module; none imports another."""
