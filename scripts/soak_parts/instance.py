"""The instance under attack."""

import os
import pathlib
import subprocess


class Instance:
    """`fanfare serve` with its defaults."""

    def __init__(self, binary: pathlib.Path):
        command = [str(binary), "serve", "--listen", "127.0.0.1:0", "--no-demo"]
        environment = {**os.environ, "RUST_LOG": "off"}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        host, port = self.process.stdout.readline().strip().rsplit("http://", 1)[1].split(":")
        self.address = (host, int(port))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def resident_bytes(self) -> int:
        fields = pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
