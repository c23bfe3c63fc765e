"""What the people who own the breaker ask of a domain's budget, and what they are told of it.

Orders come signed over the bus, or from schedules; both take one path: judged by rules, kept as live orders, and turned
into the one number that the ledger holds as the domain's budget. The least watts win.
"""
