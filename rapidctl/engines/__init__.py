"""Adapters: RAPID's side of engines that do not speak EngineControl themselves. One file per kind.

Each is an `Adapter` (base.py): the four steps of a role change, done with the engine's and its router's own calls.
`rapidctl attach KIND` runs one as a process beside its engine (run.py); kinds.py has the table of all.
"""
