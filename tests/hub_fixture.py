"""A Hub on this machine: the few routes that pushing and loading take, and what reached them."""

from __future__ import annotations

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlparse

TOKEN = "hf_of_nobody"


class Hub(ThreadingHTTPServer):
    """Repositories with one branch, main.

    Attributes:
        commits: of each repository its commits, each all its files by name.
        private: of each whether it was made private.
        asked: method and path of every request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Routes)
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def sha(self, repository: str, number: int) -> str:
        return hashlib.sha1(f"{repository} {number}".encode()).hexdigest()


class Routes(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        match urlparse(self.path).path.strip("/").split("/"):
            case ["api", "models", owner, name, "revision", revision]:
                files, sha = self.at(f"{owner}/{name}", revision)
                if files is not None:
                    self.say({"id": f"{owner}/{name}", "sha": sha, "siblings": [{"rfilename": file} for file in files]})
            case ["api", "models", owner, name, "tree", revision]:
                files, _ = self.at(f"{owner}/{name}", revision)
                if files is not None:
                    self.say([self.entry(file, content) for file, content in files.items()])
            case [owner, name, "resolve", revision, file]:
                files, sha = self.at(f"{owner}/{name}", revision)
                if files is not None:
                    etag = hashlib.sha1(files[file]).hexdigest()
                    self.send(200, files[file], {"ETag": f'"{etag}"', "X-Repo-Commit": sha})
            case _:
                self.send(404, b"")

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.send(401, b"")
            return
        match urlparse(self.path).path.strip("/").split("/"):
            case ["api", "repos", "create"]:
                asked = json.loads(content)
                repository = f"{asked.get('organization', 'me')}/{asked['name']}"
                known = repository in self.server.commits
                self.server.commits.setdefault(repository, [])
                self.server.private.setdefault(repository, asked.get("private", asked.get("visibility") == "private"))
                self.say({"url": f"{self.server.endpoint}/{repository}"}, 409 if known else 200)
            case ["api", "validate-yaml"]:
                self.say({"errors": [], "warnings": []})
            case ["api", "models", owner, name, "preupload", "main"]:
                files = [file["path"] for file in json.loads(content)["files"]]
                modes = {file: "lfs" if file.endswith(".safetensors") else "regular" for file in files}
                self.say({"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]})
            case [owner, name, "info", "lfs", "objects", "batch"]:
                where = {"header": {}}
                objects = [
                    {**each, "actions": {"upload": {**where, "href": f"{self.server.endpoint}/large/{each['oid']}"}}}
                    for each in json.loads(content)["objects"]
                ]
                self.say({"transfer": "basic", "objects": objects})
            case ["api", "models", owner, name, "commit", "main"]:
                repository = f"{owner}/{name}"
                self.commit(repository, [json.loads(line) for line in content.splitlines()])
                sha = self.server.sha(repository, len(self.server.commits[repository]) - 1)
                url = f"{self.server.endpoint}/{repository}/commit/{sha}"
                self.say({"success": True, "commitOid": sha, "commitUrl": url})
            case _:
                self.send(404, b"")

    def do_PUT(self) -> None:
        self.server.large[self.path.rpartition("/")[2]] = self.rfile.read(int(self.headers["Content-Length"]))
        self.send(200, b"")

    def commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        commits = self.server.commits[repository]
        files = dict(commits[-1]) if commits else {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
        commits.append(files)

    def at(self, repository: str, revision: str) -> tuple[dict[str, bytes] | None, str]:
        """Find the files of a revision, or answer that there are none."""
        commits = self.server.commits.get(repository)
        hidden = self.server.private.get(repository) and self.headers.get("Authorization") != f"Bearer {TOKEN}"
        if commits is None or hidden:
            self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
            return None, ""
        known = {self.server.sha(repository, number): files for number, files in enumerate(commits or [{}])}
        sha = list(known)[-1] if revision == "main" else revision
        if sha not in known:
            self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return None, ""
        return known[sha], sha

    def entry(self, file: str, content: bytes) -> dict[str, Any]:
        return {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def say(self, answer: Any, code: int = 200) -> None:
        self.send(code, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def send(self, code: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.server.asked.append(f"{self.command} {urlparse(self.path).path}")
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
