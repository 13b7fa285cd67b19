//! Signed URLs: leave to read or write one path, made by who knows the access token.
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use sha2::{Digest, Sha256};

use crate::settings::equal_secrets;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Read,
    Write,
}

/// Everything as it stands in the URL, decoded but not resolved.
pub(super) struct Signed<'a> {
    pub(super) path: &'a str,
    pub(super) operation: Operation,
    /// Empty when the URL names none.
    pub(super) username: &'a str,
    /// Unix seconds.
    pub(super) expiration: Option<&'a str>,
    pub(super) signature: Option<&'a str>,
}

fn expected(signed: &Signed<'_>, token: &str) -> String {
    let operation = match signed.operation {
        Operation::Read => "read",
        Operation::Write => "write",
    };
    let mut text = [signed.path, operation, signed.username, token].join(":");
    if let Some(expiration) = signed.expiration {
        text = format!("{text}:{expiration}");
    }
    format!("v1_{}", BASE64_STANDARD_NO_PAD.encode(Sha256::digest(text)))
}

/// The words are those of E2B's agent; its SDKs' tests compare them.
pub(super) fn verify(signed: &Signed<'_>, token: &str, now: i64) -> Result<(), &'static str> {
    let signature = signed.signature.ok_or("missing signature query parameter")?;
    if !equal_secrets(&expected(signed, token), signature) {
        return Err("invalid signature");
    }
    match signed.expiration.map(str::parse::<i64>) {
        None => Ok(()),
        Some(Ok(expiration)) if expiration >= now => Ok(()),
        Some(Ok(_)) => Err("signature is already expired"),
        Some(Err(_)) => Err("invalid signature"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed<'a>(expiration: Option<&'a str>, signature: Option<&'a str>) -> Signed<'a> {
        Signed { path: "/home/user/a b.txt", operation: Operation::Read, username: "user", expiration, signature }
    }

    // printf '/home/user/a b.txt:read:user:secret[:1700000000]' | sha256sum | xxd -r -p | base64
    const PLAIN: &str = "v1_ae/PFK68iY0J3Y2sR1eBCM5nRuIgB8rBOQabN6OIhEQ";
    const EXPIRING: &str = "v1_DaLKNNbTrtXIZaCsNrvLVlXNVBQJBGBKoJ6hPjWns+A";

    #[test]
    fn known_signatures_are_accepted() {
        assert_eq!(verify(&signed(None, Some(PLAIN)), "secret", 0), Ok(()));
        assert_eq!(verify(&signed(Some("1700000000"), Some(EXPIRING)), "secret", 1_700_000_000), Ok(()));
    }

    #[test]
    fn anything_else_is_refused() {
        let expired = signed(Some("1700000000"), Some(EXPIRING));
        assert_eq!(verify(&expired, "secret", 1_700_000_001), Err("signature is already expired"));
        assert_eq!(verify(&signed(None, None), "secret", 0), Err("missing signature query parameter"));
        for (signed, token) in [
            (signed(None, Some(PLAIN)), "other"),
            (signed(None, Some(EXPIRING)), "secret"),
            (signed(Some("1700000001"), Some(EXPIRING)), "secret"),
            (Signed { operation: Operation::Write, ..signed(None, Some(PLAIN)) }, "secret"),
            (Signed { username: "", ..signed(None, Some(PLAIN)) }, "secret"),
            (signed(None, Some("")), "secret"),
        ] {
            assert_eq!(verify(&signed, token, 0), Err("invalid signature"));
        }
    }
}
