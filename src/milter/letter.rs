//! The letters of packets, as in Sendmail's `mfdef.h`.

// what the MTA sends
pub(super) const ABORT: u8 = b'A';
pub(super) const BODY: u8 = b'B';
pub(super) const CONNECT: u8 = b'C';
pub(super) const MACRO: u8 = b'D';
pub(super) const END_OF_MESSAGE: u8 = b'E';
pub(super) const HELO: u8 = b'H';
pub(super) const QUIT_NEW_CONNECTION: u8 = b'K';
pub(super) const HEADER: u8 = b'L';
pub(super) const MAIL: u8 = b'M';
pub(super) const END_OF_HEADER: u8 = b'N';
pub(super) const NEGOTIATE: u8 = b'O';
pub(super) const QUIT: u8 = b'Q';
pub(super) const RCPT: u8 = b'R';
pub(super) const DATA: u8 = b'T';
pub(super) const UNKNOWN: u8 = b'U';

// what the filter answers; NEGOTIATE is answered with its own letter
pub(super) const CONTINUE: u8 = b'c';
pub(super) const ADD_HEADER: u8 = b'h';
pub(super) const INSERT_HEADER: u8 = b'i';
pub(super) const CHANGE_HEADER: u8 = b'm';
pub(super) const TEMPORARY_FAILURE: u8 = b't';
pub(super) const REPLY_CODE: u8 = b'y';
