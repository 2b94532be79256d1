"""Identity plugins: who knows people from elsewhere, each a package with its manifest."""
