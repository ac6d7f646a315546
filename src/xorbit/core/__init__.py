"""The pure machine: jobs in, effects out. No I/O, no clock, no chance of its own may enter here."""
