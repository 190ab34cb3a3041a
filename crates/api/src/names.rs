//! Names that are made here, and names that are the platform's.

use caracal_core::error::api as rows;
use caracal_host::World;
use caracal_web::Problem;

use crate::actor::Actor;

/// What begins so belongs to the platform (`api.md` 4.6): names, slugs, resource and provider identifiers.
const PLATFORMS: [&str; 4] = ["caracal.sys/", "caracal-sys-", "caracal-sys://", "provider://caracal-sys-"];

/// Most characters of a generated slug before its number.
const SLUG_MAX: usize = 56;

/// Whether a name is the platform's.
pub(crate) fn is_platforms(name: &str) -> bool {
    let name = name.trim().to_lowercase();
    PLATFORMS.iter().any(|prefix| name.starts_with(prefix))
}

/// Refuses the platform's names to everyone but the deployment's own token.
pub(crate) fn allowed(actor: &Actor, name: &str) -> Result<(), Problem> {
    if actor.bootstrap || !is_platforms(name) { Ok(()) } else { Err(Problem::new(rows::RESERVED_NAMESPACE)) }
}

/// Lower-cased, runs of anything else become `-`; empty becomes `fallback`.
pub(crate) fn slug(text: &str, fallback: &str) -> String {
    let mut out = String::new();
    for c in text.to_lowercase().chars() {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            out.push(c);
        } else if !out.ends_with('-') {
            out.push('-');
        }
    }
    let out: String = out.trim_matches('-').chars().take(SLUG_MAX).collect();
    let out = out.trim_end_matches('-');
    if out.is_empty() { fallback.to_owned() } else { out.to_owned() }
}

/// The first of `base`, `base-2`, … `base-999` that is free, or one that surely is.
pub(crate) fn free(base: &str, used: &[String], world: &World) -> String {
    let numbered = (2..=999).map(|n| format!("{base}-{n}"));
    let found = std::iter::once(base.to_owned()).chain(numbered).find(|candidate| !used.contains(candidate));
    found.unwrap_or_else(|| {
        let random: [u8; 16] = world.random();
        format!("{base}-{}", caracal_core::digest::hex(&random))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_made_of_what_is_left() {
        for (text, wanted) in [("Ä b", "b"), ("  Data  Team! ", "data-team"), ("日本", "zone"), ("a--b", "a-b")] {
            assert_eq!(slug(text, "zone"), wanted, "{text}");
        }
        let long = slug(&format!("{} tail", "x".repeat(SLUG_MAX - 1)), "zone");
        assert_eq!(long, "x".repeat(SLUG_MAX - 1), "no slug ends with a dash");
    }

    #[test]
    fn the_first_free_number_is_taken() {
        let (world, _) = World::fixed(1);
        let used = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(free("b", &used(&[]), &world), "b");
        assert_eq!(free("b", &used(&["b", "b-3"]), &world), "b-2");
        let all: Vec<String> = std::iter::once("b".to_owned()).chain((2..=999).map(|n| format!("b-{n}"))).collect();
        assert_eq!(free("b", &all, &world).len(), 34);
    }

    #[test]
    fn the_platforms_names_are_the_deployments() {
        let mut actor = Actor::bootstrap();
        for name in [" Caracal.SYS/x", "caracal-sys-a", "CARACAL-SYS://r", "provider://caracal-sys-p"] {
            assert!(allowed(&actor, name).is_ok());
            actor.bootstrap = false;
            assert!(allowed(&actor, name).is_err(), "{name}");
            actor.bootstrap = true;
        }
        actor.bootstrap = false;
        assert!(allowed(&actor, "caracal").is_ok());
    }
}
