//! Takes the bytes of an upload and turns them into files. Waits for the disk: not for the serving thread.
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use flate2::write::MultiGzDecoder;
use serde::Serialize;

use super::access::Access;
use super::disk::{disk_error, ensure_directory};
use super::encoding::Coding;
use super::multipart::{PartHeader, Parts, SplitError, Splitter};
use super::temporary::{TargetError, TemporaryFile};
use crate::filesystem::metadata::{self, Metadata};
use crate::paths;
use crate::server::body::HttpError;

/// Compressed bytes given to the decoder at once. They may grow a thousandfold, and that must fit in memory.
const GZIP_STEP: usize = 4096;

/// As E2B's agent describes what was written.
#[derive(Debug, Serialize)]
pub(super) struct Written {
    pub(super) name: String,
    pub(super) path: String,
    pub(super) r#type: &'static str,
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    pub(super) metadata: Metadata,
}

/// A temporary file beside its destination, whose directories are made when missing.
pub(super) fn begin_file(path: &str, access: &Access) -> Result<TemporaryFile, HttpError> {
    ensure_directory(paths::parent(path), &access.user)?;
    TemporaryFile::create(path, &access.user).map_err(|error| match error {
        TargetError::Directory => HttpError::bad_request(format!("path is a directory: {path}")),
        TargetError::NotAFile => HttpError::bad_request(format!("path is not a regular file: {path}")),
        TargetError::Io(error) => disk_error(&format!("error opening file {path}"), &error),
    })
}

/// The files of one upload.
struct Files {
    access: Access,
    metadata: Metadata,
    current: Option<(String, TemporaryFile)>,
    written: Vec<Written>,
}

impl Files {
    fn open(&mut self, path: &str) -> Result<(), HttpError> {
        let path = self.access.resolve(path)?;
        if self.written.iter().any(|written| written.path == path) {
            return Err(HttpError::bad_request(format!(
                "you cannot upload multiple files to the same path '{path}' in one upload request, \
                 only the first specified file was uploaded"
            )));
        }
        let file = begin_file(&path, &self.access)?;
        self.current = Some((path, file));
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        let Some((path, file)) = &mut self.current else { return Ok(()) };
        file.file().write_all(bytes).map_err(|error| disk_error(&format!("error writing file {path}"), &error))
    }

    fn close(&mut self) -> Result<(), HttpError> {
        let Some((path, file)) = self.current.take() else { return Ok(()) };
        file.finish(&self.metadata).map_err(|error| disk_error(&format!("error finishing file {path}"), &error))?;
        self.written.push(Written {
            name: paths::file_name(&path).to_owned(),
            r#type: "file",
            metadata: if self.metadata.is_empty() { Metadata::new() } else { metadata::read(Path::new(&path)) },
            path,
        });
        Ok(())
    }
}

impl Parts for Files {
    type Error = HttpError;

    fn begin(&mut self, header: PartHeader) -> Result<(), HttpError> {
        // Other fields are of no interest.
        if header.name != "file" {
            return Ok(());
        }
        let path = match (&self.access.path, header.file_name) {
            (Some(path), _) => path.clone(),
            (None, Some(name)) if !name.is_empty() => name,
            (None, _) => {
                return Err(HttpError::bad_request("a file of the form has no name, and the request names no path"));
            }
        };
        self.open(&path)
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        self.append(bytes)
    }

    fn end(&mut self) -> Result<(), HttpError> {
        self.close()
    }
}

/// How the decoded bytes hold their files.
enum Layout {
    /// The body is the file.
    Plain,
    Form(Box<Splitter>),
}

struct Decoded {
    files: Files,
    layout: Layout,
    /// What the decoder cannot carry in its own error.
    failure: Option<HttpError>,
}

impl Decoded {
    fn take(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        match &mut self.layout {
            Layout::Plain => self.files.append(bytes),
            Layout::Form(splitter) => splitter.push(bytes, &mut self.files).map_err(form_error),
        }
    }
}

fn form_error(error: SplitError<HttpError>) -> HttpError {
    match error {
        SplitError::Malformed(message) => HttpError::bad_request(format!("error parsing multipart form: {message}")),
        SplitError::Taker(error) => error,
    }
}

impl Write for Decoded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.take(bytes).map_err(|error| {
            self.failure = Some(error);
            io::Error::other("the upload failed")
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Stage {
    Plain(Box<Decoded>),
    Gzip(Box<MultiGzDecoder<Decoded>>),
}

pub(super) struct Intake(Stage);

fn gzip_error(decoded: &mut Decoded, error: &io::Error) -> HttpError {
    let not_gzip = || HttpError::bad_request(format!("error decompressing request body: {error}"));
    decoded.failure.take().unwrap_or_else(not_gzip)
}

impl Intake {
    /// `boundary` is that of a form; without one the body is the file itself.
    pub(super) fn new(
        access: Access,
        metadata: Metadata,
        coding: Coding,
        boundary: Option<&str>,
    ) -> Result<Self, HttpError> {
        let layout = boundary.map_or(Layout::Plain, |boundary| Layout::Form(Box::new(Splitter::new(boundary))));
        let mut files = Files { access, metadata, current: None, written: Vec::new() };
        if boundary.is_none() {
            let path = files.access.path.clone().filter(|path| !path.is_empty());
            let path =
                path.ok_or_else(|| HttpError::bad_request("path query parameter is required for raw body upload"))?;
            files.open(&path)?;
        }
        let decoded = Decoded { files, layout, failure: None };
        Ok(Self(match coding {
            Coding::Identity => Stage::Plain(Box::new(decoded)),
            Coding::Gzip => Stage::Gzip(Box::new(MultiGzDecoder::new(decoded))),
        }))
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        match &mut self.0 {
            Stage::Plain(decoded) => decoded.take(bytes),
            Stage::Gzip(decoder) => {
                for piece in bytes.chunks(GZIP_STEP) {
                    if let Err(error) = decoder.write_all(piece) {
                        return Err(gzip_error(decoder.get_mut(), &error));
                    }
                }
                Ok(())
            }
        }
    }

    pub(super) fn finish(self) -> Result<Vec<Written>, HttpError> {
        let mut decoded = match self.0 {
            Stage::Plain(decoded) => *decoded,
            Stage::Gzip(mut decoder) => {
                if let Err(error) = decoder.try_finish() {
                    return Err(gzip_error(decoder.get_mut(), &error));
                }
                decoder.finish().map_err(|error| HttpError::bad_request(error.to_string()))?
            }
        };
        match &decoded.layout {
            Layout::Plain => decoded.files.close()?,
            Layout::Form(splitter) => splitter.finish().map_err(form_error)?,
        }
        Ok(decoded.files.written)
    }
}

/// Whether a path leads to a plain file, for reading.
pub(super) fn open_regular(path: &str) -> io::Result<Option<(fs::File, fs::Metadata)>> {
    // Looked at before it is opened: opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let file = fs::File::open(path)?;
    let metadata = file.metadata()?;
    Ok(Some((file, metadata)))
}
