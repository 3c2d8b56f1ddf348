"""The transition policy: which instances should be signed, by whom, from when on, and what follows if they are not.

The verifier (`agent.dicom`) says what is; the policy says what that means to this recipient. Only `load.py` reads
files; everything else is pure, so that the same report, receipt, policy and time always end in the same judgement.
"""
