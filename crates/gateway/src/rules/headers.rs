//! Header hygiene in both directions (`gateway.md` 11.1, 12.1).

use std::net::IpAddr;

use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LOCATION, FORWARDED, HOST, LOCATION, REFRESH, SERVER, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::credential::Injection;
use super::trace::{new_traceparent, trace_id};

/// Headers about one connection.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "proxy-connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];
/// Headers that make another request of it.
const OVERRIDES: &[&str] = &["x-http-method", "x-http-method-override", "x-method-override"];

/// What the upstream is told about the caller.
#[derive(Clone, Debug)]
pub struct Caller<'a> {
    /// The connection's other end.
    pub peer: IpAddr,
    /// Whether that connection is TLS.
    pub tls: bool,
    /// Whether forwarding headers of a proxy in front are believed.
    pub trust_proxy: bool,
    /// What the caller addressed.
    pub host: Option<&'a str>,
    /// The request id.
    pub request_id: &'a HeaderValue,
    /// Whether the mandate is for one request only.
    pub bound: bool,
}

/// Headers of the upstream request and the trace id of the call.
#[derive(Debug)]
pub struct Outgoing {
    /// The headers.
    pub headers: HeaderMap,
    /// The trace id.
    pub trace_id: String,
}

/// Makes the upstream's headers of the caller's.
pub fn outgoing(mut headers: HeaderMap, caller: &Caller<'_>, injection: &Injection, random: [u8; 24]) -> Outgoing {
    let forwarded_for = last_forwarded(&headers).filter(|_| caller.trust_proxy).unwrap_or(caller.peer);
    let forwarded_proto = headers
        .get("x-forwarded-proto")
        .and_then(|v| v.to_str().ok())
        .filter(|p| caller.trust_proxy && matches!(*p, "http" | "https"))
        .map(str::to_owned);
    drop_hop_by_hop(&mut headers);
    clean_baggage(&mut headers);
    drop_where(&mut headers, |name| {
        let folded = name.replace('_', "-");
        folded.starts_with("x-caracal-")
            || folded.starts_with("x-forwarded-")
            || folded == "x-real-ip"
            || folded == FORWARDED.as_str()
    });
    headers.remove(AUTHORIZATION);
    headers.remove(HOST);
    if let Some(name) = &injection.header {
        headers.remove(name);
    }
    if caller.bound {
        drop_where(&mut headers, |name| OVERRIDES.contains(&name));
    }
    for (name, value) in &injection.set {
        headers.insert(name.clone(), value.clone());
    }
    headers.insert("x-request-id", caller.request_id.clone());
    let trace = trace(&mut headers, random);
    headers.insert("x-forwarded-for", text(&forwarded_for.to_canonical().to_string()));
    let proto = forwarded_proto.unwrap_or_else(|| if caller.tls { "https" } else { "http" }.to_owned());
    headers.insert("x-forwarded-proto", text(&proto));
    if let Some(host) = caller.host {
        headers.insert("x-forwarded-host", text(host));
    }
    Outgoing { headers, trace_id: trace }
}

/// Cleans the upstream's headers for the caller. `base` is the upstream's own path; `provider` says that a static credential was used.
pub fn incoming(headers: &mut HeaderMap, base: &str, provider: bool) {
    drop_hop_by_hop(headers);
    drop_where(headers, |name| {
        name.starts_with("x-caracal-")
            || matches!(
                name,
                "x-request-id"
                    | "x-powered-by"
                    | "x-aspnet-version"
                    | "x-aspnetmvc-version"
                    | "alt-svc"
                    | "strict-transport-security"
            )
    });
    headers.remove(SERVER);
    headers.remove(REFRESH);
    if provider {
        // A session cookie of the upstream would be a session made with a credential that the agent does not have.
        headers.remove(SET_COOKIE);
    }
    for name in [LOCATION, CONTENT_LOCATION] {
        let kept: Vec<HeaderValue> = headers.get_all(&name).iter().filter_map(|v| relative(v, base)).collect();
        headers.remove(&name);
        for value in kept {
            headers.append(name.clone(), value);
        }
    }
}

/// A relative reference, without the upstream's own path in front; `None` for what leads elsewhere.
fn relative(value: &HeaderValue, base: &str) -> Option<HeaderValue> {
    let text = value.to_str().ok()?;
    if text.starts_with([' ', '\t']) || text.contains('\\') || text.bytes().any(|b| b.is_ascii_control()) || text.starts_with("//")
    {
        return None;
    }
    let first = text.split(['/', '?', '#']).next().unwrap_or_default();
    if first.contains(':') || text.contains(['[', ']', ' ', '<', '>', '"']) {
        return None;
    }
    let base = base.trim_end_matches('/');
    let cut = match text.strip_prefix(base).filter(|_| !base.is_empty()) {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') && !rest.starts_with("//") => rest,
        Some(rest) if rest.starts_with(['?', '#']) => return HeaderValue::from_str(&format!("/{rest}")).ok(),
        _ => text,
    };
    HeaderValue::from_str(cut).ok()
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(*name);
    }
}

fn drop_where(headers: &mut HeaderMap, drop: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| drop(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn clean_baggage(headers: &mut HeaderMap) {
    if !headers.contains_key("baggage") {
        return;
    }
    let all: Vec<String> = headers.get_all("baggage").iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect();
    headers.remove("baggage");
    let joined = all.join(",");
    let kept: Vec<&str> = joined
        .split(',')
        .map(str::trim)
        .filter(|member| !member.is_empty())
        .filter(|member| !member.split('=').next().unwrap_or_default().trim().starts_with("caracal."))
        .collect();
    if !kept.is_empty()
        && let Ok(value) = HeaderValue::from_str(&kept.join(","))
    {
        headers.insert("baggage", value);
    }
}

fn trace(headers: &mut HeaderMap, random: [u8; 24]) -> String {
    let mut lines = headers.get_all("traceparent").iter();
    let kept = match (lines.next(), lines.next()) {
        (Some(one), None) => one.to_str().ok().and_then(trace_id).map(str::to_owned),
        _ => None,
    };
    if let Some(id) = kept {
        return id;
    }
    let new = new_traceparent(random);
    headers.insert("traceparent", text(&new));
    headers.remove("tracestate");
    new[3..35].to_owned()
}

fn last_forwarded(headers: &HeaderMap) -> Option<IpAddr> {
    let line = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
    line.rsplit(',').next()?.trim().parse().ok()
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<String> = headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    fn sent(given: &[(&'static str, &str)], trust_proxy: bool) -> Vec<String> {
        let id = HeaderValue::from_static("req-7");
        let caller = Caller {
            peer: "10.0.0.9".parse().unwrap(),
            tls: false,
            trust_proxy,
            host: Some("gw:8081"),
            request_id: &id,
            bound: false,
        };
        let injection = Injection {
            header: Some(HeaderName::from_static("x-api-key")),
            set: vec![(HeaderName::from_static("x-api-key"), HeaderValue::from_static("k1"))],
            query: None,
        };
        let out = outgoing(map(given), &caller, &injection, [7; 24]);
        lines(&out.headers).into_iter().filter(|l| !l.starts_with("traceparent")).collect()
    }

    const ALWAYS: [&str; 5] = [
        "x-api-key: k1",
        "x-forwarded-for: 10.0.0.9",
        "x-forwarded-host: gw:8081",
        "x-forwarded-proto: http",
        "x-request-id: req-7",
    ];

    /// Acceptance row 51.
    #[test]
    fn none_of_the_callers_own_authority_arrives() {
        let got = sent(
            &[
                ("authorization", "Bearer m"),
                ("x-api-key", "mine"),
                ("x-caracal-identity", "x"),
                ("x_caracal_identity", "x"),
                ("x-caracal-resource", "r"),
                ("x-forwarded-for", "6.6.6.6"),
                ("x_forwarded_for", "6.6.6.6"),
                ("forwarded", "for=6.6.6.6"),
                ("x-real-ip", "6.6.6.6"),
                ("proxy-authorization", "x"),
                ("te", "trailers"),
                ("upgrade", "websocket"),
                ("http2-settings", "x"),
                ("host", "gw:8081"),
                ("x-request-id", "other"),
            ],
            false,
        );
        assert_eq!(got, ALWAYS);
    }

    /// Acceptance row 52.
    #[test]
    fn what_connection_names_goes_on_every_line() {
        let got = sent(&[("connection", "x-a, close"), ("connection", "X-B"), ("x-a", "1"), ("x-b", "1"), ("x-c", "1")], false);
        assert!(got.contains(&"x-c: 1".to_owned()) && !got.iter().any(|l| l.starts_with("x-a:") || l.starts_with("x-b:")));
        let got = sent(&[("connection", "authorization, x-api-key")], false);
        assert_eq!(got, ALWAYS, "the injected credential is set after");
    }

    /// Acceptance row 53.
    #[test]
    fn baggage_loses_our_members() {
        let got = sent(&[("baggage", "caracal.hop=1,tenant=x"), ("baggage", " caracal.session=s , ,b=2;p")], false);
        assert!(got.contains(&"baggage: tenant=x,b=2;p".to_owned()), "{got:?}");
        assert_eq!(sent(&[("baggage", "caracal.hop=1")], false), ALWAYS);
    }

    /// Acceptance row 86.
    #[test]
    fn a_proxy_is_believed_only_when_told_to() {
        let given = [("x-forwarded-for", "6.6.6.6, 203.0.113.9"), ("x-forwarded-proto", "https")];
        let got = sent(&given, true);
        assert!(got.contains(&"x-forwarded-for: 203.0.113.9".into()) && got.contains(&"x-forwarded-proto: https".into()));
        assert_eq!(sent(&given, false), ALWAYS);
    }

    #[test]
    fn a_replaced_trace_loses_its_state() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(sent(&[("traceparent", good), ("tracestate", "a=1")], false).contains(&"tracestate: a=1".into()));
        assert!(!sent(&[("traceparent", "nonsense"), ("tracestate", "a=1")], false).contains(&"tracestate: a=1".into()));
        assert!(
            !sent(&[("traceparent", good), ("traceparent", good), ("tracestate", "a=1")], false)
                .contains(&"tracestate: a=1".into())
        );
    }

    #[test]
    fn everything_else_passes_repeated_lines_too() {
        let got =
            sent(&[("cookie", "a=1"), ("cookie", "b=2"), ("accept", "*/*"), ("expect", "100-continue"), ("if-match", "x")], false);
        for line in ["cookie: a=1", "cookie: b=2", "accept: */*", "expect: 100-continue", "if-match: x"] {
            assert!(got.contains(&line.to_owned()), "{line}");
        }
        assert!(!got.iter().any(|l| l.starts_with("user-agent") || l.starts_with("accept-encoding")), "nothing is added");
    }

    /// Acceptance row 56.
    #[test]
    fn an_upstream_says_nothing_in_our_name() {
        let mut headers = map(&[
            ("x-request-id", "theirs"),
            ("x-caracal-identity", "x"),
            ("x-caracal-revoked", "true"),
            ("server", "x"),
            ("x-powered-by", "x"),
            ("refresh", "0;url=/"),
            ("alt-svc", "x"),
            ("strict-transport-security", "x"),
            ("set-cookie", "s=1"),
            ("etag", "e"),
        ]);
        let mut with_credential = headers.clone();
        incoming(&mut headers, "/base", false);
        assert_eq!(lines(&headers), ["etag: e", "set-cookie: s=1"]);
        incoming(&mut with_credential, "/base", true);
        assert_eq!(lines(&with_credential), ["etag: e"]);
    }

    /// Acceptance row 57.
    #[test]
    fn locations_stay_inside() {
        for (given, wanted) in [
            ("/base/v2/x", Some("/v2/x")),
            ("/base", Some("/")),
            ("/base?p=2", Some("/?p=2")),
            ("/basement", Some("/basement")),
            ("/other", Some("/other")),
            ("?p=2", Some("?p=2")),
            ("next/page", Some("next/page")),
            ("/a:b", Some("/a:b")),
            ("https://e/", None),
            ("//e/", None),
            ("/base//e/", Some("/base//e/")),
            ("http://[::1", None),
            ("/\\e", None),
            ("javascript:x", None),
        ] {
            let mut headers = map(&[("location", given)]);
            incoming(&mut headers, "/base", false);
            assert_eq!(headers.get("location").map(|v| v.to_str().unwrap()), wanted, "{given}");
        }
        let mut two = map(&[("location", "/a"), ("location", "https://e/")]);
        incoming(&mut two, "/", false);
        assert_eq!(lines(&two), ["location: /a"]);
    }
}
