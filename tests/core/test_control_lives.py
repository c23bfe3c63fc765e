"""Controllers begin, die, replay what they did, and give way to others; at no moment is the budget passed by it.

Promise 5: every decision can be explained and replayed: same events in, same commands out, byte for byte.
"""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rapid.core.cluster import Decision, Domain, Phase, Role
from rapid.core.commands import StepDown
from rapid.core.control import Control
from rapid.core.events import BudgetAsked, NodeHeard, PauseAsked, Ticked
from tests.core import rerun
from tests.core.hosts import W
from tests.core.site import Site, in_words, paper_site, two_hosts, with_engines
from tests.core.test_control_storm import Storm

ROOT = Path(__file__).parent.parent.parent
LATE_PREFILL = {"waiting": 6, "oldest_wait_s": 1.5, "ttfts": {1.5: 10}}


def in_a_power_move(slices: int) -> Site:
    """So many tenths of a second after prefill has become short."""
    site = with_engines(paper_site("rapid"))
    for index in range(4):
        site.loads[f"e{index}"] = LATE_PREFILL
    site.run(slices * 0.1)
    return site


def spent(site: Site) -> bool:
    """Every limit wanted is in force, and together they are the budget."""
    limits_mw = {gpu: device.limit_mw for host in site.hosts.values() for gpu, device in host.devices.items()}
    return limits_mw == site.control.limits.targets_mw and sum(limits_mw.values()) > 4_790 * W


def last_decision(site: Site) -> Decision:
    decision = site.control.last_decision
    assert decision is not None
    return decision


# ---- replay ----


def elsewhere(site: Site, tmp_path: Path, *options: str, hash_seed: int) -> list[str]:
    """What a fresh Control in another process makes of the same events."""
    journal = tmp_path / "journal"
    journal.write_bytes(pickle.dumps((site.settings, site.events)))
    done = subprocess.run(
        [sys.executable, "-m", "tests.core.rerun", str(journal), *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.split("\n")


def eventful() -> Site:
    """Everything has happened to it."""
    storm = Storm(8, two_hosts("rapid"))
    acts = (storm.calm, storm.loads, storm.engine, storm.progress, storm.cut_off, storm.connect, storm.restart)
    for _ in range(60):
        storm.dice.choice((*acts, storm.trouble, storm.budget, storm.pause, storm.pin))()
    return storm.site


def test_another_process_with_other_hashes_commands_the_same_byte_for_byte(tmp_path: Path) -> None:
    site = eventful()
    then = [repr(commands) for commands in site.commands]
    assert len(then) > 100

    assert rerun.lines(Control(site.settings), site.events) == then
    assert elsewhere(site, tmp_path, hash_seed=1) == then
    assert elsewhere(site, tmp_path, hash_seed=2) == then


def test_the_comparison_catches_an_order_that_depends_on_hashes(tmp_path: Path) -> None:
    site = eventful()

    assert elsewhere(site, tmp_path, "--planted", hash_seed=1) != elsewhere(site, tmp_path, "--planted", hash_seed=2)


def test_looking_changes_nothing() -> None:
    site = eventful()
    looked = Control(site.settings)
    for event, commands in zip(site.events, site.commands, strict=True):
        assert looked.step(event) == commands
        looked.status(event.at_s)
        looked.snapshot()


# ---- deposed ----


def test_who_hears_of_a_higher_epoch_steps_down_and_is_silent_from_then_on() -> None:
    site = paper_site("uniform")
    site.run(3.0)
    first = site.control
    host = site.hosts["n1"]
    site.begin(epoch=2, controller_id="d")
    report = host.report()

    said = [in_words(command) for command in first.step(NodeHeard(site.now, report))]

    text = "node n1 has seen epoch 2, ours is 1: another one leads"
    assert said == [f"error n1: {text}", f"step down: {text}"]
    assert first.step(NodeHeard(site.now, report)) == []
    assert first.step(Ticked(site.now)) == []
    assert first.step(BudgetAsked(site.now, "r", "host", 4_000 * W, False, "ann")) == []


def test_a_controller_that_was_deposed_cannot_reach_its_nodes_any_more() -> None:
    site = paper_site("uniform")
    site.run(3.0)
    first = site.control
    site.begin(epoch=2, controller_id="d")

    batches = first.step(BudgetAsked(site.now, "r", "host", 4_000 * W, False, "ann"))
    for command in batches:
        if hasattr(command, "batch"):
            site.hosts["n1"].hear(command.batch)
    site.run(5.0)

    assert site.limits_w() == [600.0] * 8
    assert "1.2 all refused: epoch 1 of c is not epoch 2 of d" in site.hosts["n1"].answers()
    assert not any(isinstance(command, StepDown) for commands in site.commands for command in commands)


# ---- killed at every moment ----


@pytest.mark.parametrize("journal", [True, False])
def test_a_controller_may_die_at_any_moment_of_a_move(journal: bool) -> None:
    """What it had sent may still arrive, after the next one has begun or never."""
    for slices in range(1, 30):
        site = in_a_power_move(slices)
        mail = list(site.mail)
        site.begin(epoch=2, snapshot=site.control.snapshot() if journal else None)
        site.mail.extend(mail if slices % 2 else [])
        for index in range(8):
            if f"g{index}" in site.control.ledger.gpus:
                site.attach(f"e{index}", site.engines[f"e{index}"].role)
        site.loads = {name: {} for name in site.loads}

        site.run(10.0)

        assert spent(site), f"killed after {slices} slices: {site.limits_w()}"


def test_a_node_may_die_at_any_moment_of_a_move() -> None:
    for slices in range(1, 30):
        site = in_a_power_move(slices)
        host = site.hosts["n1"]
        host.now = max(host.now, site.now) + 0.01
        site.hosts["n1"].boot(unread=["g0", "g7"] if slices % 3 == 0 else [])
        site.write(host)
        site.connect("n1")
        site.loads = {name: {} for name in site.loads}

        site.run(10.0)

        assert spent(site), f"restarted after {slices} slices: {site.limits_w()}"


# ---- from one life to the next ----


def test_the_next_life_goes_on_with_what_was_wanted_and_what_the_operator_said() -> None:
    site = in_a_power_move(25)
    site.step(BudgetAsked(site.now, "1", "host", 4_700 * W, False, "ann"))
    site.step(PauseAsked(site.now, "2", True, "ann"))
    site.run(2.0)
    wanted, decided = dict(site.control.limits.targets_mw), last_decision(site).id
    before = site.control.status(site.now)

    said = site.begin(epoch=2, snapshot=site.control.snapshot())
    site.run(5.0)

    assert said == [
        "warning host: keeps the budget 4700 W set earlier; the configuration says 4800 W",
        "info controller: epoch 2: goes on from its journal",
    ]
    status = site.control.status(site.now)
    assert (status.paused, status.domains[0].budget_mw) == (True, 4_700 * W)
    assert (status.watts_moved_mw, status.slo.finished) == (before.watts_moved_mw, before.slo.finished)
    assert site.control.limits.targets_mw == wanted
    site.step(PauseAsked(site.now, "3", False, "ann"))
    assert last_decision(site).id == f"D{int(decided[1:]) + 1}", "numbered on"


def test_a_life_that_has_settled_is_taken_over_without_a_move() -> None:
    site = with_engines(paper_site("rapid"))
    site.begin(epoch=2, snapshot=site.control.snapshot())
    for index in range(8):
        site.attach(f"e{index}", Role.PREFILL if index < 4 else Role.DECODE)
    writes = sum(word.startswith("write") for word in site.hosts["n1"].words)

    assert [word for word in site.run(20.0) if not word.startswith("info")] == []
    assert sum(word.startswith("write") for word in site.hosts["n1"].words) == writes


def test_a_new_process_waits_for_engines_and_a_new_life_in_process_does_not() -> None:
    for epoch, waits in ((2, True), (1, False)):
        site = with_engines(paper_site("roles"))
        site.begin(epoch=epoch, snapshot=site.control.snapshot())
        site.connect("n1")
        for index in range(8):
            site.attach(f"e{index}", Role.PREFILL if index < 4 else Role.DECODE)
            site.loads[f"e{index}"] = LATE_PREFILL if index < 4 else {}

        ordered = any(word.startswith("order") for word in site.run(3.0))

        assert ordered != waits


def test_a_change_under_way_goes_on_in_the_next_life() -> None:
    site = with_engines(paper_site("roles"))
    for index in range(4):
        site.loads[f"e{index}"] = LATE_PREFILL
    site.run(1.0)
    assert site.engines["e4"].phase is Phase.DRAINING

    site.begin(epoch=2, snapshot=site.control.snapshot())
    for instance in site.engines:
        site.attach_again(instance)

    assert site.run(30.0)[1:] == [], "nothing else moves meanwhile"
    assert site.moved("e4", Phase.SERVING) == ["info e4: serves prefill now"]
    assert site.control.status(site.now).role_moves == 1


def test_a_domain_that_the_configuration_no_longer_has_is_forgotten() -> None:
    site = two_hosts()
    site.run(3.0)
    snapshot = replace(site.control.snapshot(), budgets_mw=(("hall", 1), ("room", 2_200 * W)))
    site.settings = replace(site.settings, domains=(*site.settings.domains, Domain("annex", 1_000 * W)))
    site.most_mw["annex"] = 0

    assert site.begin(epoch=2, snapshot=snapshot) == ["info controller: epoch 2: goes on from its journal"]
