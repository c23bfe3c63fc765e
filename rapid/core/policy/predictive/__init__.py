"""Policy `predictive`: learns what limits and roles are worth, and moves before the queues form."""
