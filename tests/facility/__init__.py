"""The facility's bus: orders of budgets, schedules, and what is told of them."""
