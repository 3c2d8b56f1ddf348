"""What can be done to a signed image by intent or by accident, one entry each, and what the verifier says to it."""
