//! The letters of packets, as in Sendmail's `mfdef.h`.

// what the MTA sends
pub(crate) const ABORT: u8 = b'A';
pub(crate) const BODY: u8 = b'B';
pub(crate) const CONNECT: u8 = b'C';
pub(crate) const MACRO: u8 = b'D';
pub(crate) const END_OF_MESSAGE: u8 = b'E';
pub(crate) const HELO: u8 = b'H';
pub(crate) const QUIT_NEW_CONNECTION: u8 = b'K';
pub(crate) const HEADER: u8 = b'L';
pub(crate) const MAIL: u8 = b'M';
pub(crate) const END_OF_HEADER: u8 = b'N';
pub(crate) const NEGOTIATE: u8 = b'O';
pub(crate) const QUIT: u8 = b'Q';
pub(crate) const RCPT: u8 = b'R';
pub(crate) const DATA: u8 = b'T';
pub(crate) const UNKNOWN: u8 = b'U';

// what the filter answers; NEGOTIATE is answered with its own letter. rmxd itself uses some of them only.
pub(crate) const CONTINUE: u8 = b'c';
pub(crate) const ADD_HEADER: u8 = b'h';
pub(crate) const INSERT_HEADER: u8 = b'i';
pub(crate) const CHANGE_HEADER: u8 = b'm';
pub(crate) const TEMPORARY_FAILURE: u8 = b't';
pub(crate) const REPLY_CODE: u8 = b'y';
pub(crate) const ACCEPT: u8 = b'a';
pub(crate) const DISCARD: u8 = b'd';
pub(crate) const CONNECTION_FAILURE: u8 = b'f';
pub(crate) const PROGRESS: u8 = b'p';
pub(crate) const QUARANTINE: u8 = b'q';
pub(crate) const REJECT: u8 = b'r';
pub(crate) const SKIP: u8 = b's';
pub(crate) const SHUTDOWN: u8 = b'4';
