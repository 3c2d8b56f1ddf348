"""What the vendor gives a scanner: service tickets, and a certificate for all its devices with its key."""
