//! Kernel modules of a distribution kernel. Our own kernel has none.
//!
//! `/modules.order` in the initramfs lists paths of uncompressed modules, one
//! per line, in an order in which each finds what it depends on.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;

use nix::kmod::{ModuleInitFlags, finit_module};

const LIST: &str = "/modules.order";
const NO_PARAMETERS: &CStr = c"";

/// Why a module is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModuleError {
    #[error("Cannot read {LIST}")]
    List(#[source] io::Error),
    #[error("Cannot open the module {path}")]
    Open {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("Cannot load the module {path}")]
    Load {
        path: String,
        #[source]
        source: nix::Error,
    },
}

/// Loads what the list names and removes the files, whose memory they take.
pub(crate) fn load_all() -> Result<(), ModuleError> {
    let list = match fs::read_to_string(LIST) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ModuleError::List(source)),
    };
    for path in list.lines() {
        let file = File::open(path).map_err(|source| ModuleError::Open {
            path: path.to_owned(),
            source,
        })?;
        match finit_module(&file, NO_PARAMETERS, ModuleInitFlags::empty()) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(source) => {
                return Err(ModuleError::Load {
                    path: path.to_owned(),
                    source,
                });
            }
        }
        // A file that stays costs memory only.
        fs::remove_file(path).ok();
    }
    Ok(())
}
