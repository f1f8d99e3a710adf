"""`facade device`, `trust`, `apikey`, records and configuration from the outside."""

import json
import stat
from pathlib import Path

import pytest

from facade.cli.doctor import room
from facade.reasons import Reason
from facade.wings import Pulled
from tests.support.operator_server import CommandLine
from tests.support.operator_services import Fakes
from tests.support.operator_system import FakeTrust, Role
from tests.support.pki import TRUST_DOMAIN, Authority, Leaf, subject


def test_issuing_makes_the_key_here_and_sends_a_request_only(
    facade: CommandLine, fakes: Fakes, tmp_path: Path
) -> None:
    out = tmp_path / "kiosk"
    ran = facade("device", "issue", "dev/kiosk-7", "--out", str(out))
    assert ran.code == 0
    assert sorted(path.name for path in out.iterdir()) == ["ca.crt", "client.cert", "client.key"]
    assert stat.S_IMODE((out / "client.key").stat().st_mode) == 0o600
    assert "PRIVATE KEY" in (out / "client.key").read_text()
    ((fleet, name, csr),) = fakes.devices.requests
    assert (fleet, name) == ("dev", "kiosk-7")
    assert "BEGIN CERTIFICATE REQUEST" in csr
    assert "PRIVATE" not in csr


def test_a_key_that_is_there_is_not_overwritten(facade: CommandLine, tmp_path: Path) -> None:
    argv = ("device", "issue", "dev/kiosk-7", "--out", str(tmp_path))
    assert facade(*argv).code == 0
    before = (tmp_path / "client.key").read_bytes()
    assert facade(*argv).code == 1
    assert (tmp_path / "client.key").read_bytes() == before
    assert facade(*argv, "--force").code == 0
    assert (tmp_path / "client.key").read_bytes() != before


def test_revoking_and_restoring(facade: CommandLine) -> None:
    assert facade("device", "revoke", "dev/k7").stdout == "Revoked dev/k7.\n"
    assert "revoked 1970" in facade("device", "list").stdout
    assert facade("device", "restore", "dev/k7").code == 0
    assert facade("device", "list").stdout.endswith("\tadmitted\n")
    serial = facade("device", "revoke", "dev/k7", "--serial", "0A:BC")
    assert serial.stdout == "Revoked certificate abc of dev/k7.\n"
    assert "abc" in facade("device", "list").stdout


def test_inspecting_explains_a_certificate_without_a_server(
    alone: CommandLine, tmp_path: Path
) -> None:
    authority = Authority.root()
    ca = authority.write(tmp_path)

    def inspect(name: str, data: bytes) -> tuple[int, dict[str, object]]:
        path = tmp_path / name
        path.write_bytes(data)
        ran = alone(
            *("device", "inspect", str(path), "--ca", str(ca)),
            *("--trust-domain", TRUST_DOMAIN, "--json"),
        )
        return ran.code, json.loads(ran.stdout)

    leaf = authority.device("dev", "kiosk-7")
    for data in (leaf.pem, leaf.der):
        code, good = inspect("good", data)
        assert code == 0
        assert good["device"] == "dev/kiosk-7"
        assert good["serial"] == leaf.serial
    for name, other, says in (
        ("expired", authority.expired_device(), "expired"),
        ("foreign", Authority.root("Other CA").device(), "issuer"),
        ("nobody", authority.device(uris=()), "SPIFFE"),
        ("two", authority.device(uris=("spiffe://a/b", "spiffe://c/d")), "several"),
        ("server", authority.server(), "client"),
        ("domain", authority.device(trust_domain="other.example"), "trust domain"),
    ):
        code, bad = inspect(name, other.pem)
        assert code == 1, name
        assert bad["ok"] is False
        assert says in str(bad["verdict"]), (name, bad["verdict"])


def test_inspecting_goes_by_the_configuration(alone: CommandLine, tmp_path: Path) -> None:
    """Several CAs, fleets that each may name, CRLs, names from the subject."""
    one, other = Authority.root("One"), Authority.root("Other")
    one.write(tmp_path, "one.pem")
    other.write(tmp_path, "other.pem")
    of = {"O": "prod", "serialNumber": "a-1"}
    good = other.device(uris=(), subject=subject(**of))
    gone = other.device(uris=(), subject=subject(**of))
    (tmp_path / "other.crl").write_bytes(other.crl(gone))
    config = tmp_path / "facade.toml"
    config.write_text(
        '[device]\nidentity = "subject:O,serialNumber"\n'
        f'[[device.ca]]\nfile = "{tmp_path}/one.pem"\nfleets = ["dev"]\n'
        f'[[device.ca]]\nfile = "{tmp_path}/other.pem"\ncrl = "{tmp_path}/other.crl"\n'
    )

    def inspect(leaf: Leaf, *options: str) -> tuple[int, str]:
        path = tmp_path / "leaf"
        path.write_bytes(leaf.pem)
        ran = alone("device", "inspect", str(path), "--config", str(config), "--json", *options)
        body = json.loads(ran.stdout)
        return ran.code, body.get("device") or body.get("verdict") or body["error"]

    assert inspect(good) == (0, "prod/a-1")
    assert "revoked" in inspect(gone)[1]
    assert "may not name" in inspect(one.device(uris=(), subject=subject(**of)))[1]
    assert "SPIFFE" in inspect(good, "--identity", "spiffe")[1]
    ca = ("--ca", str(tmp_path / "other.pem"))
    assert inspect(gone, *ca) == (0, "prod/a-1")
    assert "revoked" in inspect(gone, *ca, "--crl", str(tmp_path / "other.crl"))[1]
    assert inspect(good, "--crl", str(tmp_path / "other.crl"))[0] == 2
    assert inspect(good, "--identity", "subject:ST,CN")[0] == 2


def test_inspecting_what_is_no_certificate(alone: CommandLine, tmp_path: Path) -> None:
    ca = Authority.root().write(tmp_path)
    assert alone("device", "inspect", str(ca), "--ca", str(tmp_path / "none")).code == 2
    path = tmp_path / "text"
    path.write_text("hello")
    assert alone("device", "inspect", str(path), "--ca", str(ca)).code == 2


def test_trust_that_has_expired_exits_1(facade: CommandLine, fakes: Fakes) -> None:
    assert facade("trust", "status").code == 0
    fakes.trust = FakeTrust([Role("timestamp", 1.0)])
    ran = facade("trust", "status")
    assert ran.code == 1
    assert "timestamp has expired" in ran.stderr


def test_the_ceremony_works_without_a_server(alone: CommandLine, tmp_path: Path) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse\n")
    folders = (
        *("--repository", str(tmp_path / "repo"), "--online-keys", str(tmp_path / "online")),
        *("--offline-keys", str(tmp_path / "usb"), "--passphrase-file", str(passphrase)),
    )
    root = tmp_path / "root.json"
    made = alone("trust", "init", "--fleet", "dev", *folders, "--root-out", str(root), "--json")
    assert made.code == 0
    assert json.loads(root.read_bytes())["signed"]["_type"] == "root"
    assert "correct horse" not in made.stdout + made.stderr
    again = alone("trust", "init", "--fleet", "dev", *folders, "--root-out", str(root))
    assert again.code == 1
    added = alone("trust", "delegate", "kiosks", "dev", *folders, "--json")
    body = json.loads(added.stdout)
    assert (body["delegated"], body["unchanged"]) == (["kiosks"], ["dev"])
    assert (body["published"], body["missing"]) == (True, [])
    status = alone(
        *("trust", "status", "--repository", str(tmp_path / "repo")),
        *("--online-keys", str(tmp_path / "online"), "--json"),
    )
    assert status.code == 0
    roles = [role["role"] for role in json.loads(status.stdout)["roles"]]
    assert roles == ["root", "targets", "snapshot", "timestamp", "dev", "kiosks"]


def test_a_wrong_passphrase_says_so(alone: CommandLine, tmp_path: Path) -> None:
    folders = (
        *("--repository", str(tmp_path / "repo"), "--online-keys", str(tmp_path / "online")),
        *("--offline-keys", str(tmp_path / "usb"), "--passphrase-file", str(tmp_path / "p")),
    )
    (tmp_path / "p").write_text("right")
    alone("trust", "init", *folders, "--root-out", str(tmp_path / "root.json"))
    (tmp_path / "p").write_text("wrong")
    ran = alone("trust", "delegate", "kiosks", *folders)
    assert ran.code == 1
    assert "passphrase" in ran.stderr
    (tmp_path / "p").write_text("")
    assert alone("trust", "delegate", "kiosks", *folders).code == 2


def test_a_key_is_printed_once_and_alone_on_stdout(facade: CommandLine) -> None:
    made = facade("apikey", "create", "ci", "--permission", "cache.read", "--fleet", "dev")
    assert made.stdout == "value-of-ci\n"
    listed = facade("apikey", "list")
    assert "value-of-ci" not in listed.stdout
    assert "id-ci\tci\tcache.read\tdev\t" in listed.stdout
    assert facade("apikey", "revoke", "id-ci").code == 0
    assert "id-ci" not in facade("apikey", "list").stdout
    assert facade("apikey", "create", "ci", "--permission", "everything").code == 1


def test_audit_and_pulls(facade: CommandLine, fakes: Fakes) -> None:
    facade("fleet", "add", "kiosks")
    (line,) = facade("audit", "--limit", "1").stdout.splitlines()
    assert line.split("\t")[1:] == ["key-for-everything", "fleet.add", "kiosks", "ok"]
    fakes.fleets.offline = True
    facade("fleet", "add", "more")
    assert "failed: The targets key is away." in facade("audit", "--limit", "1").stdout
    fakes.pulls.rows += [
        Pulled(at, "dev/k7", "ghcr.io", "org/app", "sha256:1", "blob", "refused", Reason.BY_TAG)
        for at in range(60)
    ]
    assert len(facade("pulls", "--fleet", "dev").stdout.splitlines()) == 50
    assert json.loads(facade("pulls", "--json").stdout)["total"] == 60
    assert len(json.loads(facade("pulls", "--json", "--limit", "2").stdout)["items"]) == 2
    fakes.pulls.rows += fakes.pulls.rows * 6  # more than two pages of 200
    numbers = [item["id"] for item in json.loads(facade("pulls", "--json").stdout)["items"]]
    assert numbers == list(range(420, 0, -1))
    assert len(json.loads(facade("audit", "--json").stdout)["items"]) == len(fakes.audit.rows)
    assert "by-tag" in facade("pulls", "--device", "dev/k7", "--limit", "1").stdout


def test_configuration_is_shown_and_described(alone: CommandLine, tmp_path: Path) -> None:
    shown = alone("config", "show", "--json")
    assert json.loads(shown.stdout)["operator"]["listen"] == "127.0.0.1:8080"
    assert "device.listen = " in alone("config", "show").stdout
    assert "[operator]" in alone("config", "reference").stdout
    file = tmp_path / "facade.toml"
    file.write_text("[operator]\ncolour = 'red'\n")
    ran = alone("config", "show", "--config", str(file))
    assert ran.code == 1
    assert "operator.colour" in ran.stderr


@pytest.mark.parametrize("broken", [False, True])
def test_doctor_says_what_is_wrong_and_goes_on(
    facade: CommandLine, fakes: Fakes, tmp_path: Path, *, broken: bool
) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    authority = Authority.root()
    (state / "server.pem").write_bytes(
        authority.expired_device().pem if broken else authority.server().pem
    )
    (state / "api-key").write_text("x")
    (state / "api-key").chmod(0o644 if broken else 0o600)
    if broken:
        fakes.trust = FakeTrust([Role("timestamp", 1.0)])
    ran = facade("doctor", "--json")
    checks = json.loads(ran.stdout)["checks"]
    failed = {check["check"] for check in checks if check["status"] == "failed"}
    assert ran.code == (1 if broken else 0)
    assert failed == ({"state folder", "certificates", "metadata"} if broken else set())
    assert {"configuration", "operator API", "disk", "database", "cache", "connections"} <= {
        check["check"] for check in checks
    }


@pytest.mark.parametrize(
    ("free", "status"),
    [(0, "failed"), (31 * 1024**2, "failed"), (1023 * 1024**2, "warning"), (1024**3, "ok")],
)
def test_doctor_looks_at_the_room_on_the_disk(free: int, status: str, tmp_path: Path) -> None:
    found = room(free, tmp_path)
    assert (found.check, found.status) == ("disk", status)
    assert str(tmp_path) in found.message


def test_doctor_without_a_server_looks_at_the_ports(alone: CommandLine) -> None:
    ran = alone("doctor")
    assert ran.code == 1
    assert "operator API" in ran.stdout
    assert "ports: the device port" in ran.stdout


def test_doctor_looks_for_the_configured_redis(alone: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "facade.toml"
    file.write_text("[redis]\nurl = 'redis://:canary-77@127.0.0.1:1'\n")
    ran = alone("doctor", "--config", str(file))
    assert "warning  redis: redis://:***@127.0.0.1:1 cannot be used" in ran.stdout
    assert "canary-77" not in ran.stdout + ran.stderr
    assert "redis:" not in alone("doctor").stdout
