//! Sessions: one conversation each, in a file, and the task that owns it.
//!
//! | module | what it owns |
//! |---|---|
//! | [`name`] | file names |
//! | [`turn`] | one line of a file |
//! | [`conversation`] | what the lines mean |
//! | [`file`] | reading, adding, replacing |
//! | [`log`] | the file as its session and the running answer share it |
//! | [`actor`] | the order of messages of one session |

pub(crate) mod actor;
pub(crate) mod conversation;
pub(crate) mod file;
pub(crate) mod log;
pub(crate) mod name;
pub(crate) mod turn;
