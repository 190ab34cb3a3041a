//! What an application may beside what policy grants it (`api.md` 9.3): the form of traits, and which are privileges.

use caracal_core::error::api as rows;
use caracal_core::time::Time;
use caracal_web::Problem;

use crate::actor::Actor;
use crate::call::wrong;

/// Namespaces whose traits are privileges of the deployment.
const PRIVILEGED: [&str; 2] = ["control", "caracal.sys"];

/// Objects of Control that can be read, written and deleted (`control.md` 14).
const MANAGED: [&str; 8] = ["app", "resource", "identity-provider", "policy", "policy-set", "workload", "session", "grant"];
/// Objects of Control that can only be read.
const READ: [&str; 4] = ["authority-record", "approval", "audit", "explain"];

/// Traits in good form that this actor may give.
pub(crate) fn traits_of(traits: Vec<String>, actor: &Actor) -> Result<Vec<String>, Problem> {
    if traits.len() > 64 {
        return Err(Problem::because(rows::TRAIT_COUNT, "an application has at most 64 traits"));
    }
    let singles = ["control:max-ttl:", "control:expires:"];
    for (i, one) in traits.iter().enumerate() {
        if !is_trait(one) {
            return Err(wrong(rows::TRAIT_INVALID, "traits", format!("{} is no trait", shortened(one))));
        }
        if traits[..i].contains(one) {
            return Err(wrong(rows::TRAIT_DUPLICATE, "traits", format!("{one} occurs twice")));
        }
        let again = |prefix: &str| one.starts_with(prefix) && traits[..i].iter().any(|other| other.starts_with(prefix));
        if singles.into_iter().any(again) {
            return Err(wrong(rows::TRAIT_INVALID, "traits", format!("{one} is the second of its kind")));
        }
    }
    if actor.zone.is_some() && are_privileged(&traits) {
        return Err(Problem::new(rows::TRAIT_FORBIDDEN));
    }
    Ok(traits)
}

/// Whether one of them is a privilege.
pub(crate) fn are_privileged(traits: &[String]) -> bool {
    traits.iter().any(|one| PRIVILEGED.contains(&namespace(one)))
}

fn namespace(one: &str) -> &str {
    one.split_once(':').map_or(one, |(namespace, _)| namespace)
}

fn is_trait(one: &str) -> bool {
    let mut bytes = one.bytes();
    (1..=128).contains(&one.len())
        && bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
        && (namespace(one) != "control" || is_control(one))
}

fn is_control(one: &str) -> bool {
    let Some((kind, value)) = one.strip_prefix("control:").map(|rest| rest.split_once(':').unwrap_or((rest, ""))) else {
        return false;
    };
    match kind {
        "invoke" => one == "control:invoke",
        "scope" => is_control_scope(value),
        "max-ttl" => value.bytes().all(|b| b.is_ascii_digit()) && value.parse().is_ok_and(|n: u32| (60..=900).contains(&n)),
        "expires" => Time::parse_rfc3339(value).is_some(),
        _ => false,
    }
}

fn is_control_scope(scope: &str) -> bool {
    let mut parts = scope.split(':');
    let (first, object, verb) = (parts.next(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let known = match verb {
        "read" => MANAGED.contains(&object) || READ.contains(&object) || object == "delegation",
        "write" => MANAGED.contains(&object),
        "delete" => MANAGED.contains(&object) || object == "delegation",
        _ => false,
    };
    first == Some("control") && known && parts.next().is_none()
}

fn shortened(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(traits: &[&str], zone: bool) -> &'static str {
        let mut actor = Actor::bootstrap();
        actor.zone = zone.then(|| "0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10".parse().unwrap());
        let given = traits.iter().map(|t| (*t).to_owned()).collect();
        traits_of(given, &actor).err().map_or("", |problem| problem.situation().code)
    }

    #[test]
    fn the_form_of_traits() {
        let longest = format!("a{}", "b".repeat(127));
        for good in ["team", "a.b_c:d-1", &longest, "control:invoke", "control:scope:control:app:read", "control:max-ttl:60"] {
            assert_eq!(code(&[good], false), "", "{good}");
        }
        assert_eq!(code(&["control:expires:2030-01-01T00:00:00Z"], false), "");
        for bad in [
            "",
            "1a",
            "a b",
            "ä",
            &format!("{longest}c"),
            "control",
            "control:other",
            "control:invoke:x",
            "control:scope:app:read",
            "control:scope:control:app:read:x",
            "control:scope:control:explain:write",
            "control:scope:control:delegation:write",
            "control:max-ttl:59",
            "control:max-ttl:901",
            "control:max-ttl:+60",
            "control:max-ttl:",
            "control:expires:soon",
            "control:expires:2030-01-01",
        ] {
            assert_eq!(code(&[bad], false), "trait_invalid", "{bad}");
        }
        assert_eq!(code(&["control:max-ttl:60", "control:max-ttl:61"], false), "trait_invalid");
        assert_eq!(code(&["a", "a"], false), "trait_duplicate");
        let many: Vec<String> = (0..65).map(|n| format!("t{n}")).collect();
        assert_eq!(code(&many.iter().map(String::as_str).collect::<Vec<_>>(), false), "trait_count_exceeded");
    }

    #[test]
    fn privileges_are_the_deployments_to_give() {
        for privilege in ["control:invoke", "caracal.sys:x", "caracal.sys"] {
            assert_eq!(code(&[privilege], true), "trait_forbidden", "{privilege}");
            assert_eq!(code(&[privilege], false), "", "{privilege}");
        }
        assert_eq!(code(&["controls:x", "caracal.system"], true), "");
    }
}
