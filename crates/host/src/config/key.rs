//! What a variable is: its name, who reads it, its default, whether it is a secret.

use caracal_core::error::Service;

/// All five services, in the order of their default ports.
pub const SERVICES: &[Service] = &[Service::Api, Service::Coordinator, Service::Sts, Service::Gateway, Service::Audit];

/// The port a service listens on unless told otherwise.
pub const fn default_port(service: Service) -> u16 {
    match service {
        Service::Api => 3000,
        Service::Coordinator => 4000,
        Service::Sts => 8080,
        Service::Gateway => 8081,
        Service::Audit => 9090,
    }
}

/// `CARACAL_MODE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// On somebody's desk.
    Dev,
    /// A release candidate: the rules of `stable`.
    Rc,
    /// In production.
    Stable,
}

impl Mode {
    /// Whether the fail-closed rules of published builds hold.
    pub const fn published(self) -> bool {
        !matches!(self, Self::Dev)
    }

    /// The text in the variable.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Rc => "rc",
            Self::Stable => "stable",
        }
    }
}

/// How the process runs; some variables have another default in the one-process form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// `caracal up`: all services in one process.
    Up,
    /// `caracal serve <service>`.
    Serve,
}

/// One variable.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The variable's name; the same in the TOML file.
    pub name: &'static str,
    /// Who reads it.
    pub services: &'static [Service],
    /// Its value when nobody gave one.
    pub default: Option<&'static str>,
    /// Its value in `caracal up` when nobody gave one, where that differs.
    pub default_up: Option<&'static str>,
    /// Never shown.
    pub secret: bool,
    /// `<NAME>_FILE` is read too.
    pub file_variant: bool,
    /// A published mode does not start without it.
    pub required_when_published: bool,
    /// One sentence for the reference page.
    pub doc: &'static str,
}

impl Key {
    /// A variable that every service reads, without default, not secret.
    pub const fn new(name: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            services: SERVICES,
            default: None,
            default_up: None,
            secret: false,
            file_variant: false,
            required_when_published: false,
            doc,
        }
    }

    /// Read by these services only.
    #[must_use]
    pub const fn of(mut self, services: &'static [Service]) -> Self {
        self.services = services;
        self
    }

    /// With this default.
    #[must_use]
    pub const fn default(mut self, text: &'static str) -> Self {
        self.default = Some(text);
        self
    }

    /// With this default in `caracal up`.
    #[must_use]
    pub const fn default_up(mut self, text: &'static str) -> Self {
        self.default_up = Some(text);
        self
    }

    /// A secret, which may also be given in the file that `<NAME>_FILE` names.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self.file_variant = true;
        self
    }

    /// Required outside `dev`.
    #[must_use]
    pub const fn published(mut self) -> Self {
        self.required_when_published = true;
        self
    }
}
