"""The controller: a thin shell around rapid.core.control. It takes an event, steps, journals, performs."""
