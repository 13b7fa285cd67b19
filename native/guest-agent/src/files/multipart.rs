//! Splits multipart/form-data as it arrives, wherever the network has cut it.
use bytes::{Buf, BytesMut};
use memchr::memmem::Finder;

/// Of one part. Paths are at most 4 KiB.
const MAX_HEADER_BYTES: usize = 16 * 1024;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PartHeader {
    pub(super) name: String,
    pub(super) file_name: Option<String>,
}

/// Who takes the parts.
pub(super) trait Parts {
    type Error;
    fn begin(&mut self, header: PartHeader) -> Result<(), Self::Error>;
    fn data(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;
    fn end(&mut self) -> Result<(), Self::Error>;
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum SplitError<E> {
    Malformed(&'static str),
    Taker(E),
}

impl<E> From<E> for SplitError<E> {
    fn from(error: E) -> Self {
        Self::Taker(error)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first delimiter, or in the data of a part.
    Preamble,
    Data,
    /// Behind a delimiter: `--` ends all, a line break begins a part.
    Delimiter,
    Header,
    Done,
}

pub(super) struct Splitter {
    delimiter: Finder<'static>,
    buffered: BytesMut,
    state: State,
}

/// The boundary parameter of a Content-Type.
pub(super) fn boundary(content_type: &str) -> Option<String> {
    parameter(content_type, "boundary").filter(|boundary| (1..=200).contains(&boundary.len()))
}

/// A parameter of a header value; quotes and backslashes are undone.
fn parameter(value: &str, name: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (key, after) = rest.split_once('=')?;
        let (text, remaining) = parameter_value(after.trim_start());
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(text);
        }
        rest = remaining.trim_start().strip_prefix(';')?;
    }
}

fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.trim_end().to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, quoted.get(at + 1..).unwrap_or_default()),
            '\\' => {
                // Old browsers send Windows paths unescaped; a backslash only escapes what needs it.
                match characters.next() {
                    Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                    Some((_, other)) => value.extend(['\\', other]),
                    None => value.push('\\'),
                }
            }
            other => value.push(other),
        }
    }
    (value, "")
}

fn parse_header(bytes: &[u8]) -> PartHeader {
    let text = String::from_utf8_lossy(bytes);
    let mut header = PartHeader::default();
    for line in text.split("\r\n") {
        if let Some((key, value)) = line.split_once(':')
            && key.trim().eq_ignore_ascii_case("content-disposition")
        {
            header.name = parameter(value, "name").unwrap_or_default();
            header.file_name = parameter(value, "filename");
        }
    }
    header
}

impl Splitter {
    pub(super) fn new(boundary: &str) -> Self {
        Self {
            delimiter: Finder::new(&format!("\r\n--{boundary}")).into_owned(),
            // The first delimiter has no line break before it.
            buffered: BytesMut::from("\r\n"),
            state: State::Preamble,
        }
    }

    pub(super) fn push<P: Parts>(&mut self, bytes: &[u8], parts: &mut P) -> Result<(), SplitError<P::Error>> {
        if self.state == State::Done {
            return Ok(());
        }
        self.buffered.extend_from_slice(bytes);
        while self.step(parts)? {}
        Ok(())
    }

    pub(super) fn finish<E>(&self) -> Result<(), SplitError<E>> {
        match self.state {
            State::Done => Ok(()),
            _ => Err(SplitError::Malformed("the form ends before its closing boundary")),
        }
    }

    /// Whether there may be more to do with what is buffered.
    fn step<P: Parts>(&mut self, parts: &mut P) -> Result<bool, SplitError<P::Error>> {
        match self.state {
            State::Preamble => Ok(self.until_delimiter(|_| Ok(()))?),
            State::Data => {
                let found = self.until_delimiter(|bytes| parts.data(bytes).map_err(SplitError::Taker))?;
                if found {
                    parts.end()?;
                }
                Ok(found)
            }
            State::Delimiter => self.after_delimiter(),
            State::Header => self.header(parts),
            State::Done => Ok(false),
        }
    }

    /// Passes on what cannot belong to a delimiter; true when one was found and removed.
    fn until_delimiter<E>(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<(), SplitError<E>>,
    ) -> Result<bool, SplitError<E>> {
        let length = self.delimiter.needle().len();
        let found = self.delimiter.find(&self.buffered);
        let clear = found.unwrap_or_else(|| self.buffered.len().saturating_sub(length - 1));
        if clear > 0 {
            take(&self.buffered.split_to(clear))?;
        }
        if found.is_some() {
            self.buffered.advance(length);
            self.state = State::Delimiter;
        }
        Ok(found.is_some())
    }

    fn after_delimiter<E>(&mut self) -> Result<bool, SplitError<E>> {
        // Blanks may stand between a boundary and its line break.
        let blanks = self.buffered.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        match self.buffered.get(blanks..).unwrap_or_default() {
            [b'-', b'-', ..] if blanks == 0 => {
                self.state = State::Done;
                self.buffered.clear();
                Ok(false)
            }
            [b'\r', b'\n', ..] => {
                // The break stays: a part without headers is an empty line right behind it.
                self.buffered.advance(blanks);
                self.state = State::Header;
                Ok(true)
            }
            [] | [b'-' | b'\r'] if blanks < MAX_HEADER_BYTES => Ok(false),
            _ => Err(SplitError::Malformed("a boundary of the form is followed by something else")),
        }
    }

    fn header<P: Parts>(&mut self, parts: &mut P) -> Result<bool, SplitError<P::Error>> {
        let Some(end) = memchr::memmem::find(&self.buffered, b"\r\n\r\n") else {
            if self.buffered.len() > MAX_HEADER_BYTES {
                return Err(SplitError::Malformed("the headers of a part are too long"));
            }
            return Ok(false);
        };
        let header = parse_header(&self.buffered.split_to(end));
        self.buffered.advance(4);
        self.state = State::Data;
        parts.begin(header)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Collected(Vec<(PartHeader, Vec<u8>, bool)>);

    impl Parts for Collected {
        type Error = Infallible;
        fn begin(&mut self, header: PartHeader) -> Result<(), Infallible> {
            self.0.push((header, Vec::new(), false));
            Ok(())
        }
        fn data(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
            self.0.last_mut().unwrap().1.extend_from_slice(bytes);
            Ok(())
        }
        fn end(&mut self) -> Result<(), Infallible> {
            self.0.last_mut().unwrap().2 = true;
            Ok(())
        }
    }

    fn split<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Collected, SplitError<Infallible>> {
        let mut collected = Collected::default();
        let mut splitter = Splitter::new("bound");
        for piece in pieces {
            splitter.push(piece, &mut collected)?;
        }
        splitter.finish().map(|()| collected)
    }

    fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
        let mut form = b"preamble\r\n".to_vec();
        for (name, data) in parts {
            let header = format!(
                "--bound\r\nContent-Type: x/y\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n"
            );
            form.extend_from_slice(header.as_bytes());
            form.extend_from_slice(data);
            form.extend_from_slice(b"\r\n");
        }
        form.extend_from_slice(b"--bound--\r\nepilogue");
        form
    }

    #[test]
    fn parts_come_out_whole_wherever_the_bytes_are_split() {
        let parts: [(&str, &[u8]); 3] =
            [("/a b.txt", b"line\r\n--boun\r\n--bounD\r\n-"), ("/empty", b""), ("/last", b"\r\n\r\n--")];
        let form = form(&parts);
        for at in 0..=form.len() {
            let collected = split([&form[..at], &form[at..]]).unwrap();
            let seen: Vec<_> = collected
                .0
                .iter()
                .map(|(header, data, ended)| (header.file_name.as_deref().unwrap(), &data[..], *ended))
                .collect();
            assert_eq!(seen, parts.map(|(name, data)| (name, data, true)), "split at {at}");
        }
        assert!(split(form.chunks(1)).is_ok());
    }

    #[test]
    fn a_form_that_is_cut_short_or_malformed_is_refused() {
        let form = form(&[("/a", b"data")]);
        let closing = form.len() - "--\r\nepilogue".len();
        for length in 0..=closing {
            assert!(split([&form[..length]]).is_err(), "cut at {length}");
        }
        assert!(split([&b"--boundary?\r\n"[..]]).is_err());
        assert!(split([&b"--bound\r\n"[..], &vec![b'x'; MAX_HEADER_BYTES + 1][..]]).is_err());
    }

    #[test]
    fn header_parameters_are_unquoted() {
        let type_with = |parameters: &str| boundary(&format!("multipart/form-data; {parameters}"));
        assert_eq!(type_with("boundary=abc"), Some("abc".to_owned()));
        assert_eq!(type_with("charset=\"x;y\"; Boundary=\"a b\""), Some("a b".to_owned()));
        assert_eq!(type_with("charset=utf-8"), None);
        assert_eq!(type_with("boundary="), None);
        let header = parse_header(br#"Content-Disposition: form-data; name=file; filename="a \"b\" \\ C:\d.txt""#);
        assert_eq!(header.file_name.unwrap(), r#"a "b" \ C:\d.txt"#);
        assert_eq!(header.name, "file");
    }

    proptest! {
        #[test]
        fn any_data_survives_any_splitting(data in prop::collection::vec(prop::sample::select(b"\r\n-bound".to_vec()), 0..80), cut in 1_usize..9) {
            prop_assume!(!data.windows(9).any(|window| window == b"\r\n--bound"));
            let form = form(&[("/x", &data)]);
            let collected = split(form.chunks(cut)).unwrap();
            prop_assert_eq!(&collected.0[0].1, &data);
        }
    }
}
