//! The exchange over HTTP: one signed form, one attempt (`gateway.md` 7.1 to 7.3).

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use caracal_crypto::mac::{GatewayCall, MacKey};
use caracal_egress::{Bounds, Client, FetchError, SendError};
use caracal_host::World;
use futures::future::BoxFuture;
use http::{Method, Request, Uri};
use http_body_util::Full;
use url::Url;

use super::circuit::Circuit;
use super::reply::read_reply;
use super::{Call, Exchange, Failure, Granted, StsRefusal};

/// Largest answer.
const REPLY_BYTES_MAX: usize = 64 * 1024;

/// Where the STS is and how calls are signed.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// `STS_URL`.
    pub url: Url,
    /// `GATEWAY_STS_HMAC_KEY`; without it calls go unsigned and are refused.
    pub key: Option<MacKey>,
    /// `STS_TIMEOUT`.
    pub timeout: Duration,
}

/// Asks an STS that is another process.
#[derive(Debug)]
pub struct HttpExchange {
    client: Client<Full<Bytes>>,
    token_url: Uri,
    health_url: Uri,
    path: String,
    settings: HttpSettings,
    world: World,
    circuit: Circuit,
}

impl HttpExchange {
    /// An exchange with the STS at `settings.url`; `client` has the guard for our own services.
    pub fn new(client: Client<Full<Bytes>>, settings: HttpSettings, world: World) -> Result<Self, http::uri::InvalidUri> {
        let base = settings.url.as_str().trim_end_matches('/');
        let token_url: Uri = format!("{base}/oauth/2/token").parse()?;
        let health_url = format!("{base}/health").parse()?;
        let path = token_url.path().to_owned();
        Ok(Self { client, token_url, health_url, path, settings, circuit: Circuit::new(world.clone()), world })
    }

    /// The circuit, for its gauges.
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    fn request(&self, call: &Call<'_>) -> Result<Request<Full<Bytes>>, http::Error> {
        let body = form(call);
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.token_url.clone())
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .header("user-agent", "caracal-gateway")
            .header("x-request-id", call.request_id);
        if let Some(key) = &self.settings.key {
            let nonce = hex::encode(self.world.random::<32>());
            let timestamp = self.world.now().as_secs();
            let signed = GatewayCall { timestamp, nonce: &nonce, method: "POST", path: &self.path, body: body.as_bytes() };
            request = request
                .header("x-caracal-gateway-timestamp", timestamp)
                .header("x-caracal-gateway-signature", signed.sign(key))
                .header("x-caracal-gateway-request", nonce);
        }
        // The bytes that were signed are the bytes that are sent.
        request.body(Full::new(Bytes::from(body)))
    }

    async fn ask(&self, call: Call<'_>) -> Result<Granted, Failure> {
        let passage = self.circuit.pass().map_err(|seconds| {
            let refusal = StsRefusal::unavailable(503, "the token service is unavailable", "the circuit is open");
            StsRefusal { retry_after: Some(seconds), ..refusal }
        })?;
        let request = self.request(&call).map_err(|e| StsRefusal::unavailable(502, "the token service cannot be asked", e))?;
        let bounds = Bounds { time: self.settings.timeout.min(call.deadline), bytes: REPLY_BYTES_MAX };
        let outcome = match self.client.fetch(request, bounds).await {
            Ok(response) => read_reply(&response, call.resource),
            Err(error) => Err(transport(&error)),
        };
        match &outcome {
            Ok(_) => passage.answered(),
            Err(refusal) if refusal.is_unavailable() => passage.failed(),
            Err(refusal) if refusal.status < 500 => passage.answered(),
            Err(_) => passage.neutral(),
        }
        outcome.map_err(Failure::from)
    }
}

impl Exchange for HttpExchange {
    fn exchange<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Result<Granted, Failure>> {
        Box::pin(self.ask(call))
    }

    fn retry_in(&self) -> Option<u64> {
        self.circuit.retry_in()
    }

    fn reachable(&self) -> BoxFuture<'_, bool> {
        Box::pin(async {
            let Ok(request) = Request::builder().uri(self.health_url.clone()).body(Full::default()) else { return false };
            let bounds = Bounds { time: Duration::from_millis(1500), bytes: 4096 };
            self.client.fetch(request, bounds).await.is_ok_and(|response| response.status().is_success())
        })
    }
}

fn transport(error: &FetchError) -> StsRefusal {
    let late = match error {
        FetchError::Late => true,
        FetchError::Send(SendError::Dial(dial)) => dial.late(),
        _ => false,
    };
    if late {
        StsRefusal::unavailable(504, "the token service did not answer in time", error)
    } else {
        StsRefusal::unavailable(502, "the token service cannot be reached", error)
    }
}

/// The form of an exchange, names in order.
fn form(call: &Call<'_>) -> String {
    let claims = &call.mandate.claims;
    let (zone, application) = (claims.zone_id.to_string(), claims.client_id.to_string());
    encode(&[
        ("application_id", &application),
        ("gateway_request_id", call.request_id),
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("request_method", call.method),
        ("request_path", call.path),
        ("resource", call.resource),
        ("subject_token", call.token),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("zone_id", &zone),
    ])
}

fn encode(fields: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(512 + fields.iter().map(|(_, v)| v.len()).sum::<usize>());
    for (i, (name, value)) in fields.iter().enumerate() {
        if i > 0 {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
                b' ' => out.push('+'),
                other => {
                    let _ = write!(out, "%{other:02X}");
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use caracal_core::digest::{hex, sha256};

    use super::*;

    /// Acceptance row 27.
    #[test]
    fn the_vector_of_the_spec() {
        let body = encode(&[
            ("application_id", "app-1"),
            ("gateway_request_id", "req-7"),
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("request_method", "POST"),
            ("request_path", "/v1/items"),
            ("resource", "resource://ledger"),
            ("subject_token", "eyJ.a.b"),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("zone_id", "z-1"),
        ]);
        assert_eq!(body.len(), 303);
        assert_eq!(hex(&sha256(&[body.as_bytes()])), "d10de21a2a6ea0295296ae568f356c0245f9c88cd8d586f17e13055e12b3e01f");
        let key = MacKey::from_hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f").unwrap();
        let nonce = "9f8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a39281706f5e4d3c2b1a0";
        let call = GatewayCall { timestamp: 1_790_000_000, nonce, method: "POST", path: "/oauth/2/token", body: body.as_bytes() };
        assert_eq!(call.sign(&key), "0573cacba40a1e9eb4ddca90f4c5963e748c0c4686196f48336c67be9be575b2");
    }

    #[test]
    fn texts_are_encoded_exactly() {
        assert_eq!(encode(&[("a", "b c~*é/%")]), "a=b+c~%2A%C3%A9%2F%25");
    }
}
