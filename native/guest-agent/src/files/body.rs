//! Bodies in pieces worth a trip to the disk thread, both ways.
use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};

use crate::server::body::HttpError;
use crate::sync::blocking;

/// Small frames of a request are gathered up to this size.
const PIECE_BYTES: usize = 64 * 1024;

/// What one trip adds to an answer; two of these are in memory at most.
pub(super) const CHUNK_BYTES: usize = 128 * 1024;

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

/// Where the bytes of an answer come from. An error breaks the answer off.
pub(super) trait Source: Send + Sized + 'static {
    /// The next bytes, and what is left after them. Waits for the disk.
    fn next(self) -> io::Result<(Bytes, Option<Self>)>;
}

/// Asks for more only once the client has taken what there was, and no more once it has gone.
pub(super) fn frames<S: Source>(source: Option<S>) -> impl Stream<Item = io::Result<Frame<Bytes>>> + Send {
    stream::unfold(source, |source| async move {
        let source = source?;
        match blocking(move || source.next()).await.and_then(|piece| piece) {
            Ok((bytes, rest)) => Some((Ok(Frame::data(bytes)), rest)),
            Err(error) => Some((Err(error), None)),
        }
    })
}
