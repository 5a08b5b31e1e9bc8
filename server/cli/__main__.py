"""`python -m incomes_server.cli`: the same as the `incomes` command."""

from incomes_server.cli import main

main()
