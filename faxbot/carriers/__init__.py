"""Stand-in carriers: processes of their own with their own ledgers, written without a look at our
clients."""
