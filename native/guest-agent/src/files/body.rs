//! Request bodies, in pieces worth a trip to the disk thread.
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::server::body::HttpError;

/// Small frames are gathered up to this size.
const PIECE_BYTES: usize = 64 * 1024;

/// Nothing at the end of the body. An error is the client having gone.
pub(super) async fn next_piece(body: &mut Incoming) -> Result<Option<Bytes>, HttpError> {
    let mut gathered = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| HttpError::bad_request(format!("the upload broke off: {error}")))?;
        let Ok(bytes) = frame.into_data() else { continue };
        if gathered.is_empty() && bytes.len() >= PIECE_BYTES {
            return Ok(Some(bytes));
        }
        gathered.extend_from_slice(&bytes);
        if gathered.len() >= PIECE_BYTES {
            break;
        }
    }
    Ok((!gathered.is_empty()).then(|| gathered.freeze()))
}
