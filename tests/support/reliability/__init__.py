"""What the tests of reliability share: faults on demand, crashes, load, and the figures they bring."""
