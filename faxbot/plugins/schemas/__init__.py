"""JSON Schemas that are published with faxbot."""
