"""The command line. Each module is one command, and thin: what it does is done elsewhere."""
