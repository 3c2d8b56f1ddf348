"""The device's identity: keys, certificates, how they are obtained, checked, renewed and given up."""
