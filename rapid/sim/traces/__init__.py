"""Where requests come from. Traces are streamed, so that one of any length fits into memory.

forms, reading      the lines of three forms of traces; one trace as arrivals, checked line by line
stats, replay       what a trace is like; a stretch of it as requests, at a speed
burst               a made trace
loader, workload    by name or file (the one module that reads); whole traces in memory
"""
