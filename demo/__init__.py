"""The demonstration: what the project is for, shown on real parts by real commands (`make demo`)."""
