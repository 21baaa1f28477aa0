//! The flags of the negotiation.

/// Changes that the filter may ask for at the end of a message (`SMFIF_` in `mfdef.h`).
pub(super) mod action {
    pub(in crate::milter) const ADD_HEADERS: u32 = 0x1;
    pub(in crate::milter) const CHANGE_HEADERS: u32 = 0x10;
    pub(in crate::milter) const QUARANTINE: u32 = 0x20;
    pub(in crate::milter) const SET_MACRO_LISTS: u32 = 0x100;
}

/// Events that are not sent, or get no answer, and the form of values (`SMFIP_` in `mfdef.h`).
pub(super) mod protocol {
    pub(in crate::milter) const NO_BODY: u32 = 0x10;
    pub(in crate::milter) const NO_REPLY_HEADER: u32 = 0x80;
    pub(in crate::milter) const NO_UNKNOWN: u32 = 0x100;
    pub(in crate::milter) const NO_REPLY_CONNECT: u32 = 0x1000;
    pub(in crate::milter) const NO_REPLY_HELO: u32 = 0x2000;
    pub(in crate::milter) const NO_REPLY_MAIL: u32 = 0x4000;
    pub(in crate::milter) const NO_REPLY_RCPT: u32 = 0x8000;
    pub(in crate::milter) const NO_REPLY_DATA: u32 = 0x1_0000;
    pub(in crate::milter) const NO_REPLY_UNKNOWN: u32 = 0x2_0000;
    pub(in crate::milter) const NO_REPLY_END_OF_HEADER: u32 = 0x4_0000;
    pub(in crate::milter) const NO_REPLY_BODY: u32 = 0x8_0000;
    pub(in crate::milter) const LEADING_SPACE: u32 = 0x10_0000;
}
