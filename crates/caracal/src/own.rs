//! A stack that one command has to itself: in a temporary directory, on free ports, gone with the command.

use caracal_client::{Admin, Places};
use caracal_host::config::{Mode, Run, Sources};
use caracal_host::{SystemEntropy, World};

use crate::cli::ServiceName;
use crate::failure::Failure;
use crate::home::provision;
use crate::stack::{Doors, Plan, Stack};

/// A stack of its own in a temporary directory, and where it listens.
pub(crate) struct Own {
    pub(crate) stack: Stack,
    pub(crate) places: Places,
    pub(crate) admin: Admin,
    pub(crate) dir: tempfile::TempDir,
}

/// Starts a stack that nobody else uses, on free ports.
pub(crate) async fn own_stack() -> Result<Own, Failure> {
    let dir = tempfile::tempdir().map_err(|e| Failure::start(format!("no temporary directory: {e}")))?;
    let doors = Doors::bind(None)?;
    let at = |service: ServiceName| format!("http://localhost:{}", doors.port(service));
    let places = Places { sts: at(ServiceName::Sts), coordinator: at(ServiceName::Coordinator), gateway: at(ServiceName::Gateway) };
    let api = at(ServiceName::Api);
    let made = provision(&dir.path().join("secrets"), |_| false, &SystemEntropy)?;
    let mut builder = Sources::builder(Run::Up).default_mode(Mode::Dev).managed("ISSUER_URL", places.sts.clone());
    let mut token = String::new();
    for (name, value) in made.values {
        if name == "CARACAL_ADMIN_TOKEN" {
            token.clone_from(&value);
        }
        builder = builder.managed(name, value);
    }
    let sources = builder.build().map_err(|e| Failure::start(e.to_string()))?;
    let data = dir.path().join("data");
    crate::home::private_dir(&data)?;
    let plan = Plan { sources, data, doors };
    let stack = Box::pin(Stack::start(plan, World::system())).await?;
    Ok(Own { stack, places, admin: Admin::new(api, token), dir })
}
