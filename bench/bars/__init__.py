"""Does a policy meet the bars that the grid of bench.evaluation does not measure?

    python -m bench.bars [policy[:settings]] [--seeds 5] [--quick] [--fresh] [--only shift|flips|mix|wrong]

Sonnet shift, a mix that flips every 20 s, Azure chat and code at three rates, and engines that are not as believed.
What uniform, power and rapid attain is kept in the folder for temporary files, whatever the sources are by now: use
--fresh after a change of the simulator or of those policies.

runs      one run, and many of them
wrong     worlds that are not as the policy believes
sections  the bars
"""
