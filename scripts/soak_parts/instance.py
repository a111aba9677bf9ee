"""The instance under attack."""

import http.client
import os
import pathlib
import subprocess
import time

READY_SECONDS = 10


class Instance:
    """`fanfare serve` with its defaults. It trusts loopback as a proxy, for attacks from other
    addresses; over a Redis if one is given."""

    def __init__(self, binary: pathlib.Path, redis=None):
        command = [str(binary), "serve", "--listen", "127.0.0.1:0", "--no-demo"]
        command += ["--redis", redis] if redis else []
        proxies = {"FANFARE__LIMITS__TRUSTED_PROXIES": "127.0.0.1"}
        environment = {**os.environ, **proxies, "RUST_LOG": "off"}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        host, port = self.process.stdout.readline().strip().rsplit("http://", 1)[1].split(":")
        self.address = (host, int(port))
        self.wait_ready()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def wait_ready(self):
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end:
            connection = http.client.HTTPConnection(*self.address, timeout=READY_SECONDS)
            connection.request("GET", "/health/ready")
            if connection.getresponse().status == 200:
                return
            time.sleep(0.1)
        raise RuntimeError("the instance is not ready")

    def resident_bytes(self) -> int:
        fields = pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
