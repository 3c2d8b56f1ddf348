"""FIDO Device Onboard 1.1: manufacturer, rendezvous and owner servers, for trying out. NOT FOR PRODUCTION."""
