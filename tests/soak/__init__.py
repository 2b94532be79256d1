"""The soak: a whole faxbot under traffic, with its processes killed at random moments, and a count of what came of it.

    make soak KILLS=200 SEED=1          PostgreSQL and Redis
    make soak KILLS=200 SEED=1 STORE=embedded

Every fax is counted against the ledger of the carrier, a process of its own. A kill is one SIGKILL of one process.
"""
