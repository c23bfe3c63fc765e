"""Policy `predictive`: learns what limits and roles are worth, and moves before the queues form.

models.py    what is believed of the engines, learned from their loads
demand.py    what users ask for
outlook.py   what a plan would bring, by a small fluid model
plan.py      which plans there are, and the limits of every GPU under one
switches.py  how long role changes take
policy.py    the policy: weighs, decides, and explains
"""

from rapid.core.policy.predictive.policy import Predictive, PredictiveSettings
from rapid.core.policy.predictive.start import Start

__all__ = ["Predictive", "PredictiveSettings", "Start"]
