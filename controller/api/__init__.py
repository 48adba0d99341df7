"""The resource: what a user writes, what we write into its status, and the CRD that both come from. Pure."""
