"""The compared systems: how to start each, and its URLs for streams and publishes."""

import getpass
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from . import secured
from .machine import CENTRIFUGO, MAX_OPEN_FILES, NGINX_MODULES, ROOT, Programs
from .works import Work

PEERS = ROOT / "benches" / "peers"


@dataclass(frozen=True)
class Start:
    """A server's command line and environment."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class System:
    name: str
    title: str
    has_history: bool = False
    process_count: int = 1

    def start(self, programs: Programs, work: Work, port: int, directory: Path) -> Start:
        raise NotImplementedError

    def can_do(self, work: Work) -> bool:
        """Whether it takes this load."""
        return self.has_history or not work.needs_history

    def load_arguments(self, work: Work, port: int) -> list[str]:
        """The options of `fanfare bench` for streams and publishes; each event is one POST."""
        base = f"http://127.0.0.1:{port}"
        return [f"--stream-url={base}/sub/{{topics}}", f"--publish-url={base}/pub/{{topic}}"]


@dataclass(frozen=True)
class Fanfare(System):
    transport: str = ""

    def start(self, programs: Programs, work: Work, port: int, directory: Path) -> Start:
        # Defaults, except for the transport, the flush and the log: the default log has a line for
        # every stream, and the other systems have none.
        environment = {
            "FANFARE__SERVER__TRANSPORT": self.transport,
            "FANFARE__DELIVERY__FLUSH": work.flush,
            "RUST_LOG": "warn",
        }
        command = [programs.fanfare, "serve", "--no-demo", f"--listen=127.0.0.1:{port}"]
        if work.access:
            command.append(f"--config={secured.write_config(work, directory)}")
        if work.over_tls:
            environment |= secured.certificate(directory)
        return Start(command, environment)

    def load_arguments(self, work: Work, port: int) -> list[str]:
        base = f"http://127.0.0.1:{port}"
        if work.fanfare_takes_lines:
            return [f"--url={base}"]
        return [
            f"--url={base}",
            f"--publish-url={base}/events/publish",
            '--publish-body={"topic":"{topic}","data":"{data}"}',
            "--publish-type=application/json",
        ]


class Nchan(System):
    def start(self, programs: Programs, work: Work, port: int, directory: Path) -> Start:
        # With a root master, workers would run as another user, and their memory would be unreadable.
        user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
        values = {
            "MODULES": NGINX_MODULES,
            "USER": user,
            "DIRECTORY": directory,
            "OPEN_FILES": MAX_OPEN_FILES,
            "LISTEN": f"127.0.0.1:{port}",
        }
        text = (PEERS / "nchan.conf").read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        configuration = directory / "nginx.conf"
        configuration.write_text(text)
        return Start([programs.nginx, "-e", "stderr", "-p", str(directory), "-c", str(configuration)])


class Node(System):
    def start(self, programs: Programs, work: Work, port: int, directory: Path) -> Start:
        command = [programs.node, str(PEERS / "node-hub.mjs"), "--listen", f"127.0.0.1:{port}"]
        return Start(command, {"NODE_ENV": "production"})


class Actix(System):
    def start(self, programs: Programs, work: Work, port: int, directory: Path) -> Start:
        return Start([programs.actix, "--listen", f"127.0.0.1:{port}"])


@dataclass(frozen=True)
class Floor(System):
    sends_together: bool = False

    def start(self, programs: Programs, work: Work, port: int, directory: Path) -> Start:
        together = ["--together"] if self.sends_together else []
        return Start([programs.floor, "--listen", f"127.0.0.1:{port}", *together])


CENTRIFUGO_KEY = "compare"


class Centrifugo(System):
    """Streams by its unidirectional SSE, publishes by its HTTP API. The environment names the program."""

    def start(self, programs: Programs, work: Work, port: int, directory: Path) -> Start:
        settings = {
            "http_server": {"address": "127.0.0.1", "port": port},
            "http_api": {"key": CENTRIFUGO_KEY},
            "client": {"insecure": True, "allowed_origins": ["*"]},
            # The topics of the load tool have colons: no namespaces.
            "channel": {
                "namespace_boundary": "~",
                "without_namespace": {"allow_subscribe_for_anonymous": True, "allow_subscribe_for_client": True},
            },
            "uni_sse": {"enabled": True},
            "log": {"level": "error"},
        }
        configuration = directory / "centrifugo.json"
        configuration.write_text(json.dumps(settings))
        return Start([programs.centrifugo, f"--config={configuration}"])

    def load_arguments(self, work: Work, port: int) -> list[str]:
        base = f"http://127.0.0.1:{port}"
        subscribe = quote('{"subs":{"') + "{topics}" + quote('":{}}}')
        return [
            f"--stream-url={base}/connection/uni_sse?cf_connect={subscribe}",
            f"--publish-url={base}/api/publish?api_key={CENTRIFUGO_KEY}",
            '--publish-body={"channel":"{topic}","data":"{data}"}',
            "--publish-type=application/json",
        ]

    def can_do(self, work: Work) -> bool:
        # Its request names each channel in an object, which the load tool cannot write.
        return work.topics_per_stream == 1 and not work.missed_events


SYSTEMS: list[System] = [
    Floor("floor", "floor: bare epoll and write"),
    Floor("floor-uring", "the same, sends together by io_uring", sends_together=True),
    Fanfare("raw", "fanfare, raw", has_history=True, transport="raw"),
    Fanfare("body", "fanfare, body", has_history=True, transport="body"),
    Nchan("nchan", "nginx + Nchan", has_history=True, process_count=3),
    Node("node", "Node hub"),
    Actix("actix", "actix-web broadcaster"),
    *([Centrifugo("centrifugo", "Centrifugo")] if CENTRIFUGO else []),
]
