//! Debian's docker-registry on loopback, and images made with umoci and skopeo.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::made::digest;

/// Runs a tool, which must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{program}: {error}; packaging/build-deps installs what tests need")
    });
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {words}");
}

/// skopeo without a policy of signatures.
pub(crate) fn skopeo(arguments: &[&str]) {
    let mut all = vec!["--insecure-policy", "copy", "--quiet"];
    all.extend(arguments);
    run("skopeo", &all);
}

/// What the registry demands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Demands {
    /// The user `me` with the password `hunter2`.
    pub(crate) password: bool,
    /// A certificate from an authority of its own.
    pub(crate) tls: bool,
}

/// A registry that runs.
#[derive(Debug)]
pub(crate) struct RealRegistry {
    pub(crate) host: String,
    folder: TempDir,
    process: Child,
}

impl RealRegistry {
    pub(crate) fn start(demands: Demands) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name).display().to_string();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        drop(listener);
        let mut config = json!({
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": file("storage")}},
            "http": {"addr": host},
        });
        if demands.password {
            run("htpasswd", &["-Bbc", &file("htpasswd"), "me", "hunter2"]);
            config["auth"] = json!({"htpasswd": {"realm": "test", "path": file("htpasswd")}});
        }
        if demands.tls {
            certificates(folder.path());
            config["http"]["tls"] =
                json!({"certificate": file("server.crt"), "key": file("server.key")});
        }
        // JSON is YAML.
        fs::write(file("config.yml"), config.to_string()).unwrap();
        let process = Command::new("docker-registry")
            .args(["serve", &file("config.yml")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry; packaging/build-deps installs it");
        let begun = Instant::now();
        while TcpStream::connect(&host).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "no registry");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            host,
            folder,
            process,
        }
    }

    /// The certificate of its authority.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Puts an image of a layout into it.
    pub(crate) fn push(&self, from: &str, to: &str, options: &[&str]) {
        let to = format!("docker://{}/{to}", self.host);
        let mut all = vec!["--dest-tls-verify=false", "--dest-creds=me:hunter2"];
        all.extend(options);
        all.extend([from, &to]);
        skopeo(&all);
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// An authority and a certificate of it for loopback.
fn certificates(folder: &Path) {
    let file = |name: &str| folder.join(name).display().to_string();
    fs::write(
        file("ext"),
        "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n",
    )
    .unwrap();
    let key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let (authority, server) = (file("ca"), file("server"));
    let request = |own: &str, rest: &[&str]| {
        let out = [format!("{own}.key"), format!("{own}.csr")];
        let mut all = vec!["req", "-keyout", &out[0], "-subj", "/CN=aegis test"];
        all.extend(key);
        all.extend(rest);
        run("openssl", &all);
    };
    request(
        &authority,
        &["-x509", "-days", "2", "-out", &file("ca.crt")],
    );
    request(&server, &["-out", &file("server.csr")]);
    run(
        "openssl",
        &[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            &file("server.csr"),
            "-CA",
            &file("ca.crt"),
            "-CAkey",
            &file("ca.key"),
            "-CAcreateserial",
            "-extfile",
            &file("ext"),
            "-out",
            &file("server.crt"),
        ],
    );
}

/// A layout with images made by umoci.
#[derive(Debug)]
pub(crate) struct Layout {
    folder: TempDir,
}

impl Layout {
    pub(crate) fn new() -> Self {
        let layout = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        run("umoci", &["init", "--layout", &layout.path("layout")]);
        layout
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The layout, or one of its images.
    pub(crate) fn name(&self, tag: &str) -> String {
        format!("oci:{}:{tag}", self.path("layout"))
    }

    /// Adds an image with one file in one layer; returns the layer's tar.
    pub(crate) fn add(&self, tag: &str, architecture: &str) -> Vec<u8> {
        let image = format!("{}:{tag}", self.path("layout"));
        let tar = self.path("layer.tar");
        let mut builder = tar::Builder::new(fs::File::create(&tar).unwrap());
        let text = format!("{tag} for {architecture}\n").repeat(5000);
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, "etc/file", text.as_bytes())
            .unwrap();
        builder.into_inner().unwrap();
        run("umoci", &["new", "--image", &image]);
        run("umoci", &["raw", "add-layer", "--image", &image, &tar]);
        run(
            "umoci",
            &["config", "--image", &image, "--architecture", architecture],
        );
        fs::read(&tar).unwrap()
    }

    /// Makes one image of several, in an index of its own.
    pub(crate) fn join(&self, tag: &str, parts: &[(&str, &str)]) {
        let path = PathBuf::from(self.path("layout/index.json"));
        let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let all = index["manifests"].as_array_mut().unwrap();
        let name = "org.opencontainers.image.ref.name";
        let manifests: Vec<Value> = parts
            .iter()
            .map(|(tag, architecture)| {
                let found = all.iter().find(|entry| entry["annotations"][name] == **tag);
                let mut entry = found.unwrap().clone();
                entry["platform"] = json!({"os": "linux", "architecture": architecture});
                entry.as_object_mut().unwrap().remove("annotations");
                entry
            })
            .collect();
        let media_type = "application/vnd.oci.image.index.v1+json";
        let joined = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests})
            .to_string();
        let digest = digest(joined.as_bytes());
        fs::write(
            self.path(&format!("layout/blobs/sha256/{}", digest.digest())),
            &joined,
        )
        .unwrap();
        all.push(json!({
            "mediaType": media_type,
            "digest": digest,
            "size": joined.len(),
            "annotations": {name: tag},
        }));
        fs::write(path, index.to_string()).unwrap();
    }
}
