//! Kernel modules the initramfs carries: drivers of the VM's devices.
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::warn;

const DIRECTORY: &str = "/modules";

/// In the order given: a module needs those before it. A kernel with a driver built in has no file for it.
pub(super) fn load_all() {
    let order = match fs::read_to_string(Path::new(DIRECTORY).join("order")) {
        Ok(order) => order,
        Err(error) => return warn(format_args!("{DIRECTORY}/order: {error}")),
    };
    for name in order.lines().map(str::trim).filter(|name| !name.is_empty()) {
        if let Err(error) = load(name) {
            warn(format_args!("module {name}: {error}"));
        }
    }
}

fn load(name: &str) -> io::Result<()> {
    const NO_PARAMETERS: &CStr = c"";
    let file = File::open(Path::new(DIRECTORY).join(name))?;
    match rustix::system::finit_module(&file, NO_PARAMETERS, 0) {
        Err(error) if error != rustix::io::Errno::EXIST => Err(error.into()),
        _ => Ok(()),
    }
}
