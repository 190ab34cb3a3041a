//! A whole answer within bounds: for key sets, token endpoints and everything else that is read at once.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};

use crate::client::Client;
use crate::error::SendError;

/// Bounds of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From sending to the last byte.
    pub time: Duration,
    /// Bytes of the body.
    pub bytes: usize,
}

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nothing was answered.
    #[error(transparent)]
    Send(#[from] SendError),
    /// It took too long.
    #[error("the answer took too long")]
    Late,
    /// The body is larger than allowed.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The body broke off.
    #[error("the answer broke off")]
    Broken(#[source] hyper::Error),
}

impl Client<Full<Bytes>> {
    /// Sends a request and reads the whole answer within bounds.
    pub async fn fetch(&self, request: Request<Full<Bytes>>, bounds: Bounds) -> Result<Response<Bytes>, FetchError> {
        let whole = async {
            let (parts, mut body) = self.send(request).await?.into_parts();
            let mut bytes = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(FetchError::Broken)?;
                let Ok(data) = frame.into_data() else { continue };
                if bytes.len() + data.len() > bounds.bytes {
                    return Err(FetchError::TooLarge(bounds.bytes));
                }
                bytes.extend_from_slice(&data);
            }
            Ok(Response::from_parts(parts, bytes.freeze()))
        };
        tokio::time::timeout(bounds.time, whole).await.unwrap_or(Err(FetchError::Late))
    }
}
