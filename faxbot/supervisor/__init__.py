"""`faxbot up`: every role as a child of one small process (up.py), restarted when it ends and gone when that ends.

This page imports nothing: a client that wants the address (listening.py) or the first key (keyfile.py) carries no more.
"""
