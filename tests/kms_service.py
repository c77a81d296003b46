"""AWS KMS on this machine, as far as a vault asks it: the JSON protocol that botocore speaks, over real HTTP.

It is written after the service's public API reference. It is not the service: `docs/vault.md` says that no
real one was met.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ARN = "arn:aws:kms:eu-central-1:111122223333:key/"


class KmsService:
    """keys: by id. asked: (call, fields) of every request, for tests to look at."""

    def __init__(self) -> None:
        self.keys = {"one": AESGCM.generate_key(256), "two": AESGCM.generate_key(256)}
        self.asked: list[tuple[str, dict]] = []
        self.signed: list[str] = []
        self.broken: tuple[int, str] | None = None

    def answer(self, call: str, fields: dict) -> tuple[int, dict]:
        self.asked.append((call, fields))
        if self.broken is not None:
            return self.broken[0], {"__type": self.broken[1], "message": "as the test wants it"}
        name = fields["KeyId"].removeprefix(ARN)
        if name not in self.keys:
            return 400, {"__type": "NotFoundException", "message": f"Key '{fields['KeyId']}' does not exist"}
        cipher = AESGCM(self.keys[name])
        context = json.dumps(fields.get("EncryptionContext", {}), sort_keys=True).encode()
        if call == "Encrypt":
            nonce = os.urandom(12)
            blob = nonce + cipher.encrypt(nonce, base64.b64decode(fields["Plaintext"]), context)
            return 200, {"CiphertextBlob": base64.b64encode(blob).decode(), "KeyId": ARN + name}
        blob = base64.b64decode(fields["CiphertextBlob"])
        try:
            plain = cipher.decrypt(blob[:12], blob[12:], context)
        except (InvalidTag, ValueError):
            return 400, {"__type": "InvalidCiphertextException"}
        return 200, {"Plaintext": base64.b64encode(plain).decode(), "KeyId": ARN + name}

    @contextmanager
    def serving(self):
        """Its address."""
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.signed.append(self.headers.get("Authorization", ""))
                call = self.headers["X-Amz-Target"].removeprefix("TrentService.")
                status, fields = service.answer(call, json.loads(body))
                answer = json.dumps(fields).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}"
            finally:
                server.shutdown()
                thread.join()
