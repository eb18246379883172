"""A real Ray cluster of several nodes on this machine: the bytes of one run, whoever is killed and whenever."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from object_store import CREDENTIALS, client_of, moto
from small_photos import make_work

pytest.importorskip("ray", reason="needs Ray: the extra mobilenet-hub[ray]")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

COUNT = 61
BAD = {"007.jpg": b"", "040.jpg": b"no picture"}
ROUNDS = int(os.environ.get("MOBILENET_HUB_TEST_ROUNDS", "2"))  # of killing; more by hand


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    make_work(folder, COUNT, BAD)
    assert run(folder, "one").wait() == 1
    return folder


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    # Nodes give their environment to their workers; credentials have to be there.
    os.environ.update({name: os.environ.get(name, value) for name, value in CREDENTIALS.items()})
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def run(folder, output, *more, inputs="photos", env=None):
    words = ["embed", inputs, "--module", "m", "-o", output, "--shard-size", "6", "--threads", "1", "--quiet"]
    return subprocess.Popen(
        [sys.executable, "-m", "mobilenet_hub.cli.main", *words, *more],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def workers():
    """Return the workers of the cluster that this process has started, and of no other on this machine."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    parents = {int(pid): int(parent) for pid, parent, _ in rows}

    def is_ours(pid):
        while pid > 1 and pid != os.getpid():
            pid = parents.get(pid, 0)
        return pid == os.getpid()

    return [int(pid) for pid, _, words in rows if "ray::_compute_shard" in words and is_ours(int(pid))]


def test_a_cluster_gives_the_bytes_of_one_run(work, cluster):
    process = run(work, "many", "--ray", cluster.address)
    error = process.communicate(timeout=300)[1]
    assert process.returncode == 1, error
    assert contents(work / "many") == contents(work / "one")


def test_three_workers_and_one(work, cluster):
    node = cluster.add_node(num_cpus=1)
    try:
        for count, address in ((3, cluster.address), (1, None)):
            words = ["--ray", address] if address else ["--ray", "--threads", str(os.cpu_count())]
            process = run(work, f"with {count}", *words)
            error = process.communicate(timeout=300)[1]
            assert process.returncode == 1, error
            assert contents(work / f"with {count}") == contents(work / "one")
    finally:
        cluster.remove_node(node, allow_graceful=False)


def test_photos_and_output_in_a_bucket(work, cluster):
    pytest.importorskip("boto3", reason="needs moto's server: pip install 'mobilenet-hub[interop]'")
    with moto() as url:
        client = client_of(url, "bucket")
        for file in sorted((work / "photos").iterdir()):
            client.put_object(Bucket="bucket", Key=f"photos/{file.name}", Body=file.read_bytes())
        environment = {**os.environ, **CREDENTIALS, "AWS_ENDPOINT_URL": url}
        for output, more in (("s3://bucket/one", ()), ("s3://bucket/many", ("--ray", cluster.address))):
            process = run(work, output, *more, inputs="s3://bucket/photos", env=environment)
            error = process.communicate(timeout=300)[1]
            assert process.returncode == 1, error
        listed = client.list_objects_v2(Bucket="bucket")["Contents"]
        bodies = {o["Key"]: client.get_object(Bucket="bucket", Key=o["Key"])["Body"].read() for o in listed}
    one, many = ({k.split("/")[1]: v for k, v in bodies.items() if k.startswith(f"{n}/")} for n in ("one", "many"))
    assert one == many
    assert len(one) == 13


@pytest.mark.parametrize("attempt", range(ROUNDS))
def test_killed_workers_nodes_and_drivers_cost_nothing(work, cluster, attempt):
    chance, output = random.Random(attempt), f"killed {attempt}"
    process = run(work, output, "--ray", cluster.address)
    deadline = time.monotonic() + 60
    while not workers() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    for worker in workers():
        if chance.random() < 0.5:
            os.kill(worker, signal.SIGKILL)
    node = cluster.add_node(num_cpus=1)
    time.sleep(chance.uniform(0, 2))
    cluster.remove_node(node, allow_graceful=False)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = run(work, output, "--ray", cluster.address)
    error = again.communicate(timeout=300)[1]
    assert again.returncode == 1, error
    assert contents(work / output) == contents(work / "one")


def test_a_node_that_falls_silent_costs_its_shard(work):
    """Its connections stay open, as where its network is cut: Ray knows it dead, and would wait for its answers."""
    from ray.cluster_utils import Cluster

    often = {"period_ms": 1000, "timeout_ms": 2000, "failure_threshold": 5, "initial_delay_ms": 0}
    config = {f"health_check_{name}": value for name, value in often.items()}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "_system_config": config}
    )
    raylet = cluster.add_node(num_cpus=1).all_processes["raylet"][0].process.pid
    process = run(work, "silent", "--ray", cluster.address)

    def children():
        listed = subprocess.run(["ps", "-o", "pid,args", "--ppid", str(raylet)], capture_output=True, text=True).stdout
        return {int(line.split()[0]): line for line in listed.splitlines()[1:]}

    try:
        deadline = time.monotonic() + 120
        while "ray::_compute_shard" not in str(children()) and time.monotonic() < deadline:
            time.sleep(0.01)
        silent = [raylet, *children()]
        for pid in silent:
            os.kill(pid, signal.SIGSTOP)
        error = process.communicate(timeout=240)[1]
        assert process.returncode == 1, error
        assert contents(work / "silent") == contents(work / "one")
    finally:
        process.kill()
        for pid in [raylet, *children()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        cluster.shutdown()


def test_no_cluster_there_is_said(work):
    process = run(work, "nowhere", "--ray", "127.0.0.1:9")
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 2
    assert "no Ray cluster answers at 127.0.0.1:9" in error


def test_more_threads_than_any_node_has_are_refused(work, cluster):
    process = run(work, "wide", "--ray", cluster.address, "--threads", "64")
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 2
    assert "no node of the cluster has 64 free cores" in error
