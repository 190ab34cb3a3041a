//! Several declarations become one hold (`policy.md` 7.2).

use std::collections::BTreeSet;

use serde_json::Value;

/// Who may decide a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approver {
    /// An operator.
    Operator,
    /// The Federated user.
    Subject,
    /// Either.
    Any,
}

impl Approver {
    /// The word of the row.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Subject => "subject",
            Self::Any => "any",
        }
    }
}

/// The shape of a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Tier names, sorted, joined with `,`.
    pub tier: String,
    /// Who may decide.
    pub approver: Approver,
    /// How long it stays open, in seconds.
    pub ttl_seconds: i64,
    /// How the approver is recorded.
    pub privacy: &'static str,
}

/// The declarations ask for separate operator and subject decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("approval requires separate operator and subject decisions")]
pub struct Conflict;

/// Merges the declarations of every evaluated resource; `None` when there is none.
pub fn merge<'a>(declarations: impl IntoIterator<Item = &'a Value>) -> Result<Option<Gate>, Conflict> {
    const PRIVACY: [&str; 3] = ["identified", "pseudonymous", "anonymous"];
    let mut tiers = BTreeSet::new();
    let mut approver: Option<Approver> = None;
    let mut shortest: Option<f64> = None;
    let mut privacy = 0;
    for declaration in declarations {
        tiers.insert(declaration["tier"].as_str().unwrap_or_default());
        let wanted = match declaration["approver"].as_str() {
            Some("subject") => Approver::Subject,
            Some("any") => Approver::Any,
            _ => Approver::Operator,
        };
        approver = Some(match (approver, wanted) {
            (None | Some(Approver::Any), wanted) => wanted,
            (Some(held), Approver::Any) => held,
            (Some(held), wanted) if held == wanted => held,
            _ => return Err(Conflict),
        });
        if let Some(ttl) = declaration["ttl_seconds"].as_f64() {
            shortest = Some(shortest.map_or(ttl, |held: f64| held.min(ttl)));
        }
        let level = PRIVACY.iter().position(|p| declaration["privacy"] == *p).unwrap_or(0);
        privacy = privacy.max(level);
    }
    let Some(approver) = approver else { return Ok(None) };
    let (default, ceiling) = if approver == Approver::Operator { (14_400, 604_800) } else { (900, 86_400) };
    #[allow(clippy::cast_possible_truncation, reason = "clamped to the ceiling first")]
    let ttl_seconds = shortest.map_or(default, |ttl| ttl.min(f64::from(ceiling)) as i64).max(60);
    let tier = tiers.into_iter().collect::<Vec<_>>().join(",");
    Ok(Some(Gate { tier, approver, ttl_seconds, privacy: PRIVACY[privacy] }))
}
