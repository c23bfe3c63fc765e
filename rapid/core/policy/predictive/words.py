"""What an operator reads of a decision: each plan, and why one was chosen, in a line."""

from rapid.core.errors import watts
from rapid.core.policy.predictive.outlook import Fleet, Forecast, Plan


def words(fleet: Fleet, plan: Plan, forecast: Forecast) -> str:
    """A candidate: the split once all are there, the limits of prefill and decode, what they leave."""
    prefill = fleet.prefill + fleet.to_prefill + plan.moves
    decode = fleet.decode + fleet.to_decode - plan.moves
    limits = f"{watts(plan.prefill_mw)} / {watts(plan.decode_mw)}"
    return f"{prefill}P{decode}D, {limits}, headroom {forecast.headroom:.2f}x"


def reason(plan: Plan, forecast: Forecast, held: Forecast, *, changes: bool) -> str:
    """Why the plan, rather than going on as now."""
    if not changes:
        return "nothing that it could do would win enough"
    if plan.moves:
        count = abs(plan.moves)
        what = f"{count} instance{'s' if count > 1 else ''} to {'prefill' if plan.moves > 0 else 'decode'}"
    else:
        what = "watts alone"
    if max(forecast.attainment, held.attainment) < 0.5:
        return f"not both phases can be saved; {what} saves the most"
    if forecast.attainment - held.attainment >= 0.01:
        return (
            f"{what}: {100 * forecast.attainment:.0f} % will attain their SLO instead of {100 * held.attainment:.0f} %"
        )
    if forecast.headroom > held.headroom:
        return f"{what}: headroom {forecast.headroom:.2f}x instead of {held.headroom:.2f}x before the next burst"
    return f"{what}: more will attain their SLO if a burst comes"
