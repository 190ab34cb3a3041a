"""The published Python clients against the real binary, on each way it can run.

Provisions with caracalai-admin, then makes the documented first protected call with caracalai-sdk: application_transport and
gateway_request, sync and async. What the upstream received is part of what is checked.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Iterator
from urllib.parse import urlsplit, urlunsplit

import httpx
from caracalai import Caracal
from caracalai_admin import AdminClient, ResourceGrant, ensure_grants
from caracalai_admin.errors import AdminApiError

from admin import methods, reconcilers

KEY = "upstream-key-7f3a"
PORTS = {"api": 3000, "coordinator": 4000, "sts": 8080, "gateway": 8081, "audit": 9090}


class Upstream:
    """An upstream that remembers what it was sent."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                outer.seen.append({"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body})
                answer = json.dumps({"ok": True, "path": self.path}).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = _answer

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def free_offset() -> int:
    """An offset at which all five ports are free."""
    for offset in range(10_000 + os.getpid() % 997, 40_000, 37):
        held = []
        try:
            for port in PORTS.values():
                held.append(socket.create_server(("127.0.0.1", port + offset)))
            return offset
        except OSError:
            continue
        finally:
            for one in held:
                one.close()
    raise SystemExit("no free ports")


def environment() -> dict[str, str]:
    """Ours, without what would configure a stack."""
    return {k: v for k, v in os.environ.items() if not k.startswith("CARACAL_") and k not in ("DATABASE_URL", "REDIS_URL")}


@contextmanager
def stack(binary: str, database: str | None, redis: str | None) -> Iterator[dict[str, Any]]:
    """All five services in one process."""
    with tempfile.TemporaryDirectory() as home:
        offset = free_offset()
        env = environment()
        if database:
            env["DATABASE_URL"] = database
        if redis:
            env["REDIS_URL"] = redis
        command = [binary, "up", "--data-dir", home, "--port-offset", str(offset)]
        with open(Path(home) / "up.txt", "wb") as out:
            process = subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT)
        status = [binary, "status", "--ready", "--port-offset", str(offset)]
        deadline = time.monotonic() + 30
        while subprocess.run(status, env=env, capture_output=True).returncode != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((Path(home) / "up.txt").read_text())
        kept = Path(home) / "secrets"
        try:
            yield {
                **{name: f"http://localhost:{port + offset}" for name, port in PORTS.items()},
                "admin_token": (kept / "caracalAdminToken").read_text(),
                "coordinator_token": (kept / "caracalCoordinatorToken").read_text(),
                "command": command,
                "env": env,
            }
        except BaseException:
            print((Path(home) / "up.txt").read_text()[-4000:])
            raise
        finally:
            process.terminate()
            assert process.wait(30) == 0, "a stack that is told to stop stops cleanly"


@contextmanager
def apart(binary: str, database: str | None, redis: str | None) -> Iterator[dict[str, Any]]:
    """Each service a process of its own, configured as in production: nothing is generated, published rules hold."""
    with tempfile.TemporaryDirectory() as home:
        offset = free_offset()
        sts = f"http://localhost:{PORTS['sts'] + offset}"
        keys = ("STREAMS_HMAC_KEY", "AUDIT_HMAC_KEY", "GATEWAY_STS_HMAC_KEY", "IDEMPOTENCY_HMAC_KEY", "SECRET_STORE_KEK")
        tokens = ("CARACAL_ADMIN_TOKEN", "CARACAL_COORDINATOR_TOKEN", "AUDIT_ADMIN_TOKEN")
        env = {
            **environment(),
            **{name: secrets.token_hex(32) for name in keys + tokens},
            **{"DATABASE_URL": database or "", "REDIS_URL": redis or "", "AUDIT_REPLAY_DIR": f"{home}/spool"},
            **{"ISSUER_URL": sts, "STS_URL": sts, "CARACAL_HOME": home},
        }
        running: dict[str, subprocess.Popen[bytes]] = {}

        def logs() -> str:
            return "".join(f"== {name}\n{(Path(home) / name).read_text()[-2000:]}" for name in PORTS)

        for name, port in PORTS.items():
            with open(Path(home) / name, "wb") as out:
                command = [binary, "serve", name, "--port", str(port + offset)]
                running[name] = subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT)
        status = [binary, "status", "--ready", "--port-offset", str(offset)]
        try:
            deadline = time.monotonic() + 30
            while subprocess.run(status, env=env, capture_output=True).returncode != 0:
                if any(one.poll() is not None for one in running.values()) or time.monotonic() > deadline:
                    raise SystemExit("not ready")
            yield {
                **{name: f"http://localhost:{port + offset}" for name, port in PORTS.items()},
                "admin_token": env["CARACAL_ADMIN_TOKEN"],
                "coordinator_token": env["CARACAL_COORDINATOR_TOKEN"],
            }
        except BaseException:
            print(logs())
            raise
        finally:
            for one in running.values():
                one.terminate()
            ended = {name: one.wait(30) for name, one in running.items()}
        assert not any(ended.values()), f"a service that is told to stop stops cleanly: {ended}\n{logs()}"


def eventually(what: str, look: Any) -> Any:
    """Evidence reaches the ledger soon after the answer, not before it."""
    deadline = time.monotonic() + 10
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"never seen: {what}")
        time.sleep(0.02)


def provision(at: dict[str, Any], upstream: str) -> dict[str, Any]:
    admin = AdminClient(
        api_url=at["api"], admin_token=at["admin_token"], coordinator_url=at["coordinator"], coordinator_token=at["coordinator_token"]
    )
    zone = admin.zones.create({"name": "SDK zone"})
    assert zone["slug"] == "sdk-zone" and admin.zones.get(zone["id"])["id"] == zone["id"]
    application = admin.applications.create(zone["id"], {"name": "ledger-agent", "registration_method": "managed"})
    assert application["client_secret"].startswith("cs_")
    provider = admin.providers.create(
        zone["id"], {"name": "Ledger key", "kind": "bearer_token", "config_json": {"bearer_token": KEY}}
    )
    assert provider["secret_config_keys"] == ["bearer_token"] and KEY not in json.dumps(provider)
    resource = admin.resources.create(
        zone["id"],
        {
            "name": "Ledger",
            "identifier": "resource://ledger",
            "upstream_url": upstream + "/base",
            "scopes": ["ledger:read", "ledger:post"],
            "credential_provider_id": provider["id"],
            "operation_enforcement": "transport_uniform",
        },
    )
    grants = [ResourceGrant(application_id=application["id"], resource_identifier="resource://ledger", scopes=["ledger:read"])]
    ensure_grants(admin, zone["id"], grants=grants)
    ensure_grants(admin, zone["id"], grants=grants)
    sets = admin.policy_sets.list(zone["id"])
    assert len(sets) == 1 and sets[0]["active_version_id"], "a second run changes nothing"
    assert len(admin.policies.get(zone["id"], admin.policies.list(zone["id"])[0]["id"])["versions"]) == 1
    return {"admin": admin, "zone": zone["id"], "application": application, "resource": resource}


def client(at: dict[str, Any], made: dict[str, Any]) -> Caracal:
    return Caracal.from_client_secret(
        coordinator_url=at["coordinator"],
        sts_url=at["sts"],
        gateway_url=at["gateway"],
        zone_id=made["zone"],
        application_id=made["application"]["id"],
        client_secret=made["application"]["client_secret"],
        resources=["resource://ledger"],
    )


def check_call(upstream: Upstream, path: str, bearer: str) -> None:
    seen = upstream.seen[-1]
    headers = {k.lower(): v for k, v in seen["headers"].items()}
    assert seen["path"] == "/base" + path, seen["path"]
    assert headers["authorization"] == f"Bearer {KEY}", "the upstream's own credential, and only it"
    assert "eyJ" not in json.dumps(headers), "no mandate reaches the upstream"
    assert not [name for name in headers if name.startswith("x-caracal-")], headers
    assert bearer not in json.dumps(headers)


def sync_calls(at: dict[str, Any], made: dict[str, Any], upstream: Upstream) -> None:
    caracal = client(at, made)
    target = caracal.gateway_request("resource://ledger", "/entries?limit=2")
    with caracal.sync_application_transport("resource://ledger", scopes=["ledger:read"]) as http:
        for _ in range(3):
            answer = http.get(target.url, headers=target.headers)
            assert answer.status_code == 200, (answer.status_code, answer.text)
            assert answer.json()["path"] == "/base/entries?limit=2"
            check_call(upstream, "/entries?limit=2", made["application"]["client_secret"])
        posted = http.post(target.url, headers=target.headers, content=b'{"amount":12}')
        assert posted.status_code == 200 and upstream.seen[-1]["body"] == b'{"amount":12}'
    before = len(upstream.seen)
    with caracal.sync_application_transport("resource://ledger", scopes=["ledger:post"]) as http:
        try:
            answer = http.get(target.url, headers=target.headers)
            raise AssertionError(f"a scope outside the grant passed: {answer.status_code}")
        except AssertionError:
            raise
        except Exception as error:  # noqa: BLE001 - the SDK's own error type is its business
            assert "role_scope_mismatch" in str(error) or "access_denied" in str(error) or "denied" in str(error).lower(), error
    assert len(upstream.seen) == before
    asyncio.run(caracal.aclose())


async def async_calls(at: dict[str, Any], made: dict[str, Any], upstream: Upstream) -> None:
    caracal = client(at, made)
    target = caracal.gateway_request("resource://ledger", "/async")
    async with caracal.application_transport("resource://ledger", scopes=["ledger:read"]) as http:
        answers = await asyncio.gather(*(http.get(target.url, headers=target.headers) for _ in range(8)))
        assert [a.status_code for a in answers] == [200] * 8, [a.text for a in answers]
        check_call(upstream, "/async", made["application"]["client_secret"])
    async with caracal.session() as context:
        assert context is not None
    await caracal.aclose()


def replay(at: dict[str, Any], made: dict[str, Any], upstream: Upstream) -> None:
    """One mandate, one call."""
    caracal = client(at, made)
    seen: list[str] = []

    class Spy(httpx.BaseTransport):
        def __init__(self) -> None:
            self.inner = httpx.HTTPTransport()

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            seen.append(request.headers["authorization"])
            return self.inner.handle_request(request)

    target = caracal.gateway_request("resource://ledger", "/once")
    with caracal.sync_application_transport("resource://ledger", scopes=["ledger:read"], transport=Spy()) as http:
        assert http.get(target.url, headers=target.headers).status_code == 200
    before = len(upstream.seen)
    again = httpx.get(target.url, headers={**target.headers, "authorization": seen[-1]})
    assert again.status_code == 401, (again.status_code, again.text)
    assert len(upstream.seen) == before, "a replayed mandate reaches nobody"
    asyncio.run(caracal.aclose())


def evidence(at: dict[str, Any], made: dict[str, Any]) -> None:
    def events() -> list[dict[str, Any]]:
        answer = httpx.get(
            f"{at['api']}/v1/zones/{made['zone']}/audit",
            params={"limit": 500},
            headers={"authorization": f"Bearer {at['admin_token']}"},
        )
        assert answer.status_code == 200, (answer.status_code, answer.text)
        return answer.json()["items"]

    wanted = {"token_exchange", "gateway_resource_request", "replay_detected", "session_started", "delegation_created", "policy_activated"}
    eventually("evidence of everything", lambda: wanted <= {e["event_type"] for e in events()})
    calls = [e for e in events() if e["event_type"] == "gateway_resource_request" and e["decision"] == "allow"]
    request_id = calls[0]["request_id"]
    traced = httpx.get(
        f"{at['api']}/v1/zones/{made['zone']}/audit/by-request/{request_id}", headers={"authorization": f"Bearer {at['admin_token']}"}
    )
    assert traced.status_code == 200 and len(traced.json()) >= 2, traced.text


def refused(at: dict[str, Any], made: dict[str, Any]) -> None:
    try:
        AdminClient(api_url=at["api"], admin_token="wrong").zones.list()
        raise AssertionError("a wrong admin token passed")
    except AdminApiError as error:
        assert error.status == 401 if hasattr(error, "status") else True


def fresh_database(server: str, name: str) -> str:
    subprocess.run(["psql", "-q", server, "-c", f"CREATE DATABASE {name}"], check=True)
    parts = urlsplit(server)
    return urlunsplit(parts._replace(path="/" + name))


def main() -> None:
    binary = sys.argv[1]
    server, redis = os.environ.get("TEST_DATABASE_URL"), os.environ.get("TEST_REDIS_URL")
    rounds: list[tuple[str, Any, str | None, str | None]] = [("one process on SQLite", stack, None, None)]
    databases = []
    if server:
        databases = [f"caracal_sdk_{uuid.uuid4().hex}" for _ in range(3)]
        rounds.append(("one process on PostgreSQL alone", stack, fresh_database(server, databases[0]), None))
        if redis:
            bus = redis.rstrip("/")
            rounds.append(("one process on PostgreSQL and Redis", stack, fresh_database(server, databases[1]), bus + "/4094"))
            rounds.append(("five processes on PostgreSQL and Redis", apart, fresh_database(server, databases[2]), bus + "/4095"))
    try:
        for name, runs, database, bus in rounds:
            upstream = Upstream()
            with runs(binary, database, bus) as at:
                made = provision(at, upstream.url)
                methods(made["admin"])
                reconcilers(made["admin"])
                sync_calls(at, made, upstream)
                asyncio.run(async_calls(at, made, upstream))
                replay(at, made, upstream)
                refused(at, made)
                evidence(at, made)
                if database and not bus:
                    with tempfile.TemporaryDirectory() as other:
                        second = [binary, "up", "--data-dir", other, "--port-offset", str(free_offset())]
                        ended = subprocess.run(second, env=at["env"], capture_output=True, text=True, timeout=30)
                        assert ended.returncode == 1 and "another caracal" in ended.stderr, ended
            print(f"  ✓ {name}")
    finally:
        for name in databases:
            subprocess.run(["psql", "-q", server, "-c", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"], check=False)


if __name__ == "__main__":
    main()
