"""The images of tests are what they claim."""

from facade.oci.digest import Digest
from facade.oci.manifest import ImageManifest, Index, parse_manifest
from tests.support.manifests import PlainImage


def test_an_image_is_an_index_of_two_manifests_with_their_own_layers() -> None:
    image = PlainImage("app:v1")
    index = parse_manifest(image.index)
    assert isinstance(index, Index)
    assert [str(child.platform) for child in index.manifests] == list(image.platforms)
    for platform, child in zip(image.platforms, index.manifests, strict=True):
        data = image.manifests[platform]
        assert (child.digest, child.size) == (Digest.of(data), len(data))
        manifest = parse_manifest(data, child.media_type)
        assert isinstance(manifest, ImageManifest)
        assert manifest.config.digest == Digest.of(image.config(platform))
        assert [each.digest for each in manifest.layers] == [
            Digest.of(layer) for layer in image.layers(platform)
        ]
    assert PlainImage("app:v2").index != image.index
