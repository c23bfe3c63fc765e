"""The simulated world: pure and seeded. It takes the time and the dice as arguments and never looks at a clock.

traces/    where requests come from: files, shipped traces, made ones; streamed
model/     one engine on its GPUs at token level: times, draws, limits in effect, queues
router     which instance serves which request; least: the least loaded of many, quickly
cluster    many engines behind one router, event by event; summary: what came of it; rate: a load by a rule
world/     the real controller and guards around a cluster: nodes, network, sensors, the score, the judge
oracle     a policy that sees the future: the bar
study      statistics of comparisons
claims/    the results of the RAPID paper, one by one
"""
