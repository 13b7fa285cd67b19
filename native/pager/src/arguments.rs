//! The command line: a subcommand, then options with one value each.
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use lexopt::Arg;
use memory_image::{Error, ErrorCode, Result};

pub(crate) struct Arguments(lexopt::Parser);

impl Arguments {
    pub(crate) fn from_env() -> Self {
        Self(lexopt::Parser::from_env())
    }

    /// The first word; empty when there is none.
    pub(crate) fn subcommand(&mut self) -> Result<String> {
        match self.0.next().map_err(invalid)? {
            Some(Arg::Value(word)) => {
                word.into_string().map_err(|word| invalid(format!("{}: no subcommand", word.display())))
            }
            _ => Ok(String::new()),
        }
    }

    /// The rest.
    pub(crate) fn options(mut self) -> Result<Options> {
        let mut options = BTreeMap::<String, Vec<OsString>>::new();
        while let Some(argument) = self.0.next().map_err(invalid)? {
            let Arg::Long(name) = argument else { return Err(invalid(argument.unexpected())) };
            let name = name.to_owned();
            options.entry(name).or_default().push(self.0.value().map_err(invalid)?);
        }
        Ok(Options(options))
    }
}

/// Values by option name. Each is taken once; what nobody took is an option that the subcommand does not have.
pub(crate) struct Options(BTreeMap<String, Vec<OsString>>);

impl Options {
    /// All values of an option that may be given several times.
    pub(crate) fn all(&mut self, name: &str) -> Vec<OsString> {
        self.0.remove(name).unwrap_or_default()
    }

    pub(crate) fn optional(&mut self, name: &str) -> Result<Option<OsString>> {
        let mut values = self.all(name);
        let value = values.pop();
        if values.is_empty() { Ok(value) } else { Err(invalid(format!("--{name} is given more than once"))) }
    }

    pub(crate) fn required(&mut self, name: &str) -> Result<OsString> {
        self.optional(name)?.ok_or_else(|| invalid(format!("--{name} is missing")))
    }

    pub(crate) fn path(&mut self, name: &str) -> Result<PathBuf> {
        self.required(name).map(PathBuf::from)
    }

    pub(crate) fn parsed<T: FromStr>(&mut self, name: &str) -> Result<T> {
        let value = self.required(name)?;
        let parsed = value.to_str().and_then(|text| text.parse().ok());
        parsed.ok_or_else(|| invalid(format!("--{name} {}: not understood", value.display())))
    }

    /// Fails if any option was given that nobody took.
    pub(crate) fn finish(self) -> Result<()> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(invalid(format!("there is no option --{name}"))),
        }
    }
}

pub(crate) fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorCode::InvalidArguments, reason.into().to_string())
}
