"""`python -m faxbot.cli`: how the supervisor starts its roles, whatever is on the PATH."""

from faxbot.cli import main

main()
