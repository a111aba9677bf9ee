"""An application with sessions of its own, deciding for the hub by webhook. It needs Python 3.9 only.

    WEBHOOK_SECRET='change me' python3 examples/access/application.py 9000

POST /login with a form (`user=ann`) starts a session. POST /decide is the hub's question.
"""

import hashlib
import hmac
import json
import os
import secrets
import sys
import time
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

SECRET = os.environ.get("WEBHOOK_SECRET", "change me").encode()

# A real application has its sessions in its database.
SESSIONS = {}

# Older questions could be repeated by somebody who saw them.
MAX_AGE_SECONDS = 300


def is_from_hub(headers, body):
    """Whether the hub signed this question, lately."""
    timestamp = headers.get("X-Fanfare-Timestamp", "")
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > MAX_AGE_SECONDS:
        return False
    digest = hmac.new(SECRET, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(headers.get("X-Fanfare-Signature", ""), "v1=" + digest)


def user_of(headers):
    session = SimpleCookie(headers.get("Cookie", "")).get("session")
    return SESSIONS.get(session.value) if session else None


class Application(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/login":
            self.login(parse_qs(body.decode()).get("user", [""])[0])
        elif self.path == "/logout":
            self.logout()
        elif self.path == "/decide":
            self.decide(body)
        else:
            self.answer(404)

    def login(self, user):
        # A real application checks a password here.
        if not user.isalnum():
            return self.answer(400)
        session = secrets.token_urlsafe()
        SESSIONS[session] = user
        self.answer(200, {"user": user}, f"session={session}; HttpOnly; SameSite=Lax; Path=/")

    def logout(self):
        session = SimpleCookie(self.headers.get("Cookie", "")).get("session")
        if session:
            SESSIONS.pop(session.value, None)
        self.answer(200)

    def decide(self, body):
        if not is_from_hub(self.headers, body):
            return self.answer(400)
        user = user_of(self.headers)
        if user is None:
            return self.answer(401)
        self.answer(200, {
            "user": user,
            "subscribe": ["notifications:{user}", "news:**"],
            "publish": ["chat:*"],
            # The hub asks again after this time, so a logout counts within it.
            "expiresMs": 60_000,
        })

    def answer(self, status, value=None, cookie=None):
        body = json.dumps(value or {}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Silent: a log of requests must not have cookies."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Application)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
