//! The name of a layer: a UUID, and the name of its directory.
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use uuid::Uuid;

use crate::error::{Error, ErrorCode};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId(Uuid);

impl LayerId {
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Where the layer's files are.
    #[must_use]
    pub fn directory(&self, layers: &Path) -> PathBuf {
        layers.join(self.to_string())
    }
}

impl FromStr for LayerId {
    type Err = Error;

    /// Only as it is written: in lower case with hyphens, because it names a directory.
    fn from_str(text: &str) -> Result<Self, Error> {
        Uuid::try_parse(text)
            .ok()
            .map(Self)
            .filter(|id| id.to_string() == text)
            .ok_or_else(|| Error::new(ErrorCode::InvalidArguments, format!("{text:?} is no layer id")))
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(formatter)
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_only_as_it_is_written() {
        let text = "0f8fad5b-d9cb-469f-a165-70867728950e";
        assert_eq!(text.parse::<LayerId>().unwrap().to_string(), text);
        for other in ["", "..", "0F8FAD5B-D9CB-469F-A165-70867728950E", "0f8fad5bd9cb469fa16570867728950e", "../x"] {
            assert_eq!(other.parse::<LayerId>().unwrap_err().code, ErrorCode::InvalidArguments);
        }
    }
}
