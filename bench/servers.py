"""The servers that are compared: how each is started, what it costs, and what it leaves on disk."""
import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

START_SECONDS_MAX = 20
EVENT = {
    "event": "DATA_EXPORT",
    "message": "Exported results to CSV",
    "meta": {"path": "/work/output/results.csv", "rows": 12500},
}
JOB, WORKSPACE = "5182910", "b8d5a3f0-1111-4222-8333-abcdefabcdef"
ECHO_MODULE = "/usr/lib/nginx/modules/ngx_http_echo_module.so"

# `$request_body` is empty unless something has read the body. What nginx documents for that is `proxy_pass`, here to a
# second server that answers 204; the cheapest way that Debian has is the module echo.
NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr;
events {{ worker_connections 4096; }}
http {{
  log_format event escape=none
    '{{"ts":"$time_iso8601","jobId":"{job}","workspaceId":"{workspace}","body":$request_body}}';
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream self {{ server unix:{folder}/socket; keepalive 1024; }}
  server {{
    listen 127.0.0.1:{port};
    location = /append {{ access_log {folder}/events.jsonl event; {read} }}
  }}
  server {{ listen unix:{folder}/socket; return 204; }}
}}
"""
PROXIED = """proxy_pass http://self; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_pass_request_body off; proxy_set_header Content-Length "";"""
ECHOED = "echo_read_request_body; echo_status 204; echo_duplicate 0 x;"


def body(message=EVENT["message"]):
    """The event that is sent, as JSON."""
    return json.dumps(dict(EVENT, message=message), separators=(",", ":")).encode()


def free_port():
    """A port below the range from which clients' own ports are taken: a client must not connect to itself."""
    for _ in range(100):
        # By chance, so that two benchmarks at a time do not take the same.
        port = random.randrange(18291, 32768)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass
    raise SystemExit("no free port found between 18291 and 32767")


@dataclasses.dataclass
class Server:
    """A program to start. Where it writes, it leaves one line an event."""

    name: str
    binary: str
    writes: bool = True

    def command(self, folder, port):
        """The arguments by which it serves on a port and keeps its files in a folder."""
        raise NotImplementedError

    def environment(self):
        """Its environment."""
        return {}


class AuditLog(Server):
    """Ours, as the image starts it."""

    def command(self, folder, port):
        settings = {"listen": f"127.0.0.1:{port}", "dir": folder, "config": "/nonexistent"}
        settings |= {"job-id": JOB, "workspace-id": WORKSPACE}
        return ["serve", *(f"--{name}={value}" for name, value in settings.items())]

    def environment(self):
        return {"MALLOC_MMAP_THRESHOLD_": "131072"}


class Ceiling(Server):
    """Reads the body and answers."""

    def command(self, folder, port):
        return [str(port)]


@dataclasses.dataclass
class Nginx(Server):
    """Logs the body. `read` is what has it read, `load` what that needs."""

    read: str = PROXIED
    load: str = ""

    def command(self, folder, port):
        text = NGINX.format(folder=folder, port=port, read=self.read, job=JOB, workspace=WORKSPACE)
        # Root's worker would become another user, who may not enter the folder.
        user = "user root;" if os.getuid() == 0 else ""
        file = pathlib.Path(folder, "nginx.conf")
        file.write_text(self.load + user + text)
        return ["-e", "stderr", "-c", str(file)]


class Running:
    """A server that has answered its first request, in a folder of its own. Leaving the context ends it."""

    def __init__(self, server, data, first=None):
        self.server = server
        self.folder = tempfile.mkdtemp(prefix=f"{server.name.replace(' ', '-')}-", dir=data)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/append"
        command = [server.binary, *server.command(self.folder, self.port)]
        first = first or self.request(body())
        with open(f"{self.folder}/stderr", "wb") as log:
            begun = time.perf_counter()
            # With these arguments there is no fork but a vfork, which costs little.
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=server.environment(), close_fds=False, start_new_session=True)
        try:
            self._wait_for_an_answer(first, begun + START_SECONDS_MAX)
            self.start_ms = (time.perf_counter() - begun) * 1e3
            self.pids = tree(self.process.pid)
        except BaseException:
            self.__exit__()
            raise

    def _wait_for_an_answer(self, request, deadline):
        """Asks without a pause until there is an answer: a connection that is refused costs some microseconds."""
        while time.perf_counter() < deadline:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    client.sendall(request)
                    answer = client.recv(4096)
                    if answer[9:10] == b"2":
                        return
                    raise SystemExit(f"{self.server.name} answered {answer.decode(errors='replace')}")
            if self.process.poll() is not None:
                break
        raise SystemExit(f"{self.server.name} does not start: {pathlib.Path(self.folder, 'stderr').read_text()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self):
        """SIGKILL to all of its processes at once, so that a parent has no time to start new children."""
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def request(self, content, kind="application/json", method="POST", path="/append"):
        """The bytes of a request."""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: {kind}\r\n"
        return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content

    def connect(self):
        """A connection to it."""
        client = socket.create_connection(("127.0.0.1", self.port), 60)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def cpu_seconds(self):
        """CPU time of all of its processes, threads that have ended included, to the nanosecond."""
        # The id of another process's clock, as clock_getcpuclockid(3) makes it.
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in self.pids)

    def memory_kib(self, key):
        """`VmRSS`, resident now, or `VmHWM`, its peak, of all of its processes."""
        return sum(status_kib(pid, key) for pid in self.pids)

    def segments(self):
        """The files that its lines are in."""
        return sorted(pathlib.Path(self.folder).glob("*.jsonl"))

    def lines(self):
        """The lines on disk."""
        count = 0
        for segment in self.segments():
            with open(segment, "rb") as file:
                while some := file.read(1 << 20):
                    count += some.count(b"\n")
        return count


def tree(pid):
    """The process and all that descend from it."""
    pids = [pid]
    for parent in pids:
        for task in os.listdir(f"/proc/{parent}/task"):
            pids += map(int, pathlib.Path(f"/proc/{parent}/task/{task}/children").read_text().split())
    return pids


def status_kib(pid, key):
    """A line of /proc/PID/status."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(f"{key}:"))
