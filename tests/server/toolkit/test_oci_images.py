"""References of images in registries."""

from pvemcp_server.toolkit.oci_images import OciImage

CASES = {
    "nginx:1.27": ("docker.io", "nginx", "1.27"),
    "library/nginx": ("docker.io", "library/nginx", ""),
    "docker.io/library/nginx:latest": ("docker.io", "docker.io/library/nginx", "latest"),
    "ghcr.io/app/web:1.2": ("ghcr.io", "ghcr.io/app/web", "1.2"),
    "10.0.0.1:5000/web:1": ("10.0.0.1:5000", "10.0.0.1:5000/web", "1"),
    "localhost/web:1": ("localhost", "localhost/web", "1"),
    "registry/web:1": ("docker.io", "registry/web", "1"),
    "Registry/web:1": ("Registry", "Registry/web", "1"),
    "a_b/c__d/e-f.g:T_1": ("docker.io", "a_b/c__d/e-f.g", "T_1"),
}
REFUSED = (
    *(
        "",
        ":1",
        "/web:1",
        "web:",
        "web:-1",
        "Web:1",
        "a//b:1",
        "a/b/:1",
        "a:1/b/c:é",
        "web:1 ",
        "@/a:1",
    ),
    *("ghcr.io/app/web@sha256:00", "user@ghcr.io/web:1", "ghcr.io:/web:1", "-a.b/web:1", "a___b:1"),
    *("[::1]/web:1", "ghcr.io/../web:1", "web:1\n", f"web:{'a' * 129}"),
)


def test_a_reference_has_a_registry_a_repository_and_a_tag():
    for text, parts in CASES.items():
        image = OciImage.parse(text)
        assert image is not None, text
        assert (image.registry, image.repository, image.tag) == parts


def test_anything_else_is_no_reference():
    assert [text for text in REFUSED if OciImage.parse(text)] == []
