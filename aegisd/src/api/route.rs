//! Which request is meant. Pure.
//!
//! The routes are those of the original AegisVM that concern one instance; a name
//! stands where an id stood.

use std::collections::BTreeMap;

use hyper::Method;

/// A request to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Show,
    Start,
    Pause,
    Resume,
    Exec,
    Logs,
    Tree,
    ReadFile,
    WriteFile,
    ReadConfig,
    WriteConfig,
    Blob,
    Send,
    Stream,
    Poll,
    Watermark,
    SetWatermark,
}

/// Where a request leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// aegisd itself.
    Status,
    /// All instances, of which there is one.
    List,
    Instance {
        name: String,
        route: Route,
    },
}

/// Why a request leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Astray {
    /// There is no such path.
    Path,
    /// There is, for these methods.
    Method(&'static str),
    /// The path or the query is not written right.
    Encoding,
}

/// The target of a method and a path.
///
/// # Errors
/// See [`Astray`].
pub fn target(method: &Method, path: &str) -> Result<Target, Astray> {
    let parts: Vec<String> = path
        .split('/')
        .skip(1)
        .map(|part| decode(part, false))
        .collect::<Option<_>>()
        .ok_or(Astray::Encoding)?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let allow = |allowed: Method, target: Target| match *method == allowed {
        true => Ok(target),
        false if allowed == Method::GET => Err(Astray::Method("GET")),
        false => Err(Astray::Method("POST")),
    };
    let (name, rest) = match &parts[..] {
        ["v1", "status"] => return allow(Method::GET, Target::Status),
        ["v1", "instances"] => return allow(Method::GET, Target::List),
        ["v1", "instances", name, rest @ ..] if !name.is_empty() => (*name, rest),
        _ => return Err(Astray::Path),
    };
    let to = |route| Target::Instance {
        name: name.to_owned(),
        route,
    };
    let either = |read, write| match *method {
        Method::GET => Ok(to(read)),
        Method::POST => Ok(to(write)),
        _ => Err(Astray::Method("GET, POST")),
    };
    match rest {
        [] => allow(Method::GET, to(Route::Show)),
        ["start"] => allow(Method::POST, to(Route::Start)),
        ["pause"] => allow(Method::POST, to(Route::Pause)),
        ["resume"] => allow(Method::POST, to(Route::Resume)),
        ["exec"] => allow(Method::POST, to(Route::Exec)),
        ["logs"] => allow(Method::GET, to(Route::Logs)),
        ["workspace", "tree"] => allow(Method::GET, to(Route::Tree)),
        ["workspace"] => either(Route::ReadFile, Route::WriteFile),
        ["blob"] => allow(Method::POST, to(Route::Blob)),
        ["tether"] => allow(Method::POST, to(Route::Send)),
        ["tether", "stream"] => allow(Method::GET, to(Route::Stream)),
        ["tether", "poll"] => allow(Method::GET, to(Route::Poll)),
        ["tether", "watermark"] => either(Route::Watermark, Route::SetWatermark),
        ["kit-config"] => either(Route::ReadConfig, Route::WriteConfig),
        _ => Err(Astray::Path),
    }
}

/// The values of a query, the last one of each name.
///
/// # Errors
/// [`Astray::Encoding`].
pub fn query(text: Option<&str>) -> Result<BTreeMap<String, String>, Astray> {
    let pairs = text.unwrap_or_default().split('&');
    let decoded = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode(name, true)?, decode(value, true)?))
    };
    pairs
        .filter(|pair| !pair.is_empty())
        .map(decoded)
        .collect::<Option<_>>()
        .ok_or(Astray::Encoding)
}

/// Percent-decoding (RFC 3986, 2.1); in queries a plus is a space, as forms write it.
fn decode(text: &str, plus: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                bytes.push(u8::try_from(high * 16 + low).ok()?);
            }
            b'+' if plus => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(name: &str, route: Route) -> Result<Target, Astray> {
        Ok(Target::Instance {
            name: name.to_owned(),
            route,
        })
    }

    #[test]
    fn every_route_has_its_method() {
        let get = |path| target(&Method::GET, path);
        let post = |path| target(&Method::POST, path);
        assert_eq!(get("/v1/status"), Ok(Target::Status));
        assert_eq!(get("/v1/instances"), Ok(Target::List));
        assert_eq!(get("/v1/instances/web"), to("web", Route::Show));
        assert_eq!(post("/v1/instances/web/exec"), to("web", Route::Exec));
        assert_eq!(
            get("/v1/instances/web/workspace/tree"),
            to("web", Route::Tree)
        );
        assert_eq!(
            post("/v1/instances/web/workspace"),
            to("web", Route::WriteFile)
        );
        assert_eq!(
            get("/v1/instances/web/kit-config"),
            to("web", Route::ReadConfig)
        );
        assert_eq!(
            get("/v1/instances/web/tether/stream"),
            to("web", Route::Stream)
        );
        assert_eq!(get("/v1/instances/web/exec"), Err(Astray::Method("POST")));
        assert_eq!(post("/v1/instances/web"), Err(Astray::Method("GET")));
        let deleted = target(&Method::DELETE, "/v1/instances/web/workspace");
        assert_eq!(deleted, Err(Astray::Method("GET, POST")));
        for path in [
            "/",
            "/v1",
            "/v1/instances/",
            "/v1/instances/web/tether/read",
            "/v1/secrets/A",
        ] {
            assert_eq!(get(path), Err(Astray::Path), "{path}");
        }
    }

    #[test]
    fn names_and_queries_are_decoded() {
        let decoded = target(&Method::GET, "/v1/instances/a%2Db");
        assert_eq!(decoded, to("a-b", Route::Show));
        assert_eq!(
            target(&Method::GET, "/v1/instances/%zz"),
            Err(Astray::Encoding)
        );
        let query = |text| query(Some(text));
        let values = query("path=a%20b%2Fc&tail=5&flag&path=x+y").unwrap();
        assert_eq!(values["path"], "x y");
        assert_eq!(
            (values["tail"].as_str(), values["flag"].as_str()),
            ("5", "")
        );
        assert_eq!(query("a=%f"), Err(Astray::Encoding));
        assert_eq!(query("a=%ff"), Err(Astray::Encoding));
    }
}
