"""faxbot: a fax job queue that never loses a fax and never sends one twice."""

__version__ = "0.1.0"
