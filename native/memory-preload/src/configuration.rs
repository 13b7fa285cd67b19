//! What the environment says guest memory is made of:
//! `size=BYTES,file=FD`             the inherited file, mapped privately over it;
//! `size=BYTES,image=FD,layers=N`   the inherited header of a memory image, and behind it its N layers, each extent mapped privately;
//! `size=BYTES,uffd=FD,socket=PATH` pages from the pager that listens at PATH, by the inherited /dev/userfaultfd.
use std::ffi::OsString;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;

pub(crate) const VARIABLE: &str = "WRENN_GUEST_MEMORY";

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Configuration {
    /// Bytes of guest memory.
    pub(crate) size: usize,
    pub(crate) source: Source,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    File(RawFd),
    /// The layers are the descriptors after the header's, in the order of its table.
    Image {
        header: RawFd,
        layers: RawFd,
    },
    Pager {
        userfault_device: RawFd,
        socket: PathBuf,
    },
}

impl Configuration {
    pub(crate) fn from_environment() -> io::Result<Self> {
        parse(std::env::var_os(VARIABLE).as_ref())
    }
}

fn parse(value: Option<&OsString>) -> io::Result<Configuration> {
    let value = value.ok_or_else(|| invalid("not set"))?;
    let text = value.to_str().ok_or_else(|| invalid("not UTF-8"))?;
    let wrong = || invalid(&format!("not understood: {text}"));
    let (size, source) = text.strip_prefix("size=").and_then(|rest| rest.split_once(',')).ok_or_else(wrong)?;
    let source = match source.split_once('=').ok_or_else(wrong)? {
        ("file", file) => Source::File(descriptor(file).ok_or_else(wrong)?),
        ("image", rest) => {
            let (header, layers) = rest.split_once(",layers=").ok_or_else(wrong)?;
            let (header, layers) = (descriptor(header).ok_or_else(wrong)?, descriptor(layers).ok_or_else(wrong)?);
            header.checked_add(layers).ok_or_else(wrong)?;
            Source::Image { header, layers }
        }
        ("uffd", rest) => {
            // Whatever follows is the path, which may hold commas.
            let (device, socket) = rest.split_once(",socket=").ok_or_else(wrong)?;
            Source::Pager { userfault_device: descriptor(device).ok_or_else(wrong)?, socket: PathBuf::from(socket) }
        }
        _ => return Err(wrong()),
    };
    let size = size.parse().ok().filter(|size: &usize| *size > 0 && size.is_multiple_of(4096)).ok_or_else(wrong)?;
    Ok(Configuration { size, source })
}

fn descriptor(text: &str) -> Option<RawFd> {
    text.parse().ok().filter(|descriptor| *descriptor >= 0)
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> io::Result<Configuration> {
        parse(Some(&text.into()))
    }

    #[test]
    fn all_sources_are_understood() {
        let file = parsed("size=8192,file=3").expect("a file");
        assert_eq!(file, Configuration { size: 8192, source: Source::File(3) });
        let image = parsed("size=8192,image=4,layers=2").expect("an image");
        assert_eq!(image, Configuration { size: 8192, source: Source::Image { header: 4, layers: 2 } });
        let pager = parsed("size=4096,uffd=9,socket=/run/a,b/pager.sock").expect("a pager");
        let source = Source::Pager { userfault_device: 9, socket: "/run/a,b/pager.sock".into() };
        assert_eq!(pager, Configuration { size: 4096, source });
    }

    #[test]
    fn whatever_else_is_refused() {
        let wrong = [
            "",
            "size=4096",
            "size=4096,",
            "size=4096,file",
            "size=4096,file=",
            "size=4096,file=-1",
            "size=4096,file=x",
            "size=0,file=3",
            "size=4097,file=3",
            "size=-1,file=3",
            "file=3,size=4096",
            "size=4096,image=3",
            "size=4096,image=3,layers=-1",
            "size=4096,image=2147483647,layers=1",
            "size=4096,uffd=3",
            "size=4096,uffd=,socket=/a",
            "size=4096,disk=3",
        ];
        for text in wrong {
            assert!(parsed(text).is_err(), "{text}");
        }
        assert!(parse(None).is_err());
    }
}
