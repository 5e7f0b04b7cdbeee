"""The cohort at a glance: what each case of a raw data set has, and what looks wrong."""
