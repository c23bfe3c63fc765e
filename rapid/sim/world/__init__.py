"""The world around core.Control and core.Guard, which run in it unchanged.

scenario                  what is simulated
site, build, agenda       the loop, what it is made of, and what is due when; arrivals: requests as they come
node, engine              a host with its guard and its GPUs; an engine's side of role changes
checkers                  judges that stand outside of everything they judge
score, why, watch         what users got, running means that explain it, and who wants to look on
outcome, sum_up           what came of a run, and its JSON
"""
