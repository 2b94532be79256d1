"""Documents for tests: sound ones, hostile ones, and a way to look at the fax pages made of
them."""
