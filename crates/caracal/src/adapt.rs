//! Where services meet in one process: the traits one of them defines, over the handles another offers.

use caracal_core::time::Time;
use caracal_gateway::RevocationSource;
use caracal_gateway::exchange::{Call, Exchange, Failure, Granted, StsRefusal};
use caracal_gateway::revocation::Snapshot;
use caracal_store::Store;
use caracal_sts::{GatewayCall, GatewayRefusal, Sts};
use futures::future::BoxFuture;

/// The Gateway's exchange as a function call.
pub(crate) struct InProcess {
    pub(crate) sts: Sts,
    /// Whether the mandate's consumption commits with the exchange's evidence.
    pub(crate) consumes: bool,
}

impl Exchange for InProcess {
    fn exchange<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Result<Granted, Failure>> {
        Box::pin(async move {
            let asked = GatewayCall {
                mandate: call.mandate,
                resource: call.resource,
                method: call.method,
                path: call.path,
                request_id: call.request_id,
                consume: call.consume,
            };
            match self.sts.gateway_exchange(asked).await {
                Ok(grant) => Ok(Granted { resource_token: grant.token, directive: grant.directive }),
                Err(GatewayRefusal::Replayed) => Err(Failure::Replayed),
                Err(GatewayRefusal::Refused(refusal)) => Err(StsRefusal::from(&*refusal).into()),
            }
        })
    }

    fn consumes(&self) -> bool {
        self.consumes
    }
}

/// What was revoked, as the store knows it.
pub(crate) struct FromStore(pub(crate) Store);

/// How long an end matters to a running response, in seconds: longer than any mandate lives.
const DAY: i64 = 24 * 3600;

impl RevocationSource for FromStore {
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, String>> {
        Box::pin(async move {
            let now: Time = self.0.now().await.map_err(|e| e.to_string())?;
            let found = self.0.revoked_since(now.minus_secs(DAY)).await.map_err(|e| e.to_string())?;
            Ok(Snapshot { records: found.records, sessions: found.sessions, edges: found.edges, suspended: found.suspended })
        })
    }
}
