"""Programs as users start them: servers and their slow clients, commands at a terminal, packages, and races of
processes."""
