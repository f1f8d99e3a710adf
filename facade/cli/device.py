"""`facade device`: certificates for devices, and taking them back.

Guarantees: `issue` makes the private key here, mode 0600, and sends only a certificate request; nothing is
overwritten unless asked. `inspect` needs no server.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from facade.cli.client import segment
from facade.cli.config import ConfigFile
from facade.cli.output import details, document, done, line, note, pending, table
from facade.cli.session import AsJson, State, Yes, example, session_of
from facade.cli.usage import Usage, argument
from facade.device import parse_device_path
from facade.errors import Conflict

Name = Annotated[str, typer.Argument(metavar="FLEET/NAME", help="like dev/kiosk-7")]


def build() -> typer.Typer:
    """The noun's commands."""
    app = typer.Typer(
        help="Certificates of devices: issue, revoke, restore, inspect.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.command("issue", epilog=example("facade device issue dev/kiosk-7 --out kiosk-7"))(issue)
    app.command("list", epilog=example("facade device list --fleet dev"))(list_)
    app.command("revoke", epilog=example("facade device revoke dev/kiosk-7"))(revoke)
    app.command("restore", epilog=example("facade device restore dev/kiosk-7"))(restore)
    app.command("inspect", epilog=example("facade device inspect kiosk-7/client.cert"))(inspect)
    return app


def issue(
    ctx: typer.Context,
    device: Name,
    *,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="where to write; default: the device's name")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace files that are there")] = False,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Make a key here and have the development CA sign a certificate for it.

    Writes client.cert, client.key and ca.crt (the server's CA): the names that podman and Docker
    look for.
    """
    from facade.control.devices.development import DeviceKey, write_file

    session = session_of(ctx)
    fleet, name = argument(parse_device_path, device)
    folder = out or Path(name)
    if not force and (folder / "client.key").exists():
        raise Conflict(f"{folder / 'client.key'} is there already; --force replaces it.")
    key = DeviceKey.create()
    answer = session.api().post("/devices", {"fleet": fleet, "name": name, "csr": key.csr})
    write_file(folder / "client.key", key.key_pem, private=True)
    write_file(folder / "client.cert", answer["certificate"].encode())
    write_file(folder / "ca.crt", answer["ca"].encode())
    if session.as_json:
        document(session, answer)
        pending(session, answer)
        return
    done(session, answer, f"Wrote client.cert, client.key and ca.crt to {folder}.")
    note(session, f"facade: serial {answer['serial']}, valid until {answer['not_after']}.")


def list_(
    ctx: typer.Context,
    *,
    fleet: Annotated[str | None, typer.Option(metavar="F", help="only this fleet's")] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """List the devices that got a certificate here, or were revoked here."""
    session = session_of(ctx)
    answer = session.api().everything("/devices", {"fleet": fleet})
    if session.as_json:
        document(session, answer)
        return
    table(
        session,
        ("DEVICE", "SERIAL", "VALID UNTIL", "STATE"),
        (
            (
                f"{item['fleet']}/{item['name']}",
                item.get("serial"),
                item.get("not_after"),
                _state(item),
            )
            for item in answer["items"]
        ),
        empty="No devices. Issue a certificate: facade device issue FLEET/NAME",
    )


def revoke(
    ctx: typer.Context,
    device: Name,
    *,
    serial: Annotated[
        str | None, typer.Option(metavar="S", help="only the certificate with this serial (hex)")
    ] = None,
    state: State = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Refuse a device from now on: every certificate issued to it so far, or one."""
    session = session_of(ctx)
    path = _path(device)
    session.confirm(f"Revoke {device}? Its running transfers are cut.")
    answer = session.api().post(f"{path}/revoke", {"serial": serial} if serial else {})
    what = f"certificate {answer['serial']} of {device}" if serial else device
    done(session, answer, f"Revoked {what}.")


def restore(
    ctx: typer.Context, device: Name, *, state: State = None, as_json: AsJson = False
) -> None:
    """Admit a revoked device again, with certificates issued from now on."""
    session = session_of(ctx)
    answer = session.api().post(f"{_path(device)}/restore")
    done(session, answer, f"Restored {device}. It needs a new certificate: facade device issue")


def inspect(
    ctx: typer.Context,
    certificate: Annotated[Path, typer.Argument(metavar="CERT", help="PEM or DER")],
    *,
    ca: Annotated[
        Path | None,
        typer.Option("--ca", metavar="FILE", help="device CA (default: configured, or --state's)"),
    ] = None,
    crl: Annotated[
        Path | None, typer.Option("--crl", metavar="FILE", help="with --ca: its revocation lists")
    ] = None,
    trust_domain: Annotated[
        str | None, typer.Option(metavar="D", help="trust domain of SPIFFE IDs (configured)")
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option(metavar="RULE", help="spiffe, subject, or subject:O,CN (configured)"),
    ] = None,
    config: ConfigFile = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Explain a certificate without a server: who it is, and whether it would be let in.

    Goes by the configuration: its device CAs, the fleets that each may name, their CRLs, and where
    the device's name stands. Whether the device was revoked, only the server knows.
    """
    from facade.cli.inspection import inspect_certificate
    from facade.clock import SystemClock
    from facade.config.sources import load
    from facade.serving.identity.certificate import identity_rule
    from facade.serving.identity.tls import DeviceCAFile

    session = session_of(ctx)
    settings = load(config, session.environ).device
    files = [
        DeviceCAFile(each.file, each.fleets, each.crl, each.refuse_stale_crl)
        for each in settings.ca
    ]
    if ca is not None or not files:
        files = [DeviceCAFile(ca or session.state_dir / "device-ca.pem", crl=crl)]
    elif crl is not None:
        raise Usage("--crl goes with --ca; the configured CAs have their own.")
    rule = argument(
        lambda setting: identity_rule(setting, trust_domain or settings.trust_domain),
        identity or settings.identity,
    )
    report = inspect_certificate(certificate, files, rule, now=SystemClock().time())
    body = dataclasses.asdict(report)
    if session.as_json:
        document(session, body)
    else:
        details(session, {name: value for name, value in body.items() if name != "ok"})
        line(session, "it would be let in" if report.ok else "it would be REFUSED")
    if not report.ok:
        raise typer.Exit(1)


def _path(device: str) -> str:
    fleet, name = argument(parse_device_path, device)
    return f"/devices/{segment(fleet)}/{segment(name)}"


def _state(item: dict[str, Any]) -> str:
    if item["revoked"]:
        return f"revoked {item.get('revoked_at', '')}".rstrip()
    if item["revoked_serials"]:
        return f"revoked serials {', '.join(item['revoked_serials'])}"
    return "admitted"
