"""What is said of revoked certificates: lists and OCSP, and what is known of those that this scanner uses."""
