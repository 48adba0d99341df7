"""From an outcome to a status: counts, conditions, totals and the sentences that people read. Pure."""
