"""Small servers for trying out and for tests. NOT FOR PRODUCTION: keys lie unencrypted on disk, nothing is revoked."""
