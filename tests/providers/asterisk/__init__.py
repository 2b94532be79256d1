"""A real Asterisk for tests: fetched, unpacked, started, with a far end that answers in every way that there is."""
