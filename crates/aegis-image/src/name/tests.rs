use super::*;

const HEX: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn parse(text: &str) -> Result<ImageName, NameError> {
    text.parse()
}

#[test]
fn names_become_whole_and_short_again() {
    let digest = format!("sha256:{HEX}");
    for (typed, whole, short) in [
        (
            "python:3.12-alpine",
            "docker.io/library/python:3.12-alpine",
            "python:3.12-alpine",
        ),
        ("python", "docker.io/library/python:latest", "python:latest"),
        (
            "docker.io/python",
            "docker.io/library/python:latest",
            "python:latest",
        ),
        ("index.docker.io/a/b", "docker.io/a/b:latest", "a/b:latest"),
        (
            "docker://alpine",
            "docker.io/library/alpine:latest",
            "alpine:latest",
        ),
        ("org/app", "docker.io/org/app:latest", "org/app:latest"),
        (
            "library/a/b",
            "docker.io/library/a/b:latest",
            "library/a/b:latest",
        ),
        (
            "localhost/app",
            "localhost/app:latest",
            "localhost/app:latest",
        ),
        (
            "localhost:5000/app",
            "localhost:5000/app:latest",
            "localhost:5000/app:latest",
        ),
        (
            "GHCR.io/org/app:1",
            "ghcr.io/org/app:1",
            "ghcr.io/org/app:1",
        ),
        ("[::1]:5000/app:1", "[::1]:5000/app:1", "[::1]:5000/app:1"),
        (
            "a__b-c--d/e.f",
            "docker.io/a__b-c--d/e.f:latest",
            "a__b-c--d/e.f:latest",
        ),
        ("docker:24", "docker.io/library/docker:24", "docker:24"),
        (
            "docker.io/a.b/c",
            "docker.io/a.b/c:latest",
            "docker.io/a.b/c:latest",
        ),
        ("oci", "docker.io/library/oci:latest", "library/oci:latest"),
        ("oci:/a/b", "oci:/a/b", "oci:/a/b"),
        ("oci:b:1.2", "oci:b:1.2", "oci:b:1.2"),
        (
            "oci-archive:a.tar:",
            "oci-archive:a.tar",
            "oci-archive:a.tar",
        ),
        (
            "docker-archive:a.tar:b:1",
            "docker-archive:a.tar:b:1",
            "docker-archive:a.tar:b:1",
        ),
        (
            &format!("app@{digest}"),
            &format!("docker.io/library/app@{digest}"),
            &format!("app@{digest}"),
        ),
        (
            &format!("h.x/a:1@{digest}"),
            &format!("h.x/a:1@{digest}"),
            &format!("h.x/a:1@{digest}"),
        ),
    ] {
        let name = parse(typed).unwrap();
        assert_eq!(name.to_string(), whole, "{typed}");
        assert_eq!(name.short(), short, "{typed}");
        assert_eq!(parse(whole).as_ref(), Ok(&name), "{typed}");
        assert_eq!(parse(short).as_ref(), Ok(&name), "{typed}");
        let json = serde_json::to_string(&name).unwrap();
        assert_eq!(serde_json::from_str::<ImageName>(&json).unwrap(), name);
    }
}

#[test]
fn what_names_no_image_says_why() {
    let long = format!("{}/a", "a".repeat(MAX_REPOSITORY));
    for (typed, why) in [
        ("", "empty"),
        ("Python", "upper case"),
        ("Docker/docker", "upper case"),
        ("a//b", "''"),
        ("a/", "''"),
        ("-a", "'-a'"),
        ("a___b", "'a___b'"),
        ("a..b", "'a..b'"),
        ("a b", "'a b'"),
        ("a/ä", "'ä'"),
        ("../etc", "not a registry"),
        ("h.x:/a", "not a registry"),
        ("h.x:99999/a", "not a registry"),
        ("h_x.y/a", "not a registry"),
        ("user@h.x/a", "not a digest"),
        ("https://h.x/a", "not a registry"),
        ("a:", "not a tag"),
        ("a:.b", "not a tag"),
        ("a@sha256:12", "not a digest"),
        ("a@md5:0123456789abcdef0123456789abcdef", "not a digest"),
        (HEX, "is a digest"),
        (&long, "longer than"),
        ("oci:", "no path"),
        ("docker-archive::x", "no path"),
    ] {
        let error = parse(typed).unwrap_err().to_string();
        assert!(error.contains(why), "{typed}: {error}");
    }
}

#[test]
fn paths_become_absolute() {
    let name = parse("oci:images:1")
        .unwrap()
        .absolute(Path::new("/home/a"));
    assert_eq!(name.to_string(), "oci:/home/a/images:1");
    let name = parse("alpine").unwrap().absolute(Path::new("/home/a"));
    assert_eq!(name.short(), "alpine:latest");
}
