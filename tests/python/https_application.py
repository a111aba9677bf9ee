"""An application over TLS: a key set for GET, and a grant for every POST.

    python https_application.py CERTIFICATE KEY KEY_SET

It prints its port, and serves until its standard input ends.
"""

import http.server
import pathlib
import ssl
import sys
import threading

GRANT = b'{"user":"ann","subscribe":["a:*"],"publish":["a:*"],"expiresMs":60000}'


class Application(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(pathlib.Path(sys.argv[3]).read_bytes())

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(GRANT)

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
