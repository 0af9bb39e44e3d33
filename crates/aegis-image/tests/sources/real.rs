//! A registry as Debian ships it.

use std::fs;

use aegis_core::fault::Symbol;
use aegis_image::access::Access;
use aegis_image::auth::{self, LoggedOut};
use aegis_image::environment::Environment;
use aegis_image::error::SourceError;
use aegis_image::name::ImageName;
use aegis_image::source::{Found, Source};
use oci_spec::image::MediaType;

use crate::made::{amd64, digest, failure, fault, load_layer};
use crate::real_registry::{Demands, Layout, RealRegistry};

/// An environment with these variables and nothing else.
fn environment(etc: &std::path::Path, variables: &[(&str, String)]) -> Environment {
    let variables = variables.iter();
    let variables = variables.map(|(name, value)| ((*name).to_owned(), value.clone()));
    Environment::new(variables, etc)
}

async fn open(
    text: &str,
    environment: &Environment,
    insecure: &[String],
) -> Result<Source, SourceError> {
    let name: ImageName = text.parse()?;
    let access = Access::of_environment(&name, environment, insecure)?;
    Source::open(&name, &access).await
}

async fn find(
    text: &str,
    environment: &Environment,
    insecure: &[String],
) -> Result<Found, SourceError> {
    open(text, environment, insecure)
        .await?
        .find(&amd64())
        .await
}

#[tokio::test]
async fn images_of_all_kinds_are_pulled() {
    let registry = RealRegistry::start(Demands::default());
    let layout = Layout::new();
    layout.add("arm", "arm64");
    let tar = layout.add("intel", "amd64");
    layout.join("both", &[("arm", "arm64"), ("intel", "amd64")]);
    registry.push(&layout.name("both"), "org/app:both", &["--all"]);
    registry.push(&layout.name("intel"), "org/app:docker", &["--format=v2s2"]);
    let zstd = format!("oci:{}:z", layout.path("zstd"));
    crate::real_registry::skopeo(&["--dest-compress-format=zstd", &layout.name("intel"), &zstd]);
    registry.push(&zstd, "org/app:zstd", &[]);

    let insecure = [registry.host.clone()];
    let nothing = environment(std::path::Path::new("/nothing"), &[]);
    let name = |rest: &str| format!("{}/org/app{rest}", registry.host);
    for (tag, media_type) in [
        (":both", MediaType::ImageLayerGzip),
        (
            ":docker",
            "application/vnd.docker.image.rootfs.diff.tar.gzip".into(),
        ),
        (":zstd", MediaType::ImageLayerZstd),
    ] {
        let source = open(&name(tag), &nothing, &insecure).await.unwrap();
        let found = source.find(&amd64()).await.unwrap();
        assert_eq!(
            found.config.rootfs().diff_ids(),
            &[digest(&tar).to_string()]
        );
        assert_eq!(found.layers[0].media_type(), &media_type, "{tag}");
        let bytes = load_layer(&source, &found).await;
        assert_eq!(&digest(&bytes), found.layers[0].digest());
        assert_eq!(
            digest(&found.config_bytes),
            *found.manifest.config().digest()
        );

        let again = find(
            &name(&format!("@{}", found.name_digest)),
            &nothing,
            &insecure,
        )
        .await;
        assert_eq!(again.unwrap().manifest_digest, found.manifest_digest);
    }

    let source = open(&name(":both"), &nothing, &insecure).await.unwrap();
    let arm = source.find(&"linux/arm64".parse().unwrap()).await.unwrap();
    assert_eq!(arm.config.architecture().to_string(), "arm64");
    let message = failure(
        source.find(&"linux/riscv64".parse().unwrap()).await,
        Symbol::ImagePlatform,
    );
    assert!(message.contains("linux/arm64, linux/amd64"), "{message}");
    let missing = find(&name(":nothing"), &nothing, &insecure).await;
    failure(missing, Symbol::ImageNotFound);
    // Plain HTTP only where the user says so.
    let secure = find(&name(":both"), &nothing, &[]).await;
    failure(secure, Symbol::RegistryUnreachable);
}

#[tokio::test]
async fn logging_in_opens_a_registry_and_logging_out_closes_it() {
    let registry = RealRegistry::start(Demands {
        password: true,
        tls: false,
    });
    let layout = Layout::new();
    layout.add("a", "amd64");
    registry.push(&layout.name("a"), "app:1", &[]);
    let folder = tempfile::tempdir().unwrap();
    let runtime = folder.path().display().to_string();
    let environment = environment(folder.path(), &[("XDG_RUNTIME_DIR", runtime)]);
    let insecure = [registry.host.clone()];
    let name = format!("{}/app:1", registry.host);

    let refused = fault(find(&name, &environment, &insecure).await);
    assert_eq!(refused.symbol, Symbol::ImageUnauthorized);
    assert_eq!(
        refused.hint,
        Some(format!("aegisctl login {}", registry.host))
    );

    let login = |password: &str| {
        let password = password.to_owned().into();
        auth::login(&registry.host, "me", password, &environment, &insecure)
    };
    let message = failure(login("wrong-word").await, Symbol::ImageUnauthorized);
    assert!(!message.contains("wrong-word"), "{message}");
    let written = folder.path().join("containers/auth.json");
    assert!(!written.exists());
    assert_eq!(login("hunter2").await.unwrap(), written);
    assert!(!fs::read_to_string(&written).unwrap().contains("hunter2"));
    find(&name, &environment, &insecure).await.unwrap();

    let logged_out = auth::logout(&registry.host, &environment).unwrap();
    assert_eq!(logged_out, LoggedOut::Removed);
    failure(
        find(&name, &environment, &insecure).await,
        Symbol::ImageUnauthorized,
    );
}

#[tokio::test]
async fn an_authority_of_its_own_is_trusted_where_it_is_put() {
    let registry = RealRegistry::start(Demands {
        password: false,
        tls: true,
    });
    let layout = Layout::new();
    layout.add("a", "amd64");
    registry.push(&layout.name("a"), "app:1", &[]);
    let folder = tempfile::tempdir().unwrap();
    let name = format!("{}/app:1", registry.host);
    let plain = environment(folder.path(), &[]);

    let refused = fault(find(&name, &plain, &[]).await);
    assert_eq!(refused.symbol, Symbol::RegistryUnreachable);
    let hint = refused.hint.unwrap();
    assert!(hint.contains("certs.d"), "{hint}");

    let authority = registry.authority().display().to_string();
    let variable = environment(folder.path(), &[("SSL_CERT_FILE", authority)]);
    find(&name, &variable, &[]).await.unwrap();

    for kind in ["docker", "containers"] {
        let etc = folder.path().join(kind);
        let own = etc.join(kind).join("certs.d").join(&registry.host);
        fs::create_dir_all(&own).unwrap();
        fs::copy(registry.authority(), own.join("ca.crt")).unwrap();
        find(&name, &environment(&etc, &[]), &[]).await.unwrap();
    }
    find(&name, &plain, std::slice::from_ref(&registry.host))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_mirror_of_registries_conf_is_used() {
    let registry = RealRegistry::start(Demands::default());
    let layout = Layout::new();
    layout.add("a", "amd64");
    registry.push(&layout.name("a"), "hub/library/alpine:3", &[]);
    let folder = tempfile::tempdir().unwrap();
    let conf = format!(
        "[[registry]]\nlocation = 'docker.io'\n[[registry.mirror]]\nlocation = '{}/hub'\ninsecure = true\n",
        registry.host
    );
    fs::create_dir(folder.path().join("containers")).unwrap();
    fs::write(folder.path().join("containers/registries.conf"), conf).unwrap();
    find("alpine:3", &environment(folder.path(), &[]), &[])
        .await
        .unwrap();
}
