//! Resolves redirects and tells whether they still point to the hub.

use ureq::http::Uri;

/// The scheme, host and port of a URL. The token is sent only to the hub's own origin, because another port of the same
/// host may belong to anybody.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WebOrigin {
    scheme: String,
    host: String,
    port: u16,
}

impl WebOrigin {
    /// Returns the origin of a URL; `None` if it has no host or its scheme is neither http nor https.
    pub(super) fn of(uri: &Uri) -> Option<WebOrigin> {
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let default = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        Some(WebOrigin {
            scheme,
            host: uri.host()?.to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(default),
        })
    }
}

/// Resolves a `Location` header against the requested URL (RFC 3986); `None` if the result is not a valid URL.
pub(super) fn resolve(from: &Uri, location: &str) -> Option<Uri> {
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let text = if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.contains("://") {
        location.to_string()
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Option<WebOrigin> {
        WebOrigin::of(&text.parse().unwrap())
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let hub = origin("https://Hub.example/a/b?c");
        assert!(hub.is_some());
        assert_eq!(hub, origin("https://hub.example:443/d"));
        assert_eq!(hub, origin("https://name:word@hub.example"));
        for other in [
            "http://hub.example",
            "https://hub.example:8443",
            "https://cdn.hub.example",
            "https://hub.example.org",
            "ftp://hub.example",
        ] {
            assert_ne!(hub, origin(other), "{other}");
        }
        assert_eq!(origin("/a"), None);
    }

    #[test]
    fn a_location_may_leave_out_what_stays_as_it_is() {
        let from: Uri = "https://hub.example:8443/a/b?c=d".parse().unwrap();
        for (location, expected) in [
            ("http://cdn.example/x?y=z", Some("http://cdn.example/x?y=z")),
            ("//cdn.example/x", Some("https://cdn.example/x")),
            ("/x", Some("https://hub.example:8443/x")),
            ("x", Some("https://hub.example:8443/a/x")),
            ("http://", None),
            ("/a b", None),
        ] {
            let got = resolve(&from, location).map(|uri| uri.to_string());
            assert_eq!(got.as_deref(), expected, "{location}");
        }
    }
}
