"""Why a signature does not verify: other readings of the same bytes, and pixels that were compressed since."""
