"""One engine on its GPUs, at token level.

board, curves             what a GPU can do: limits, memory, speed under a limit
profile                   what an engine on it can do with one model; paper_profile: fitted to the RAPID paper
power, sensor             the limit in effect and the exact energy under it; what the power meter of a board shows
requests                  the frozen nouns that move between instances
prefill, decode, mixed    the phases; steps: the run of steps that the last two share
instance, tally           one engine with a role, a limit per GPU, queues, counters
"""
