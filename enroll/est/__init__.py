"""The client side of Enrollment over Secure Transport (RFC 7030, RFC 8951, RFC 9908); see `enroll.est.client`."""
