"""What check-beyond, check-failures and check-remote share: caches in folders, workers in /proc, clusters of Ray and of
Spark.

The clusters are of this machine alone, and a node of them is a raylet or a Spark worker with all its processes.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADAPTERS = ROOT / "distributed"


def environment() -> dict[str, str]:
    """The variables of the engines: nothing is reported to their makers, and Ray asks for a token."""
    return {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYSPARK_PYTHON": sys.executable,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # It would end workers if other programs fill this machine's memory.
        "RAY_memory_monitor_refresh_ms": "0",
        # A busy machine takes long to start them.
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
        "RAY_gcs_server_request_timeout_seconds": "300",
        # And long to answer for them: a node that is killed refuses at once.
        "RAY_health_check_timeout_ms": "60000",
    }


def require(holds: object, told: str) -> None:
    """Ends the check if something does not hold."""
    if not holds:
        sys.exit(f"failed: {told}")


def run(command: list[str], log: Path, variables: dict[str, str]) -> float:
    """Runs a command, which must succeed, and returns its seconds."""
    begun = time.monotonic()
    with open(log, "ab") as file:
        code = subprocess.run(command, cwd=ROOT, stdout=file, stderr=file, env=variables).returncode
    require(code == 0, f"{' '.join(command)} ended with exit code {code}:\n{end_of(log)}")
    return time.monotonic() - begun


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-4000:]


def cache_in(folder: Path) -> Path:
    """The only cache in a folder."""
    found = list(folder.glob("*/manifest.json"))
    require(len(found) == 1, f"{folder} has {len(found)} caches")
    return found[0].parent


def manifest_in(folder: Path) -> bytes:
    """The manifest of the only cache in a folder."""
    return (cache_in(folder) / "manifest.json").read_bytes()


def plan_in(out: Path) -> dict:
    return json.loads((out / "plan.json").read_bytes())


def receipts_in(out: Path) -> dict[int, os.stat_result]:
    """The receipts of the plan in a shared folder, by task."""
    found = {}
    for path in out.glob("receipts/*/*.json"):
        try:
            found[int(path.stem)] = path.stat()
        except (ValueError, FileNotFoundError):
            pass  # It is being written under another name.
    return found


def parents() -> dict[int, int]:
    """The parent of every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name of the program, in parentheses, may hold anything.
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                pass  # It has ended.
    return found


def workers_of(out: Path) -> list[int]:
    """The processes of `frostbert work` on a shared folder, which only this check has started."""
    found = []
    for process in parents():
        try:
            words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[1:2] == [b"work"] and str(out).encode() in words:
            found.append(process)
    return found


def kill_tree(root: int) -> None:
    """Kills a process that this check has started, and all that it has started, as if the machine were gone."""
    doomed, parent_of = [root], parents()
    for process in doomed:
        doomed += [child for child, parent in parent_of.items() if parent == process]
    for process in doomed:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            pass


class RayCluster:
    """A head without CPUs, to which drivers connect, and nodes of one CPU each."""

    name = "Ray"

    def __init__(self, n_nodes: int, folder: Path, variables: dict[str, str]) -> None:
        os.environ.update({name: value for name, value in variables.items() if name.startswith("RAY_")})
        from ray.cluster_utils import Cluster

        self.cluster = Cluster()
        self.variables = variables
        self.nodes = []
        try:
            self.cluster.add_node(num_cpus=0, include_dashboard=False)
            for _ in range(n_nodes):
                self.add_node()
        except BaseException:
            self.close()
            raise

    def adapter(self, n_workers: int) -> list[str]:
        address = ["--address", self.cluster.address]
        return [sys.executable, str(ADAPTERS / "ray_extract.py"), *address, "--workers", str(n_workers)]

    def kill_node(self, which: int) -> None:
        node = self.nodes.pop(which)
        for of_kind in node.all_processes.values():
            for started in of_kind:
                kill_tree(started.process.pid)
        self.cluster.remove_node(node, allow_graceful=False)

    def add_node(self) -> None:
        self.nodes.append(self.cluster.add_node(num_cpus=1))

    def close(self) -> None:
        self.cluster.shutdown()


class SparkCluster:
    """A standalone master, and workers of one core each."""

    name = "Spark"

    def __init__(self, n_nodes: int, folder: Path, variables: dict[str, str]) -> None:
        import pyspark

        self.program = str(Path(pyspark.__file__).parent / "bin" / "spark-class")
        self.folder = folder / "spark-cluster"
        self.folder.mkdir()
        settings = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.executor.memory": "512m",
            "spark.ui.enabled": "false",
        }
        lines = [f"{name} {value}\n" for name, value in settings.items()]
        (self.folder / "spark-defaults.conf").write_text("".join(lines))
        home = str(Path(pyspark.__file__).parent)
        self.variables = {**variables, "SPARK_CONF_DIR": str(self.folder), "SPARK_HOME": home}
        port = free_port()
        self.address = f"spark://127.0.0.1:{port}"
        self.log = self.folder / "log"
        where = ["--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"]
        self.nodes = []
        self.master = self._start("master.Master", *where)
        try:
            for _ in range(n_nodes):
                self.add_node()
        except BaseException:
            self.close()
            raise

    def _start(self, name: str, *arguments: str) -> subprocess.Popen:
        command = [self.program, f"org.apache.spark.deploy.{name}", *arguments]
        with open(self.log, "ab") as file:
            return subprocess.Popen(command, stdout=file, stderr=file, env=self.variables)

    def adapter(self, n_workers: int) -> list[str]:
        # All its cores are used.
        return [sys.executable, str(ADAPTERS / "spark_extract.py"), "--master", self.address]

    def kill_node(self, which: int) -> None:
        node = self.nodes.pop(which)
        kill_tree(node.pid)
        node.wait()

    def add_node(self) -> None:
        n_before = self._n_registered()
        where = ["--host", "127.0.0.1", "--webui-port", "0", "--work-dir", str(self.folder / "work")]
        self.nodes.append(self._start("worker.Worker", self.address, *where, "--cores", "1", "--memory", "1g"))
        deadline = time.monotonic() + 120
        while self._n_registered() == n_before:
            require(time.monotonic() < deadline, f"a worker of Spark does not start:\n{end_of(self.log)}")
            time.sleep(0.2)

    def _n_registered(self) -> int:
        return self.log.read_text(errors="replace").count("Successfully registered with master")

    def close(self) -> None:
        for process in [*self.nodes, self.master]:
            kill_tree(process.pid)
            process.wait()
