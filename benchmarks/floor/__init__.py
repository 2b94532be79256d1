"""The floor: the least that does the same work as faxbot with the same framework, server, database and queue.

Same rows in one transaction, same fsyncs, same publish, and nothing else: no schema, no plugins, no sweeps, no fences.
What faxbot costs beyond it is the price of what it promises; a ratio to the floor of the same run holds on any machine.
"""
