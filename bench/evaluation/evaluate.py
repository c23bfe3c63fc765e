"""Everything of a grid that has not been computed yet, on all cores; what has been stays when it is stopped."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from bench.evaluation.grid import Cell, Grid, Setting
from bench.evaluation.results import Chosen, Entry, Results, entry
from bench.evaluation.rule import Load
from bench.evaluation.store import Store
from bench.evaluation.tasks import LoadTask, Run, RunTask, Task, work
from bench.evaluation.windows import apart
from rapid.sim.world.scenario import ORACLE
from rapidctl.sim.progress import Progress
from rapidctl.sim.workers import Workers

# How long tasks take, by a run of a policy that foresees nothing: for the time left, and for what Ctrl-C may lose.
ORACLE_WEIGHT, LOAD_WEIGHT = 20.0, 8.0
BATCH = 40.0  # weight of the tasks of each process between two times that results are kept: about ten seconds


def evaluate(grid: Grid, store: Store, cores: int) -> Results:
    """All of the grid, from the store where it can be. Raises UsageError if the sources change meanwhile."""
    with Workers(work, cores) as workers:
        for_load = {setting: LoadTask(setting, grid.seeds, grid.seconds) for setting in grid.settings}
        _compute(list(for_load.values()), store, workers, cores, "choosing the loads")
        loads = {setting: _load(store, task) for setting, task in for_load.items()}
        plan = list(_groups(grid, loads))
        _compute([task for group in plan for task in group], store, workers, cores, "running")
    entries = [_entry(group, [_run(store, task) for task in group]) for group in plan]
    count = sum(1 for _ in grid.entries())
    return Results(
        grid=grid,
        sources=store.digest,
        work_s=sum(_run(store, task).work_s for group in plan for task in group),
        loads=tuple(
            Chosen(setting, load, apart([task.window for task in _group(grid, Cell(setting, 1.0), "uniform", load)]))
            for setting, load in loads.items()
        ),
        entries=tuple(entries[:count]),
        sweep=tuple(entries[count:]),
    )


def _groups(grid: Grid, loads: Mapping[Setting, Load]) -> Iterator[list[RunTask]]:
    """The runs of every entry, one per seed; those of the sweep come last."""
    for cell, policy in grid.entries():
        yield _group(grid, cell, policy, loads[cell.setting])
    for cell in grid.sweep_cells:
        for policy in grid.policies:
            for speed in grid.sweep.speeds:
                yield _group(grid, cell, policy, loads[cell.setting], speed)[: grid.sweep.seeds]


def _group(grid: Grid, cell: Cell, policy: str, load: Load, speed: float = 1.0) -> list[RunTask]:
    return [RunTask(cell, policy, seed, grid.seeds, grid.seconds, load.rate_rps, speed) for seed in range(grid.seeds)]


def _entry(group: Sequence[RunTask], runs: Sequence[Run]) -> Entry:
    return entry(group[0].cell, group[0].policy, group[0].speed, runs)


def _compute(tasks: Sequence[Task], store: Store, workers: Workers[Task, Load | Run], cores: int, title: str) -> None:
    """Puts into the store what is not there yet, a few tasks at a time."""
    missing = [task for task in {task.key: task for task in tasks}.values() if store.get(task) is None]
    total = sum(map(_weight, missing))
    done = 0.0
    with Progress(title) as progress:
        for batch in _batches(missing, BATCH * cores):
            results = workers.map(batch, str, _teller(batch, done, total, progress))
            store.put(zip(batch, results, strict=True))
            done += sum(map(_weight, batch))


def _batches(tasks: Sequence[Task], most: float) -> Iterator[list[Task]]:
    """The tasks in order, as many together as weigh no more, but at least one."""
    batch: list[Task] = []
    for task in tasks:
        if batch and sum(map(_weight, batch)) + _weight(task) > most:
            yield batch
            batch = []
        batch.append(task)
    if batch:
        yield batch


def _teller(batch: Sequence[Task], before: float, total: float, progress: Progress) -> Callable[[int, float], None]:
    """Hears of the tasks of a batch, and tells how far the whole is."""
    over = [False] * len(batch)

    def heard(index: int, share: float) -> None:
        over[index] = over[index] or share >= 1.0
        progress((before + sum(_weight(task) for task, ended in zip(batch, over, strict=True) if ended)) / total)

    return heard


def _weight(task: Task) -> float:
    if isinstance(task, LoadTask):
        return LOAD_WEIGHT
    return ORACLE_WEIGHT if task.policy == ORACLE else 1.0


def _load(store: Store, task: LoadTask) -> Load:
    found = store.get(task)
    assert isinstance(found, Load)
    return found


def _run(store: Store, task: RunTask) -> Run:
    found = store.get(task)
    assert isinstance(found, Run)
    return found
