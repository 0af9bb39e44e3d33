//! A stand-in for registries that misbehave: HTTP/1.1 as a test scripts it.
//!
//! It is strict about what it is asked: a request that is not one closes the
//! connection, as a TLS handshake does that looks for https first.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use aegis_image::access::{Access, Endpoint};
use aegis_image::auth::Credentials;
use aegis_image::name::ImageName;
use aegis_image::source::Source;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(own, _)| own.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// What is answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// How many bytes of the body really go out.
    pub(crate) cut: Option<usize>,
    /// The body is repeated without end, and no length is announced.
    pub(crate) endless: bool,
}

impl Reply {
    pub(crate) fn of(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: body.into(),
            ..Self::of(200)
        }
    }

    pub(crate) fn with(mut self, header: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((header, value.into()));
        self
    }

    pub(crate) fn cut_at(mut self, length: usize) -> Self {
        self.cut = Some(length);
        self
    }

    fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Word\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if self.endless {
            write!(stream, "{head}\r\n")?;
            loop {
                stream.write_all(&self.body)?;
            }
        }
        write!(stream, "{head}Content-Length: {}\r\n\r\n", self.body.len())?;
        stream.write_all(&self.body[..self.cut.unwrap_or(self.body.len())])
    }
}

/// A server on loopback.
#[derive(Debug)]
pub(crate) struct StandIn {
    pub(crate) host: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl StandIn {
    /// Starts one. The script is told the request and how many of the same target came
    /// before it.
    pub(crate) fn start(script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::<Request>::new()));
        let (seen, script) = (Arc::clone(&requests), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let Some(request) = read(&stream) else {
                        return;
                    };
                    let before = {
                        let mut seen = seen.lock().unwrap();
                        let same = seen.iter().filter(|old| old.target == request.target);
                        let before = same.count();
                        seen.push(request.clone());
                        before
                    };
                    // A client that has had enough hangs up.
                    script(&request, before).send(&mut stream).ok();
                });
            }
        });
        Self { host, requests }
    }

    /// What was asked, in order.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// How often a path was asked for.
    pub(crate) fn count(&self, path: &str) -> usize {
        let requests = self.requests();
        requests
            .iter()
            .filter(|request| request.path() == path)
            .count()
    }

    pub(crate) fn endpoint(&self, repository: &str) -> Endpoint {
        Endpoint {
            host: self.host.clone(),
            repository: repository.to_owned(),
            serves: aegis_image::registries::Serves::All,
            insecure: true,
            credentials: None,
            certificates: Vec::new(),
        }
    }

    pub(crate) fn access(&self, credentials: Option<Credentials>) -> Access {
        let endpoint = Endpoint {
            credentials,
            ..self.endpoint("app")
        };
        Access {
            endpoints: vec![endpoint],
            ..Access::default()
        }
    }

    /// `app:1` in this registry.
    pub(crate) async fn source(&self) -> Source {
        self.source_as(None).await
    }

    pub(crate) async fn source_as(&self, credentials: Option<Credentials>) -> Source {
        let name: ImageName = format!("{}/app:1", self.host).parse().unwrap();
        Source::open(&name, &self.access(credentials))
            .await
            .unwrap()
    }
}

/// `None` for what is not a request.
fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    reader
        .by_ref()
        .take(8192)
        .read_until(b'\n', &mut line)
        .ok()?;
    let line = String::from_utf8(line).ok()?;
    let mut words = line.strip_suffix("\r\n")?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if version != "HTTP/1.1" || words.next().is_some() {
        return None;
    }
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.strip_suffix("\r\n")?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ")?;
        headers.push((name.to_owned(), value.to_owned()));
    }
    let mut request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers,
        body: String::new(),
    };
    request.header("host")?;
    if let Some(length) = request.header("content-length") {
        let mut body = vec![0; length.parse().ok()?];
        reader.read_exact(&mut body).ok()?;
        request.body = String::from_utf8(body).ok()?;
    }
    Some(request)
}
