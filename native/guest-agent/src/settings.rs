//! What `/init` has told this agent about its sandbox.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::users::User;

#[derive(Default, Deserialize, Serialize)]
pub(crate) struct Settings {
    pub(crate) token: Option<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) default_user: Option<String>,
    pub(crate) default_directory: Option<String>,
}

pub(crate) fn equal_secrets(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

impl Settings {
    /// True as long as no token is set.
    pub(crate) fn accepts_token(&self, presented: Option<&str>) -> bool {
        match (&self.token, presented) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(token), Some(presented)) => equal_secrets(token, presented),
        }
    }

    /// The named user; without a name whoever `/init` made the default.
    pub(crate) fn user(&self, name: Option<&str>) -> Result<User, String> {
        let unknown = |name: &str| format!("invalid username: '{name}'");
        match name.filter(|name| !name.is_empty()).or(self.default_user.as_deref()) {
            Some(name) => User::named(name).ok_or_else(|| unknown(name)),
            None => Ok(User::fallback()),
        }
    }
}
