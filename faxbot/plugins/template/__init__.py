"""The files of a new plugin package, as `faxbot plugins new` writes them; faxbot/cli/packages.py says where.

__ID__, __MODULE__, __PACKAGE__, __CLASS__, __ENV__ and __NAME__ stand for its names.
"""
