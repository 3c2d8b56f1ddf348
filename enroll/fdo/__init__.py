"""FIDO Device Onboard 1.1: a device goes from its factory to its owner, and to the next one.

What both sides say stands here, and what the device does; the servers are in `enroll.evaluation.fdo`. The flow that
brings certificates this way is `enroll.flows.fdo`.

    bytes        cbor  cose  hashes  public_key  key_exchange  tunnel
    documents    messages  voucher  rendezvous  credential
    protocols    di  to1  to2  service_info and its modules
    decisions    owner_policy  onboard

FDO hashes and signs bytes as they came, so nothing that was received is ever encoded again.
"""
