"""The simulated world: pure and seeded. It takes the time and the dice as arguments and never looks at a clock.

board, curves       what a GPU can do: limits, memory, speed under a limit
profile             what an engine on it can do with one model: times, draws, capacity
sensor              what the power meter of a board shows
power               the limit in effect after a change, and the exact energy under it
requests            the frozen nouns that move between instances
prefill, decode     the two phases at token level; mixed: both in one engine; steps: the run of steps that they share
instance, tally     one engine with a role, a limit per GPU, queues, counters
router              which instance serves which request
cluster, summary    a discrete-event run of many instances, and what came of it
trace               streams of arrivals: trace_forms (lines), trace_stats, trace_replay (requests), trace_burst (made)
loader, workload    traces from files and the package, streamed or held in memory
rate                choose the load by a rule
checkers            judges that stand outside of everything they judge
"""
