"""Signs tokens with PyJWT. Reads a JSON list of {algorithm, key, claims, headers} from standard input, and
prints one token per line. A key is a secret or a private key in PEM."""

import json
import sys

import jwt

for order in json.load(sys.stdin):
    claims = order["claims"]
    # PyJWT checks some claims itself; the attacks need its signature only.
    payload = json.dumps(claims).encode()
    headers = {"typ": "JWT", **order.get("headers", {})}
    print(jwt.PyJWS().encode(payload, order["key"], order["algorithm"], headers))
