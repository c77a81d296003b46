"""Tempo workers as Ray actors, one for each GPU, restarted where they die. Runs outside the TEE.

    python deploy/ray/workers.py --count 8 --cert worker.pem --key worker.key --ca ca.pem

prints one JSON line each time the set of endpoints changes, for the `workers` of tempo.toml:

    {"workers": ["10.0.0.4:7443", "10.0.0.5:7443"]}

Ray only starts processes here. The master dials `tempo worker` itself, over Tempo's wire under mutual TLS: no
object of Ray's, hence no pickle, ever reaches it, and it trusts this list as little as it trusts the workers
(a wrong address fails the handshake).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import signal
import subprocess
import sys
import time
from typing import Any

import ray

_LOOK_S = 2.0
_END_S = 10.0


@ray.remote(max_restarts=-1, max_task_retries=-1)
class Worker:
    """One `tempo worker` process. Ray starts the actor anew where its node or the actor is lost."""

    def __init__(self, options: list[str], device: str, host: str) -> None:
        self._options, self._device = options, device
        # The name that the worker's certificate has; by default the node's address in the cluster.
        self._host = host or ray.util.get_node_ip_address()
        self._process: subprocess.Popen[str] | None = None
        self._endpoint = ""

    def endpoint(self) -> str:
        """Where it listens. A process that ended is started again, perhaps on another port."""
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-m", "tempo", "worker", "--listen", f"{self._host}:0", "--json"]
            command += ["--device", self._device, *self._options]
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, preexec_fn=_end_with_parent
            )
            self._endpoint = _announced(self._process)
        return self._endpoint

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()


def _end_with_parent() -> None:
    """In the child: an actor that Ray kills must not leave a worker behind that holds the GPU (prctl(2))."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _announced(process: subprocess.Popen[str]) -> str:
    """The endpoint in the JSON object that a worker prints once it listens."""
    assert process.stdout is not None, "it was asked for"
    text = ""
    for line in process.stdout:
        text += line
        try:
            return str(json.loads(text)["rows"][0]["listening"])
        except json.JSONDecodeError:
            continue  # not all of it yet
    raise RuntimeError(f"tempo worker ended with {process.wait()}: see its node's log")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, required=True, help="workers, one GPU each")
    parser.add_argument("--cert", required=True, help="on every node: the workers' certificate")
    parser.add_argument("--key", required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--memory", default="64G", help="of operands, per worker")
    parser.add_argument("--device", default="cuda:0", help="cpu asks for no GPU")
    parser.add_argument(
        "--host", default="", help="listen there instead of the node's address in the cluster"
    )
    parser.add_argument(
        "--address", default=None, help="of the Ray cluster; default: as RAY_ADDRESS says, or here"
    )
    return parser.parse_args()


def main() -> None:
    asked = options()
    ray.init(address=asked.address, log_to_driver=False, logging_level="warning")
    tls = ["--cert", asked.cert, "--key", asked.key, "--ca", asked.ca, "--memory", asked.memory]
    gpus = 0 if asked.device == "cpu" else 1
    actors = [
        Worker.options(num_gpus=gpus, num_cpus=1).remote(tls, asked.device, asked.host)
        for _ in range(asked.count)
    ]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    known: list[str] = []
    try:
        while True:
            found = sorted(_endpoints(actors))
            if found != known:
                known = found
                print(json.dumps({"workers": known}), flush=True)
            time.sleep(_LOOK_S)
    except KeyboardInterrupt:
        pass
    finally:
        ray.get([actor.stop.remote() for actor in actors], timeout=_END_S * 2)
        ray.shutdown()


def _endpoints(actors: list[Any]) -> list[str]:
    """Of those that answer now; one that is being restarted is missing until it is back."""
    asked = {actor.endpoint.remote(): actor for actor in actors}
    done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=60)
    found = []
    for each in done:
        try:
            found.append(ray.get(each))
        except ray.exceptions.RayError as error:
            print(f"a worker is not there: {type(error).__name__}", file=sys.stderr)
    return found


if __name__ == "__main__":
    main()
