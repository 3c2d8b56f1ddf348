"""What uses the device's identity: the signing socket, DICOM signatures, audit, the command line."""

__version__ = "0.1.0"
