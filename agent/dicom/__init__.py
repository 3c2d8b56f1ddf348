"""DICOM digital signatures (PS3.15 C, PS3.3 C.12.1.1.3): what is read, what is hashed, what is inserted."""
