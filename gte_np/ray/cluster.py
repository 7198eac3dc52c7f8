"""A job on the actors of Ray Data, on this machine or on a cluster."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, NamedTuple

from gte_np.arguments import check_integer
from gte_np.errors import InputError, MissingDependencyError
from gte_np.jobs import Job, Place, Report, Summary, run_job
from gte_np.jobs.run import WorkspaceSink
from gte_np.jobs.spread import Done, Order, Planned, ShardWorker, check_spread, done_of, json_of, spread
from gte_np.kernels.runtime.threads import available_processors

logger = logging.getLogger("gte_np")

_ADDRESS = re.compile(r"auto|local|[^\s/:]+:\d+|\[[0-9a-fA-F:]+\]:\d+")


class Cluster(NamedTuple):
    """Where actors run: the address of a Ray, None for a new one on this machine, how many, and threads of each.

    By default each node has one actor, with all of its processors as threads. If only threads are given, there are as
    many actors as have room; if only actors are given, each has as many threads as leave room for all.
    """

    address: str | None = None
    actors: int | None = None
    threads: int | None = None


class Pool(NamedTuple):
    """So many actors, with so many threads each."""

    actors: int
    threads: int


def divide(processors: Sequence[int], cluster: Cluster) -> Pool:
    """Divide the processors of each node among actors."""
    nodes = [count for count in processors if count > 0] or [1]
    actors, threads = cluster.actors, cluster.threads
    if threads is None:
        choices = range(min(nodes) if actors is None else max(nodes), 1, -1)
        threads = next((choice for choice in choices if _room(nodes, choice) >= (actors or 1)), 1)
    return Pool(actors or max(1, _room(nodes, threads)), threads)


def _room(nodes: Sequence[int], threads: int) -> int:
    return sum(count // threads for count in nodes)


def run_on_ray(
    job: Job, place: Place, cluster: Cluster, *, force: bool = False, report: Report | None = None
) -> Summary:
    """`gte_np.jobs.run_job` with the shards computed by actors: the same output, to the byte.

    The inputs and the output must be in folders that all nodes have at the same path, and gte_np must be installed on
    all of them, with the model at hand. An actor that dies is replaced, and its shard computed again.

    Raises the errors of `run_job`, MissingDependencyError without Ray, and InputError for standard input, for a
    cache, for a cluster that cannot be reached, and for actors that die again and again.
    """
    check_cluster(cluster)
    check_spread(job.names, job.options.cache)
    ray_data()

    def work(job: Job, sink: WorkspaceSink, report: Report | None) -> Summary:
        with connected(cluster) as pool:
            job = copy(job)
            job.model = job.model.with_threads(pool.threads)
            return spread(job, sink, report, lambda order, shards: _on_actors(order, shards, pool))

    return run_job(job, place, force=force, report=report, work=work)


def check_cluster(cluster: Cluster) -> None:
    """Raise InputError for what is no address, and for numbers below 1."""
    if cluster.address is not None and not _ADDRESS.fullmatch(cluster.address):
        raise InputError(
            f"expected the address of a Ray cluster as HOST:PORT, or auto or local, got {cluster.address!r:.80}. "
            "After --ray, the next word is taken for it: put --ray behind the inputs."
        )
    for name, value in (("actors", cluster.actors), ("threads", cluster.threads)):
        if value is not None:
            check_integer(name, value, least=1)


def ray_data() -> Any:
    """The package ray, with ray.data. Raises MissingDependencyError if it is not installed."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependencyError(
            f"a job on a cluster needs Ray Data, which cannot be imported ({error}): pip install 'gte_np[ray]'."
        ) from error
    return ray


@contextmanager
def connected(cluster: Cluster) -> Iterator[Pool]:
    """Connect to Ray, unless this process is connected, and give the actors that there is room for.

    Without an address it is the Ray that RAY_ADDRESS names, as it does in a job that was submitted to Ray, or a new
    one on this machine. What was begun here is ended with the block.

    Raises InputError for a cluster that cannot be reached, and for what Ray cannot do in the block.
    """
    ray = ray_data()
    was_connected = ray.is_initialized()
    try:
        if not was_connected:
            _connect(ray, cluster)
        nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
        pool = divide(list(map(int, nodes)), cluster)
        if pool.actors > _room(list(map(int, nodes)), pool.threads):
            logger.warning(
                "%d actors with %d threads are more than the cluster has room for now: some wait for other nodes.",
                pool.actors,
                pool.threads,
            )
        yield pool
    except ray.exceptions.RayError as error:
        reason = (str(error).strip().splitlines() or [""])[-1]  # what comes before are places in Ray
        raise InputError(
            f"expected Ray to run the actors of the job, got {type(error).__name__}: {reason} The "
            "shards that are finished are kept: the same command goes on."
        ) from error
    finally:
        if not was_connected:
            ray.shutdown()


def _connect(ray: Any, cluster: Cluster) -> None:
    address = cluster.address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told what a command does on one machine
        processors = max(available_processors(), (cluster.actors or 1) * (cluster.threads or 1))
        options = {"num_cpus": processors, "include_dashboard": False}
    for name in ("ray", "ray.data"):  # which tell of each step, and of progress bars that are not shown
        logging.getLogger(name).setLevel(logging.ERROR)
    before = signal.getsignal(signal.SIGTERM)
    try:
        _check_reachable(address)
        ray.init(address=address, logging_level=logging.ERROR, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"expected a Ray cluster at {address}, got: {error} `ray start --head` begins one, and --ray without an "
            "address needs none."
        ) from error
    finally:
        if signal.getsignal(signal.SIGTERM) is not before:  # Ray has put its own in place, in the main thread
            signal.signal(signal.SIGTERM, before)


def _check_reachable(address: str) -> None:
    """Raise OSError if nobody listens at an address: Ray would try again for minutes."""
    host, _, port = address.rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _on_actors(order: Order, shards: list[Planned], pool: Pool) -> Iterator[Done]:
    """Compute shards with the actors of a pool. Raises the first error that one of them gives back."""
    data = ray_data().data
    items = [{"planned": json_of(planned)} for planned in shards]
    # A block is what an actor takes at once, and what is repeated if it dies. If more than one waited for an actor,
    # others would have no work at the end.
    dataset = data.from_items(items, override_num_blocks=len(items)).map_batches(
        ShardWorker,
        fn_constructor_args=(order,),
        batch_size=1,
        compute=data.ActorPoolStrategy(size=min(pool.actors, len(shards)), max_tasks_in_flight_per_actor=1),
        num_cpus=pool.threads,
    )
    dataset.context.enable_progress_bars = dataset.context.print_on_execution_start = False
    for row in dataset.iter_rows():
        yield done_of(row["outcome"])
