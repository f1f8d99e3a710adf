"""The settings of `facade up`: what the configuration leaves open lies in the state folder. Pure."""

from facade.config import Settings
from facade.config.settings import DeviceCa
from facade.control.devices.development import DevelopmentPki
from facade.up.state import StateFolder


def settle(settings: Settings, state: StateFolder, pki: DevelopmentPki) -> Settings:
    """`settings` with every open path filled in; what was configured stays."""
    device, trust = settings.device, settings.trust
    own_certificate = {
        "server_cert": pki.server_certificate,
        "server_key": pki.server_key,
    }
    return settings.model_copy(
        update={
            "device": device.model_copy(
                update={
                    **({} if device.server_cert else own_certificate),
                    "ca": device.ca or (DeviceCa(file=pki.device_ca),),
                }
            ),
            "trust": trust.model_copy(
                update={
                    "root": trust.root or state.pinned_root,
                    "source": trust.source or str(state.repository / "metadata"),
                    "metadata_dir": trust.metadata_dir or state.verified,
                    "repository": trust.repository or state.repository,
                    "online_keys": trust.online_keys or state.online_keys,
                }
            ),
            "database": settings.database.model_copy(
                update={"url": settings.database.url or f"sqlite+aiosqlite:///{state.database}"}
            ),
            "store": settings.store.model_copy(
                update={"url": settings.store.url or f"file://{state.cache}"}
            ),
            "sealing": settings.sealing.model_copy(
                update={"key_file": settings.sealing.key_file or state.sealing_key}
            ),
        }
    )
