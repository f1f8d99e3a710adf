"""The options that say how to reach a registry and as whom, shared by `add` and `rotate`.

Guarantees: exactly one kind of credentials is chosen, or the command ends as a usage error before
anything is read; files named here are read here, and only their content is sent.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from facade.cli.session import Session, read_file
from facade.cli.usage import Usage

Username = Annotated[
    str | None, typer.Option(metavar="U", help="user name that goes with the password or token")
]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="read the password or token from standard input")
]
Anonymous = Annotated[bool, typer.Option("--anonymous", help="a public registry, no credentials")]
GoogleKeyFile = Annotated[
    Path | None, typer.Option(metavar="F", help="Google service account key (JSON)")
]
AwsRoleArn = Annotated[str | None, typer.Option(metavar="A", help="AWS role to assume (ECR)")]
AwsRegion = Annotated[str | None, typer.Option(metavar="R", help="AWS region of the registry")]
AwsExternalId = Annotated[
    str | None, typer.Option(metavar="X", help="external ID that the role demands")
]
AwsAccessKeyId = Annotated[
    str | None, typer.Option(metavar="K", help="base key; without it, the machine's own role")
]
AwsSecretStdin = Annotated[
    bool, typer.Option("--aws-secret-stdin", help="read the base key's secret from standard input")
]
Insecure = Annotated[bool, typer.Option("--insecure", help="plain http: nothing is encrypted")]
CaFile = Annotated[
    Path | None, typer.Option(metavar="F", help="PEM certificates to trust for this registry")
]
AuthHost = Annotated[
    list[str] | None,
    typer.Option(metavar="H", help="another host whose token service may get the credentials"),
]
Proxy = Annotated[str | None, typer.Option(metavar="URL", help="egress proxy for this registry")]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the options say about credentials."""

    username: str | None
    password_stdin: bool
    google_key_file: Path | None
    aws_role_arn: str | None
    aws_region: str | None
    aws_external_id: str | None
    aws_access_key_id: str | None
    aws_secret_stdin: bool
    anonymous: bool = False

    @classmethod
    def none(cls) -> "Credentials":
        """What no option at all says."""
        return cls(None, False, None, None, None, None, None, False)

    def body(self, session: Session, *, rotating: bool = False) -> dict[str, Any]:
        """The fields of the API's request.

        Arguments:
            rotating: the provider stays, so it is left out; a password alone is enough.

        Raises typer.BadParameter when the options do not go together, Usage for a bad file.
        """
        provider = self._provider(rotating=rotating)
        fields: dict[str, Any] = {} if rotating else {"provider": provider}
        if provider == "static":
            if self.username is not None:
                fields["username"] = self.username
            secret = session.read_secret(
                "Password or token", from_stdin=self.password_stdin, option="--password-stdin"
            )
            fields["secret"] = secret.reveal()
        elif provider == "google":
            assert self.google_key_file is not None
            fields["config"] = _google_config(self.google_key_file)
        elif provider == "aws":
            fields["config"] = self._aws_config(session)
        return fields

    def _provider(self, *, rotating: bool) -> str:
        chosen = {
            "static": self.username is not None or self.password_stdin,
            "anonymous": self.anonymous,
            "google": self.google_key_file is not None,
            "aws": self.aws_role_arn is not None,
        }
        names = [name for name, wanted in chosen.items() if wanted]
        if rotating and not names:
            names = ["static"]
        if len(names) != 1:
            raise typer.BadParameter(
                "choose one of --username, --google-key-file, --aws-role-arn"
                + ("" if rotating else ", --anonymous"),
                param_hint="credentials",
            )
        if names == ["static"] and self.username is None and not rotating:
            raise typer.BadParameter("it goes with --username", param_hint="--password-stdin")
        if names != ["aws"] and (
            self.aws_region or self.aws_access_key_id or self.aws_secret_stdin
        ):
            raise typer.BadParameter("they go with --aws-role-arn", param_hint="--aws-…")
        return names[0]

    def _aws_config(self, session: Session) -> dict[str, str]:
        if self.aws_region is None:
            raise typer.BadParameter("it is needed with --aws-role-arn", param_hint="--aws-region")
        config = {"role_arn": str(self.aws_role_arn), "region": self.aws_region}
        if self.aws_external_id:
            config["external_id"] = self.aws_external_id
        if self.aws_access_key_id:
            config["access_key_id"] = self.aws_access_key_id
            config["secret_access_key"] = session.read_secret(
                "AWS secret access key",
                from_stdin=self.aws_secret_stdin,
                option="--aws-secret-stdin",
            ).reveal()
        elif self.aws_secret_stdin:
            raise typer.BadParameter(
                "it goes with --aws-access-key-id", param_hint="--aws-secret-stdin"
            )
        return config


def settings_body(
    *, insecure: bool, ca_file: Path | None, auth_hosts: list[str] | None, proxy: str | None
) -> dict[str, Any]:
    """The API's `settings` object. Raises Usage when the CA file cannot be read."""
    settings: dict[str, Any] = {}
    if insecure:
        settings["insecure"] = True
    if ca_file is not None:
        settings["ca_pem"] = read_file(ca_file, "CA file")
    if auth_hosts:
        settings["auth_hosts"] = auth_hosts
    if proxy is not None:
        settings["proxy"] = proxy
    return settings


def _google_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(read_file(path, "Google key file"))
    except ValueError as error:
        # The parser's own text may quote the key.
        raise Usage(f"The Google key file {path} is no JSON.") from error
    if not isinstance(config, dict):
        raise Usage(f"The Google key file {path} is no JSON object.")
    return config
