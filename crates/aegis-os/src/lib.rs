//! What Linux and macOS do differently, behind one set of calls. The rest of the
//! workspace does not ask which of the two it runs on for any of this.
//!
//! | module | Linux | macOS |
//! |---|---|---|
//! | [`watch`] | inotify(7) | the folders are looked at, twice a second |
//! | [`credential`] | a file of systemd's | a socket of aegisd's |
//! | [`descriptors`] | `MSG_CMSG_CLOEXEC`, `O_PATH`, `/proc/self/fd` | `FD_CLOEXEC` afterwards, `O_RDONLY`, `F_GETPATH` |
//! | [`dumps`] | `PR_SET_DUMPABLE` | no core files |
//! | [`nameless`] | memfd_create(2) | a file that is deleted at once |
//! | [`pipes`] | mknodat(2), `F_SETPIPE_SZ` | none are made, as they are |
//! | [`sockets`] | abstract names | there are none |
//!
//! The side of macOS is checked by the compiler, and where it is portable by tests on
//! Linux. It was never run on a Mac.

pub mod credential;
pub mod descriptors;
pub mod dumps;
pub mod nameless;
pub mod pipes;
pub mod sockets;
pub mod watch;
