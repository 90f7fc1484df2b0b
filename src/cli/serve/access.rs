//! Who may ask: the Host header, against pages that rebind their name to this machine, and the key.

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{StatusCode, header},
};

use super::http_error::HttpError;

/// Who may ask a server.
pub(super) struct Access {
    /// The hash of the key. Hashes are compared in constant time.
    key: Option<blake3::Hash>,
    /// Names of this machine, besides localhost and its addresses.
    hosts: Vec<String>,
}

impl Access {
    /// `hosts` are names that may have ports, as in a Host header; those do not matter.
    pub(super) fn new(key: Option<&str>, hosts: &[String]) -> Access {
        let hosts = hosts.iter().map(|host| host_of(host).unwrap_or(host).to_string());
        Access { key: key.map(|key| blake3::hash(key.as_bytes())), hosts: hosts.collect() }
    }

    pub(super) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Checks that a request names this server. A page of another origin can make a browser ask a server on this
    /// machine once its name resolves to 127.0.0.1, but the request then still has that name.
    pub(super) fn check_host(&self, request: &Request) -> Result<(), HttpError> {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let named = match (request.uri().authority(), hosts.next(), hosts.next()) {
            (Some(authority), _, None) => Some(authority.as_str()),
            (None, Some(host), None) => host.to_str().ok(),
            _ => None,
        };
        let Some(host) = named.and_then(host_of) else {
            return Err(HttpError::new(
                StatusCode::BAD_REQUEST,
                "the request has no Host header, or one that cannot be read",
            ));
        };
        let is_known = host.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host));
        if is_known {
            return Ok(());
        }
        Err(HttpError::new(
            StatusCode::MISDIRECTED_REQUEST,
            "the Host header names none of this server's names",
        )
        .hint("start the server with --allow-host NAME if it is reached by this name"))
    }

    /// Checks the key of a request, if there has to be one.
    pub(super) fn check_key(&self, request: &Request) -> Result<(), HttpError> {
        let Some(key) = &self.key else {
            return Ok(());
        };
        let given = request.headers().get(header::AUTHORIZATION);
        let given = given.and_then(|given| given.as_bytes().split_at_checked("Bearer ".len()));
        let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
        match given {
            Some((_, given)) if blake3::hash(given) == *key => Ok(()),
            _ => Err(HttpError::new(StatusCode::UNAUTHORIZED, "the key is missing or wrong")
                .hint("send the header `Authorization: Bearer KEY`")
                .code("invalid_api_key")),
        }
    }
}

/// Returns the host of an authority such as `localhost:8080` or `[::1]:8080`.
fn host_of(authority: &str) -> Option<&str> {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        return (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(host);
    }
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    let host = host.strip_suffix('.').unwrap_or(host);
    (!host.is_empty() && is_port(port)).then_some(host)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = axum::http::Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn the_host_must_be_an_address_or_a_name_of_this_server() {
        let access = Access::new(None, &["tagger".into(), "proxy.example:8443".into()]);
        let status = |host: &str| {
            let checked = access.check_host(&request("/health", &[("host", host)]));
            checked.map_err(|error| error.answer(super::super::http_error::ErrorForm::Tei).status())
        };
        for host in
            ["localhost", "LOCALHOST:8080", "localhost.:80", "127.0.0.1:1", "[::1]:8080", "Tagger"]
                .into_iter()
                .chain(["proxy.example", "Proxy.example:8443", "proxy.example:80"])
        {
            assert_eq!(status(host), Ok(()), "{host}");
        }
        let misdirected = Err(StatusCode::MISDIRECTED_REQUEST);
        for host in ["evil.example:8080", "localhost.evil.example", "tagger2", "127.0.0.1.nip.io"] {
            assert_eq!(status(host), misdirected, "{host}");
        }
        for host in ["", ":80", "localhost:80:80", "[::1", "[::1]x", "user@localhost:x"] {
            assert_eq!(status(host), Err(StatusCode::BAD_REQUEST), "{host}");
        }
        assert!(access.check_host(&request("/", &[])).is_err());
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert!(access.check_host(&request("/", &two)).is_err());
        // What the request line names counts.
        let absolute = request("http://evil.example/", &[("host", "localhost")]);
        assert!(access.check_host(&absolute).is_err());
    }

    #[test]
    fn a_key_must_be_the_one() {
        let access = Access::new(Some("s3cret"), &[]);
        let is_let_in = |value: &str| {
            access.check_key(&request("/predict", &[("authorization", value)])).is_ok()
        };
        assert!(is_let_in("Bearer s3cret") && is_let_in("bearer s3cret"));
        for wrong in
            ["", "s3cret", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3crets", "Basic s3cret"]
        {
            assert!(!is_let_in(wrong), "{wrong}");
        }
        assert!(access.check_key(&request("/predict", &[])).is_err());
        assert!(Access::new(None, &[]).check_key(&request("/predict", &[])).is_ok());
    }
}
