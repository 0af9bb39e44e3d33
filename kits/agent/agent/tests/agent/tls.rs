//! Servers that are reached over TLS.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::rig::{Rig, stand_in};

/// A server in front of another, with a certificate for `localhost` of an authority of its
/// own. Ends with the value.
struct Tls {
    child: Child,
    port: String,
}

impl Tls {
    fn start(folder: &Path, to: &str) -> Self {
        let script = "
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
                -subj '/CN=Authority of a test' -keyout ca.key -out ca.pem &&
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
                -subj /CN=localhost -keyout server.key -out server.csr &&
            printf 'subjectAltName=DNS:localhost' >names &&
            openssl x509 -req -days 2 -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial \
                -extfile names -out server.pem";
        let mut make = Command::new("sh");
        make.args(["-c", script]).current_dir(folder);
        let made = make.output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let mut child = Command::new("python3")
            .arg(stand_in("tls"))
            .args([
                "--certificate",
                "server.pem",
                "--key",
                "server.key",
                "--to",
                to,
            ])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut port).unwrap();
        let port = port.trim().to_owned();
        Self { child, port }
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_provider_and_a_page_are_reached_over_tls_where_the_certificate_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::idle("{}", &[]);
    let tls = Tls::start(folder.path(), rig.llm_address());
    let authority = folder.path().join("ca.pem");
    rig.variables("SSL_CERT_FILE", authority.to_str().unwrap());
    let base = format!("https://localhost:{}", tls.port);
    rig.variables("OPENAI_BASE_URL", &format!("{base}/v1"));
    rig.run();
    assert_eq!(rig.ask("m1", "say:over tls"), "over tls");
    let page = json!({"url": format!("{base}/admin/violations")});
    let text = rig.ask("m2", &format!("tool:web_fetch {page}"));
    assert!(text.contains("[]"), "{text}");
}

#[test]
fn a_provider_with_a_certificate_that_nobody_trusts_is_not_asked() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::idle(r#"{"max_retries": 1}"#, &[]);
    let tls = Tls::start(folder.path(), rig.llm_address());
    rig.variables(
        "OPENAI_BASE_URL",
        &format!("https://localhost:{}/v1", tls.port),
    );
    rig.run();
    let text = rig.ask("m1", "say:over tls");
    assert!(text.to_lowercase().contains("certificate"), "{text}");
    assert!(!text.contains("sk-test-openai"), "{text}");
}
