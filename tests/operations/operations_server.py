"""Runs `tempo` and `python` for a shell without loading them each time: a process with everything imported,
which forks for each command. Arguments, environment, folder and open files are the shell's.

    python operations_server.py SOCKET --serve FOLDER     serves; FOLDER gets the papers of the stand-ins
    python -S operations_server.py SOCKET tempo ...     asks it (imports nothing of Tempo)

TEMPO_STAND_IN=sev-snp|tdx|sgx-dcap:FOLDER runs the command on a stand-in machine (operations_machine.py).
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import struct
import sys


def ask(path: str, argv: list[str]) -> int:
    """The exit code of the command, run there. SIGTERM and SIGINT are handed on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(path)
        request = json.dumps({"argv": argv, "cwd": os.getcwd(), "env": dict(os.environ)}).encode()
        fds = array.array("i", [0, 1, 2])
        sock.sendmsg(
            [struct.pack("!I", len(request))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds.tobytes())]
        )
        sock.sendall(request)
        (pid,) = struct.unpack("!i", _exactly(sock, 4))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: os.kill(pid, number))
        answer = _exactly(sock, 4)
        return struct.unpack("!i", answer)[0] if answer else 137


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            return b""
        data += piece
    return data


def serve(path: str, folder: str) -> None:
    import runpy  # noqa: F401 (before the fork)

    import torch  # noqa: F401 (likewise)
    from operations_machine import make_platforms

    import tempo.cli

    make_platforms(folder)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen(64)
        listening.settimeout(1.0)
        parent = os.getppid()
        while True:
            try:
                sock, _ = listening.accept()
            except TimeoutError:
                if os.getppid() != parent:  # nobody is left to end this: not the commands either
                    os.killpg(0, signal.SIGKILL)
                continue
            sock.setblocking(True)
            if os.fork() == 0:
                listening.close()
                _child(sock, tempo.cli.run)
            sock.close()


def _child(sock: socket.socket, run_tempo) -> None:
    head, ancillary, _, _ = sock.recvmsg(4, socket.CMSG_SPACE(3 * 4))
    request = json.loads(_exactly(sock, struct.unpack("!I", head)[0]))
    fds = array.array("i")
    fds.frombytes(ancillary[0][2][: 3 * 4])
    sock.sendall(struct.pack("!i", os.getpid()))
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    code = 70
    try:
        code = _command(request["argv"], run_tempo)
    except SystemExit as done:
        if isinstance(done.code, str):
            print(done.code, file=sys.stderr)
        code = done.code if isinstance(done.code, int) else int(done.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sock.sendall(struct.pack("!i", code))
        os._exit(0)


def _command(argv: list[str], run_tempo) -> int:
    from operations_machine import stand_in

    stand_in(os.environ.get("TEMPO_STAND_IN"))
    if argv[0] == "tempo":
        return run_tempo(argv[1:])
    import runpy

    sys.argv = argv[1:]
    if argv[1] == "-c":
        exec(compile(argv[2], "<-c>", "exec"), {"__name__": "__main__"})
        return 0
    runpy.run_path(argv[1], run_name="__main__")
    return 0


if __name__ == "__main__":
    if sys.argv[2:3] == ["--serve"]:
        serve(sys.argv[1], sys.argv[3])
    else:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
