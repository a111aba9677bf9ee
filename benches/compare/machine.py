"""The machine of a comparison: its packages, binaries and open files, and its description."""

import datetime
import json
import os
import platform
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# The directory on Debian; the environment can name another one.
NGINX_MODULES = Path(os.environ.get("NGINX_MODULES", "/usr/lib/nginx/modules"))

# The program is measured if the environment names it; nothing installs it.
CENTRIFUGO = os.environ.get("CENTRIFUGO", "")

# fanfare's targets assume this many per process, even if the machine allows more.
MAX_OPEN_FILES = 20_000


class CannotCompare(Exception):
    """Something is missing; the message names it and the remedy."""


@dataclass
class Programs:
    """Paths of the servers and of the load tool; empty if not needed."""

    fanfare: str
    nginx: str
    node: str
    floor: str
    actix: str
    centrifugo: str


def raise_open_files() -> int:
    """Raises the limit of open files, inherited by every child, and returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def prepare(systems: set[str]) -> Programs:
    """Installs and builds the programs for these systems."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # nginx lives there
    install_missing_packages(systems)
    floors = {"floor", "floor-uring"}
    benches = [name for name, of in (("floor", floors), ("actix_broadcast", {"actix"})) if of & systems]
    built = build(benches)
    return Programs(
        fanfare=built["fanfare"],
        nginx=shutil.which("nginx") or "",
        node=shutil.which("node") or "",
        floor=built.get("floor", ""),
        actix=built.get("actix_broadcast", ""),
        centrifugo=CENTRIFUGO,
    )


def install_missing_packages(systems: set[str]) -> None:
    packages = []
    if "nchan" in systems and not shutil.which("nginx"):
        packages.append("nginx")
    if "nchan" in systems and not (NGINX_MODULES / "ngx_nchan_module.so").exists():
        packages.append("libnginx-mod-nchan")
    if "node" in systems and not shutil.which("node"):
        packages.append("nodejs")
    if not packages:
        return
    if not shutil.which("apt-get"):
        raise CannotCompare(f"install these first: {' '.join(packages)}")
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    if as_root and not shutil.which("sudo"):
        raise CannotCompare(f"neither root nor sudo; as root: apt-get install {' '.join(packages)}")
    print(f"installing {' '.join(packages)}", flush=True)
    quietly = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        if subprocess.run([*quietly, *command], stdout=subprocess.DEVNULL).returncode != 0:
            raise CannotCompare(f"apt-get could not install {' '.join(packages)}")


def build(benches: list[str]) -> dict[str, str]:
    """Builds fanfare and the servers in benches/, optimized. Returns their paths by name.

    One build for all: a separate build of fanfare would compile its dependencies again, with other features.
    """
    command = ["cargo", "build", "--release", "--bin", "fanfare", "--message-format=json-render-diagnostics"]
    command += [argument for name in benches for argument in ("--bench", name)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise CannotCompare(f"cargo could not build fanfare and {', '.join(benches) or 'nothing else'}")
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    built = {message["target"]["name"]: message["executable"] for message in messages if message.get("executable")}
    missing = {"fanfare", *benches} - built.keys()
    if missing:
        raise CannotCompare(f"cargo built no program for {', '.join(sorted(missing))}")
    return built


def describe(programs: Programs, open_files: int) -> dict[str, str]:
    """Describes the machine and the versions of the systems, for readers of the figures."""
    cpu = first_match(Path("/proc/cpuinfo").read_text(), "model name")
    memory = first_match(Path("/proc/meminfo").read_text(), "MemTotal").split()[0]
    about = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} cores ({cpu}), {int(memory) / 1024 / 1024:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "open files": f"{open_files} a process",
        "fanfare": output(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]),
        "fanfare's sends": way_of_sending(programs.fanfare),
    }
    if programs.centrifugo:
        about["centrifugo"] = output([programs.centrifugo, "version"])
    if programs.nginx:
        nchan = output(["dpkg-query", "-W", "-f=${Version}", "libnginx-mod-nchan"])
        nginx = output([programs.nginx, "-v"]).removeprefix("nginx version: ")
        about["nginx"] = f"{nginx}, Nchan {nchan}"
    if programs.node:
        about["node"] = output([programs.node, "--version"])
    return about


def way_of_sending(fanfare: str) -> str:
    """The line of fanfare's log about it: together by io_uring, or each stream for itself."""
    command = [fanfare, "serve", "--no-demo", "--listen=127.0.0.1:0"]
    environment = {**os.environ, "RUST_LOG": "fanfare=info"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=pipe, text=True) as server:
        lines = (line.strip() for line in server.stderr)
        found = next((line for line in lines if "the sends of" in line or "sends for itself" in line), "unknown")
        server.kill()
    return found.partition("] ")[2] or found


def first_match(text: str, key: str) -> str:
    lines = (line for line in text.splitlines() if line.startswith(key))
    return next(lines, ": unknown").partition(":")[2].strip()


def output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError:
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"
