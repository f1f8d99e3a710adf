"""Hypothesis strategies for the OCI vocabulary: valid values, and text that is nearly valid."""

from hypothesis import strategies as st

from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository

ODD = "aA0.:/@-_%?#[]\\ \t\n\x00\u017f\u3002\u00fc\u212a"
"""Characters that parsers of names trip over."""

labels = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
host_names = st.one_of(
    st.lists(labels, min_size=1, max_size=4).map(".".join),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.sampled_from(["docker.io", "hub.docker.com", "localhost", "registry"]),
)
ports = st.one_of(st.none(), st.integers(1, 65535), st.sampled_from([80, 443, 5000]))
host_texts = st.builds(
    lambda name, port: name if port is None else f"{name}:{port}", host_names, ports
)
hosts = host_texts.map(RegistryHost.parse)
components = st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|--?)[a-z0-9]{1,5}){0,2}", fullmatch=True)
repositories = st.lists(components, min_size=1, max_size=4).map("/".join).map(Repository.parse)
digests = st.builds(Digest.of, st.binary(max_size=8), st.sampled_from(["sha256", "sha512"]))
odd_text = st.one_of(st.text(max_size=60), st.text(alphabet=ODD, max_size=60))
