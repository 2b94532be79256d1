"""The restore drill: an installation under load is lost, comes back from its backup, and every fax is counted."""
