"""Every method of the published administration client for what an operator manages, and its reconcilers, against the real binary."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Callable

from caracalai_admin import (
    AdminClient,
    ResourceGrant,
    ensure_api_key_provider,
    ensure_application,
    ensure_grants,
    ensure_resource,
)
from caracalai_admin.errors import AdminApiError

GRANTS = "# caracal:data-document\npackage caracal.authz\ngrants := {}\n"
SECRET = "a-secret-that-an-operator-chose-0001"


def refused(status: int, code: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except AdminApiError as error:
        assert (error.status, error.code) == (status, code), (error.status, error.code, error.body)
    else:
        raise AssertionError(f"not refused: {code}")


def methods(admin: AdminClient) -> None:
    """Each method once, with what it reads from the answer."""
    zone = admin.zones.create({"name": "Methods", "slug": "methods"})
    z = zone["id"]
    assert admin.zones.patch(z, {"name": "Renamed"})["slug"] == "methods"
    assert z in [found["id"] for found in admin.zones.list()]
    assert admin.zones.dcr_status(z) == {"id": z, "dcr_enabled": False, "live_dcr_applications": 0}

    made = admin.applications.create(z, {"name": "agent", "registration_method": "managed", "traits": ["team:a"]})
    assert made["traits"] == ["team:a"] and made["expires_at"] is None
    a = made["id"]
    assert [found["id"] for found in admin.applications.list(z)] == [a]
    assert admin.applications.get(z, a)["registration_method"] == "managed"
    assert admin.applications.get_client_secret(z, a)["client_secret"] == made["client_secret"]
    rotated = admin.applications.rotate_secret(z, a)["client_secret"]
    assert rotated != made["client_secret"] and admin.applications.get_client_secret(z, a)["client_secret"] == rotated
    assert "client_secret" not in admin.applications.patch(z, a, {"client_secret": SECRET})
    refused(409, "application_name_taken", lambda: admin.applications.create(z, {"name": "AGENT", "registration_method": "managed"}))

    provider = admin.providers.create(z, {"name": "Key", "kind": "api_key", "config_json": {"header_name": "X-Key", "api_key": "k-1"}})
    p = provider["id"]
    assert admin.providers.patch(z, p, {"config_json": {"header_name": "X-Other"}})["secret_config_keys"] == ["api_key"]
    assert admin.providers.get(z, p)["config_json"]["header_name"] == "X-Other" and len(admin.providers.list(z)) == 1

    wanted = {"name": "R", "upstream_url": "https://r.example", "scopes": ["r"], "credential_provider_id": p}
    resource = admin.resources.create(z, wanted)
    r = resource["id"]
    assert resource["identifier"] == "resource://r" and resource["upstream_url"] == "https://r.example"
    assert admin.resources.patch(z, r, {"scopes": ["r", "w"]})["scopes"] == ["r", "w"]
    assert admin.resources.get(z, r)["id"] == r and len(admin.resources.list(z)) == 1

    assert admin.policies.validate(GRANTS)["valid"] is True
    refused(422, "invalid_rego", lambda: admin.policies.validate("package other"))
    policy = admin.policies.create(z, {"name": "books", "content": GRANTS})
    assert policy["version_id"] == policy["version"]["id"]
    second = admin.policies.add_version(z, policy["id"], GRANTS + "# more\n")
    versions = admin.policies.get(z, policy["id"])["versions"]
    assert [v["version"] for v in versions] == [2, 1]
    assert versions[0]["content_sha256"] == hashlib.sha256((GRANTS + "# more\n").encode()).hexdigest()
    assert len(admin.policies.list(z)) == 1
    refused(409, "policy_name_conflict", lambda: admin.policies.create(z, {"name": "books", "content": GRANTS}))

    policies = admin.policy_sets.create(z, "main", "who may")
    s = policies["id"]
    version = admin.policy_sets.add_version(z, s, [{"policy_version_id": second["version_id"]}])["version_id"]
    assert [v["id"] for v in admin.policy_sets.list_versions(z, s)] == [version]
    done = admin.policy_sets.activate(z, s, version)
    assert done["activated"] is True
    while True:
        status = admin.policy_sets.activation_status(z, s, version, done["outbox_id"])
        if status["propagation_status"] in ("loaded", "failed"):
            break
    assert status["propagation_status"] == "loaded" and status["outbox"]["state"] == "dispatched", status
    assert admin.policy_sets.get(z, s)["active_version_id"] == version and len(admin.policy_sets.list(z)) == 1

    records = admin.admin_audit.list(z, {"entity_type": "applications"})
    assert [(one["method"], one["status_code"]) for one in records] == [("POST", 409), ("PATCH", 200), ("POST", 200), ("POST", 201)]
    assert all(one["signed"] is True and isinstance(one["chain_seq"], int) for one in records)
    assert SECRET not in json.dumps(records) and "k-1" not in json.dumps(admin.admin_audit.list(z))

    admin.policy_sets.delete(z, s)
    admin.policies.delete(z, policy["id"])
    admin.resources.delete(z, r)
    admin.providers.delete(z, p)
    admin.applications.delete(z, a)
    for found in (admin.policy_sets, admin.policies, admin.resources, admin.providers, admin.applications):
        assert found.list(z) == []
    admin.zones.delete(z)
    refused(404, "zone_not_found", lambda: admin.zones.get(z))


def reconcilers(admin: AdminClient) -> None:
    """Twice the same: the second run writes only the secret and the configuration that are written every time."""
    z = admin.zones.create({"name": "Reconciled"})["id"]

    def run() -> None:
        application = ensure_application(admin, z, name="agent", traits=["team:a"], client_secret=SECRET)
        provider = ensure_api_key_provider(
            admin, z, name="Key", identifier="provider://key", public_config={"header_name": "X-Key"}, api_key="k-1"
        )
        ensure_resource(
            admin,
            z,
            name="Ledger",
            identifier="resource://ledger",
            scopes=["read", "pay"],
            upstream_url="https://ledger.example",
            credential_provider_id=provider,
        )
        application_id = application if isinstance(application, str) else application["id"]
        ensure_grants(
            admin, z, grants=[ResourceGrant(application_id=application_id, resource_identifier="resource://ledger", scopes=["read"])]
        )

    run()
    before = len(admin.admin_audit.list(z, {"limit": 500}))
    run()
    after = admin.admin_audit.list(z, {"limit": 500})
    again = sorted((one["method"], one["entity_type"]) for one in after[: len(after) - before])
    assert again == [("PATCH", "applications"), ("PATCH", "providers")], again
    # Without the key, what is sealed stays.
    assert ensure_api_key_provider(admin, z, name="Key", identifier="provider://key", public_config={"header_name": "X-Key"})
    assert admin.providers.list(z)[0]["secret_config_keys"] == ["api_key"]
