//! Content codings: which one a client wants back, and which one it sent.
use hyper::HeaderMap;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
}

/// Codings and their qualities, in thousandths.
fn accepted(header: &str) -> Vec<(String, u32)> {
    let parse = |part: &str| {
        let mut parameters = part.split(';').map(str::trim);
        let coding = parameters.next().filter(|coding| !coding.is_empty())?.to_ascii_lowercase();
        let quality = parameters.find_map(|parameter| parameter.strip_prefix("q="));
        let quality = quality.map_or(Some(1.0), |quality| quality.parse::<f32>().ok())?;
        // Clamped to 0..=1000 before the cast.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let thousandths = (quality.clamp(0.0, 1.0) * 1000.0) as u32;
        Some((coding, thousandths))
    };
    header.split(',').filter_map(parse).collect()
}

/// Nothing when the client accepts neither.
///
/// HTTP libraries offer gzip among others without being asked; compressing costs an emulated guest far more than the
/// bytes it saves on the way to its host. So only a client that offers gzip alone, or refuses identity, gets it.
pub(super) fn choose(headers: &HeaderMap, whole_file: bool) -> Option<Coding> {
    let Some(header) = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()) else {
        return Some(Coding::Identity);
    };
    let accepted = accepted(header);
    let quality = |name: &str| accepted.iter().find(|(coding, _)| coding == name).map(|(_, quality)| *quality);
    let any = quality("*");
    let identity = quality("identity").or(any).unwrap_or(1) > 0;
    let gzip = quality("gzip").or(any).unwrap_or(0) > 0 && whole_file;
    let gzip_alone = matches!(accepted.as_slice(), [(coding, _)] if coding == "gzip");
    match (gzip, identity) {
        (true, identity) if gzip_alone || !identity => Some(Coding::Gzip),
        (_, true) => Some(Coding::Identity),
        (_, false) => None,
    }
}

/// An error names the coding that is not known.
pub(super) fn sent(headers: &HeaderMap) -> Result<Coding, String> {
    let Some(header) = headers.get(CONTENT_ENCODING) else { return Ok(Coding::Identity) };
    match header.to_str().unwrap_or("?").trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Coding::Identity),
        "gzip" => Ok(Coding::Gzip),
        other => Err(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn gzip_is_for_those_who_ask_for_it() {
        for (header, whole, part) in [
            ("gzip", Some(Coding::Gzip), Some(Coding::Identity)),
            ("gzip, deflate, br", Some(Coding::Identity), Some(Coding::Identity)),
            ("gzip;q=1.0, identity;q=0", Some(Coding::Gzip), None),
            ("gzip;q=0", Some(Coding::Identity), Some(Coding::Identity)),
            ("*;q=0", None, None),
            ("identity;q=0", None, None),
            ("br;q=1, *;q=0.5", Some(Coding::Identity), Some(Coding::Identity)),
            ("*, identity;q=0", Some(Coding::Gzip), None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(header));
            assert_eq!((choose(&headers, true), choose(&headers, false)), (whole, part), "{header}");
        }
        assert_eq!(choose(&HeaderMap::new(), true), Some(Coding::Identity));
    }
}
